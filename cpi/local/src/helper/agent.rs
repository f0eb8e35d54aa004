//! Keeps the agent running, and reaps whatever else ends below us.

use std::io;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cpi_host::HostError;
use model::agent_settings::SWITCHED_OFF;
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::LaunchSpec;

/// First wait before an agent that died is started again; each further one doubles it.
const RESTART_WAIT: Duration = Duration::from_millis(100);
/// Longest wait: an agent that can't start must not keep a processor busy, and must be back soon once it can.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);
/// An agent that lived this long was fine: the next wait is the first again.
const SETTLED: Duration = Duration::from_secs(30);

/// Runs the agent until it switches the machine off; `started` is called once, when it runs for the first time. Ends with
/// an error only before that.
///
/// Jobs are not touched when the agent dies: as on any VM, they run on, and the next agent finds them by their pidfiles.
pub(super) fn keep_running(spec: &LaunchSpec, started: impl FnOnce()) -> Result<(), HostError> {
    let mut agent = start(spec)?;
    started();
    let mut wait = RESTART_WAIT;
    loop {
        let begun = Instant::now();
        if reap_until(agent) == Some(i32::from(SWITCHED_OFF)) {
            return Ok(());
        }
        wait = if begun.elapsed() > SETTLED { RESTART_WAIT } else { (wait * 2).min(RESTART_WAIT_MAX) };
        agent = loop {
            std::thread::sleep(wait);
            match start(spec) {
                Ok(agent) => break agent,
                Err(error) => eprintln!("local-vm: {}", cpi_host::Chain(&error)),
            }
            wait = (wait * 2).min(RESTART_WAIT_MAX);
        };
    }
}

#[allow(clippy::zombie_processes, reason = "`reap_until` waits for every child there is")]
fn start(spec: &LaunchSpec) -> Result<Pid, HostError> {
    // Our standard error is the VM's console; its path means nothing any more once we have a root of our own.
    let console = io::stderr().as_fd().try_clone_to_owned().map_err(HostError::os("share", &spec.console))?;
    let child = Command::new(&spec.agent)
        .args(&spec.agent_args)
        .env_clear()
        .envs(&spec.agent_env)
        .current_dir(&spec.agent_dir)
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(HostError::os("start agent", &spec.agent))?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Waits for children, whoever they are, until `agent` is among the ended. Returns its exit code, if it had one.
fn reap_until(agent: Pid) -> Option<i32> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == agent => return Some(code),
            Ok(WaitStatus::Signaled(pid, _, _)) if pid == agent => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            // No children at all: then the agent is not one either.
            Err(_) => return None,
        }
    }
}
