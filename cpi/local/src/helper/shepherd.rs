//! The supervisor of a VM that has an inside: makes the namespaces, carries connections in and out, waits for the end.

use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::relay::Relay;
use super::{HelperError, LaunchSpec, Started, leave_starter, own_id, say, spawn_helper};
use crate::error::LocalError;
use crate::netlink::Netlink;
use crate::process::ProcessId;

/// Everything but the mounts, which the first process inside makes its own: we keep the host's.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// Runs a VM until its end.
pub(super) fn run(spec: &LaunchSpec, spec_path: &Path) -> Result<(), HelperError> {
    // The way back; also for processes, since a process whose children live elsewhere can't have threads.
    let ways_back =
        [("/proc/self/ns/net", CloneFlags::CLONE_NEWNET), ("/proc/self/ns/pid", CloneFlags::CLONE_NEWPID)]
            .map(|(path, kind)| {
                File::open(path).map(|file| (path, file, kind)).map_err(LocalError::os("open", path))
            });
    unshare(NAMESPACES).map_err(LocalError::os("make namespaces for", spec_path))?;
    // While we are in there: the agent finds the directors from its first breath.
    let relay = Relay::prepare(spec)?;
    let mut init = spawn_helper(&spec.helper_args, "init", spec_path)?;
    for way_back in ways_back {
        let (path, namespace, kind) = way_back?;
        setns(&namespace, kind).map_err(LocalError::os("return to", path))?;
    }
    let gone = || LocalError::os("look up process", init.id().to_string())(nix::errno::Errno::ESRCH);
    let init_id = ProcessId::of(init.id() as i32).ok_or_else(gone)?;
    say(&Started { supervisor: own_id()?, init: init_id }.to_line());
    leave_starter();
    relay.start()?;
    init.wait().map_err(LocalError::os("wait for", spec_path))?;
    Ok(())
}

/// Does once, below `scratch`, what a VM takes.
pub(super) fn probe(scratch: &Path) -> Result<(), HelperError> {
    unshare(NAMESPACES).map_err(LocalError::os("make namespaces for", scratch))?;
    let wire = || {
        let netlink = Netlink::open()?;
        netlink.link_up("lo")?;
        netlink.bridge("br0")?;
        netlink.cable("probe0", "br0", "probe1", std::process::id() as i32)
    };
    wire().map_err(LocalError::os("make a network cable for", scratch))?;
    // The arguments that made us a helper come again, without the role and its argument.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let first_args = &args[..args.len().saturating_sub(2)];
    let child = spawn_helper(first_args, "probe-inside", scratch)?;
    waitpid(Pid::from_raw(child.id() as i32), None).map_err(LocalError::os("wait for", scratch))?;
    Ok(())
}
