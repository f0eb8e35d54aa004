//! Child processes: ours, which somebody awaits, and orphans that the kernel gives to us.
//!
//! Jobs daemonise: their processes lose their parent and become children of the agent, when it is process 1 or a
//! subreaper. [`reap_orphans`] collects those when they die. It must never collect a child of ours, whose status would
//! then be lost: ours are entered in a table under the same lock that the reaper takes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::ActionError;

/// The children that somebody awaits.
static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Deaths that come together are collected together.
const COLLECT_AFTER: Duration = Duration::from_millis(100);

/// A child that somebody awaits. Its process group dies when it is dropped, unless [`OurChild::wait`] has returned or it
/// is [left alone](OurChild::leave_alone).
pub(crate) struct OurChild {
    child: Child,
    pid: i32,
    dies_when_dropped: bool,
}

/// Starts a program in a process group of its own.
pub(crate) fn spawn(command: &mut Command) -> io::Result<OurChild> {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.process_group(0).spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    ours.insert(pid);
    Ok(OurChild { child, pid, dies_when_dropped: true })
}

impl OurChild {
    /// Returns its process id, which is also its group's.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the child, for its pipes.
    pub(crate) fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end. Safe to cancel.
    pub(crate) async fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let status = self.child.wait().await?;
        self.dies_when_dropped = false;
        Ok(status)
    }

    /// Lets it outlive whoever awaits it: it is the service that it was to start, or that one's parent.
    pub(crate) fn leave_alone(&mut self) {
        self.dies_when_dropped = false;
    }

    /// Ends its process group: kindly, and after `patience` by force.
    pub(crate) async fn end(&mut self, patience: Duration) {
        self.signal_group(nix::sys::signal::SIGTERM);
        if tokio::time::timeout(patience, self.wait()).await.is_err() {
            self.signal_group(nix::sys::signal::SIGKILL);
            // A killed child ends as soon as the kernel lets it.
            let _ = self.wait().await;
        }
        // Whatever it had started and left behind.
        self.signal_group(nix::sys::signal::SIGKILL);
    }

    fn signal_group(&self, signal: nix::sys::signal::Signal) {
        if self.pid > 1 {
            // A group that is gone needs no signal.
            let _ = nix::sys::signal::killpg(Pid::from_raw(self.pid), signal);
        }
    }
}

impl Drop for OurChild {
    fn drop(&mut self) {
        if self.dies_when_dropped {
            self.signal_group(nix::sys::signal::SIGKILL);
        }
        OURS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}

/// Runs one of the machine's own programs, looked for in `path`, to its end; one that fails says why.
pub(crate) async fn run(program: &str, arguments: &[&str], path: &OsStr) -> Result<(), ActionError> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = async {
        let (mut child, mut said) = (spawn(&mut command)?, Vec::new());
        if let Some(mut stderr) = child.pipes().stderr.take() {
            stderr.read_to_end(&mut said).await?;
        }
        io::Result::Ok((child.wait().await?, said))
    };
    let (status, said) = ended.await.map_err(ActionError::file("run", Path::new(program)))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(ActionError::failed(format!("`{program}` failed: {said}")))
}

/// Collects orphans that have died, until `stop`. For processes that are process 1 or have called
/// [`become_subreaper`].
pub async fn reap_orphans(stop: CancellationToken) {
    let mut deaths = match signal(SignalKind::child()) {
        Ok(deaths) => deaths,
        Err(error) => return warn!(error = %error, "the deaths of children can't be listened to"),
    };
    loop {
        tokio::select! {
            _ = deaths.recv() => tokio::time::sleep(COLLECT_AFTER).await,
            () = stop.cancelled() => return,
        }
        let collected = tokio::task::spawn_blocking(collect_orphans).await;
        debug!(count = collected.unwrap_or_default(), "orphans were collected");
    }
}

/// Makes orphans below this process its children.
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

fn collect_orphans() -> usize {
    let me = std::process::id();
    let candidates = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = crate::proc::Stat::of(pid)?;
        (stat.parent == me && stat.is_zombie()).then_some(pid)
    });
    let mut count = 0;
    for pid in candidates.collect::<Vec<_>>() {
        let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if !ours.contains(&pid) && waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).is_ok() {
            count += 1;
        }
    }
    count
}
