//! Becoming root of a user namespace, or of one that is there. Without root on the host, everything else comes after this.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use cpi_host::HostError;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::setgroups;

use super::HelperError;
use crate::ids::Mapping;

/// Makes a user namespace with the user's range of ids and becomes its root. Only for a process with one thread.
pub(super) fn found() -> Result<(), HostError> {
    // Started first, since only somebody outside can say which ids there are inside.
    let own = std::process::id().to_string();
    let mut mapper = Command::new("/proc/self/exe")
        .args(super::first_args())
        .arg("map-ids")
        .arg(&own)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(HostError::os("start helper", "map-ids"))?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| {
        let hint = format!("{errno}; are user namespaces of ordinary users switched off here?");
        HostError::os("make", "a user namespace")(io::Error::new(io::Error::from(errno).kind(), hint))
    })?;
    let mut answer = String::new();
    let mut asked = || -> io::Result<()> {
        if let Some(mut words) = mapper.stdin.take() {
            words.write_all(b"go\n")?;
        }
        if let Some(mut answers) = mapper.stdout.take() {
            answers.read_to_string(&mut answer)?;
        }
        if mapper.wait()?.success() { Ok(()) } else { Err(io::Error::other(answer.trim().to_owned())) }
    };
    asked().map_err(HostError::os("give ids to", "a user namespace"))?;
    leave_groups()
}

/// Becomes root of the user namespace at `path`. Only for a process with one thread.
pub(super) fn enter(path: &Path) -> Result<(), HostError> {
    let namespace = File::open(path).map_err(HostError::os("open", path))?;
    setns(&namespace, CloneFlags::CLONE_NEWUSER).map_err(HostError::os("enter", path))?;
    leave_groups()
}

/// Gives the ids to a process that waits for them, once somebody says go.
pub(super) fn map_ids(process: &Path) -> Result<(), HelperError> {
    super::wait_for_go()?;
    let pid = process.to_str().and_then(|pid| pid.parse().ok());
    let pid = pid.ok_or(HelperError::NoSpec)?;
    let mapping = Mapping::of_own_user().map_err(io::Error::other);
    let written = mapping.and_then(|mapping| mapping.write(pid));
    Ok(written.map_err(HostError::os("map ids for process", process))?)
}

/// What groups of the host may read is nothing to a VM.
fn leave_groups() -> Result<(), HostError> {
    setgroups(&[]).map_err(HostError::os("leave", "the groups of the user"))
}
