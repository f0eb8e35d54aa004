//! What runs in the helper processes: the supervisor of each VM and, where it has one, its first process inside.
//!
//! A helper is a program of its own, because entering namespaces concerns a whole process and must happen before it has
//! threads. `directord` can be its own helper: its `main` passes the arguments after `local-vm` to [`main`].
//!
//! ```text
//! directord ── launch ─┬─ (ends at once; makes a session of its own)
//!                      └─ supervise            where a VM is only processes: dagent and jobs are below it
//!                      └─ shepherd ── init     where it has an inside: init is pid 1 there, dagent below it
//!                      └─ keeper ── QEMU       where it is a machine: what runs there is its own
//! directord ── errand                         what takes the ids of VMs, where there is no root: gone in a moment
//! ```
//! Nothing here survives half-made: each helper waits for a line on its standard input before it does its deed, and
//! ends if the line never comes, because whoever started it has died.

mod agent;
mod errand;
mod inside;
mod keeper;
mod proxy;
mod realm;
mod relay;
mod shepherd;
mod spec;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode};

pub(crate) use errand::Errand;
pub(crate) use spec::{
    AGENT_INSIDE, Entrance, InsideSpec, LabSpec, LaunchSpec, MachineSpec, Realm, Started, VCAP,
};

use cpi_host::records;
use cpi_host::{Chain, HostError};
use nix::sys::stat::{Mode, umask};

use crate::process::ProcessId;

/// Exit code of a helper that was called the wrong way.
const USAGE: u8 = 64;

/// What the files of a VM are not, unless somebody says so: for others to write.
const UMASK: u32 = 0o022;

/// Runs a helper: `launch|supervise|shepherd|init|keeper|machine SPEC`, `probe|probe-inside|probe-realm|probe-realm-inside
/// DIRECTORY`, `map-ids PROCESS` or `errand ORDER`.
pub fn main(args: &[OsString]) -> ExitCode {
    let [role, spec_path] = args else {
        eprintln!("usage: local-vm ROLE SPEC (started by the local cloud, not by hand)");
        return ExitCode::from(USAGE);
    };
    let path = Path::new(spec_path);
    // What a VM is made of is for all its users, and its agent has ours: whoever started us may keep files to itself.
    umask(Mode::from_bits_truncate(UMASK));
    let outcome = match role.to_str() {
        Some("probe") => shepherd::probe(path, Realm::Host),
        Some("probe-inside") => inside::probe(path, Realm::Host),
        Some("probe-realm") => shepherd::probe(path, Realm::UserNamespace),
        Some("probe-realm-inside") => inside::probe(path, Realm::UserNamespace),
        Some("errand") => errand::run(path),
        Some("map-ids") => realm::map_ids(path),
        Some("launch") => read_spec(path).and_then(|spec| launch(&spec, path)),
        Some("supervise") => read_spec(path).and_then(|spec| supervise(&spec)),
        Some("shepherd") => read_spec(path).and_then(|spec| shepherd::run(&spec, path)),
        Some("keeper") => read_spec(path).and_then(|spec| keeper::run(&spec, path)),
        Some("machine") => read_spec(path).and_then(|spec| keeper::become_machine(&spec)),
        Some("init") => read_spec(path).and_then(|spec| inside::run(&spec)),
        other => Err(HelperError::Role(other.unwrap_or_default().to_owned())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Both to whoever waits for us and into the VM's console.
            if !matches!(error, HelperError::Connection(_)) {
                say(&format!("failed: {}", Chain(&error)));
            }
            eprintln!("local-vm {}: {}", role.to_string_lossy(), Chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Why a helper gave up.
#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("no such helper: `{0}`")]
    Role(String),
    #[error("the specification is missing")]
    NoSpec,
    #[error("whoever started this has ended before it said go")]
    NoGo,
    #[error(transparent)]
    Local(#[from] HostError),
    /// Of one whose standard output is somebody's connection: no word of ours belongs there.
    #[error(transparent)]
    Connection(HostError),
}

fn read_spec(path: &Path) -> Result<LaunchSpec, HelperError> {
    records::read(path)?.ok_or(HelperError::NoSpec)
}

/// Starts the long-lived helper in a session of its own, so that nothing that happens to our starter reaches it.
#[allow(clippy::zombie_processes, reason = "we end at once, and our child's next parent waits for it")]
fn launch(spec: &LaunchSpec, spec_path: &Path) -> Result<(), HelperError> {
    nix::unistd::setsid().map_err(HostError::os("start a session for", spec_path))?;
    spawn_helper(&spec.helper_args, spec.supervisor_role(), spec_path)?;
    Ok(())
}

/// Returns the arguments that made us a helper, without the role and what it is about.
fn first_args() -> Vec<String> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    args.truncate(args.len().saturating_sub(2));
    args
}

/// Starts this program again in another role, with our standard streams.
fn spawn_helper(helper_args: &[String], role: &str, path: &Path) -> Result<Child, HostError> {
    let child = Command::new("/proc/self/exe").args(helper_args).arg(role).arg(path).spawn();
    child.map_err(HostError::os("start helper", role))
}

/// Holds up a VM that is only processes.
fn supervise(spec: &LaunchSpec) -> Result<(), HelperError> {
    // Orphans of the VM become our children and no one else's: that is how `delete_vm` finds all of it.
    nix::sys::prctl::set_child_subreaper(true).map_err(HostError::os("adopt orphans of", &spec.console))?;
    let own = own_id()?;
    say(&Started { supervisor: own, init: own }.to_line());
    wait_for_go()?;
    agent::keep_running(spec, || {
        say("ready");
        leave_starter();
    })?;
    Ok(())
}

fn own_id() -> Result<ProcessId, HostError> {
    let own = std::process::id() as i32;
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    ProcessId::of(own).ok_or_else(missing).map_err(HostError::os("look up process", own.to_string()))
}

/// Writes a line to whoever started us; that it has ended is none of our business.
fn say(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn wait_for_go() -> Result<(), HelperError> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(read) if read > 0 => Ok(()),
        _ => Err(HelperError::NoGo),
    }
}

/// Lets go of the pipes to our starter: it reads them to the end, and we stay.
fn leave_starter() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
