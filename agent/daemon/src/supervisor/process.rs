//! The process behind a pidfile, so held that another process with the same id is never taken for it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::pidfd;
use crate::proc::Stat;

/// How much younger than its pidfile's last writing a process must be to be somebody else's.
const REUSED_MARGIN_SECONDS: f64 = 5.0;

/// How often a process is looked at where the kernel has no pidfds.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A live process.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    stat: Stat,
    handle: Option<AsyncFd<OwnedFd>>,
}

impl Process {
    /// Finds the live process that a pidfile names.
    pub(crate) fn behind(pidfile: &Path) -> Option<Self> {
        let pid: i32 = std::fs::read_to_string(pidfile).ok()?.split_whitespace().next()?.parse().ok()?;
        let process = Self::open(pid)?;
        (!process.is_reused(pidfile)).then_some(process)
    }

    fn open(pid: i32) -> Option<Self> {
        // Process 1 is never a job's, and a negative number is a group to the kernel.
        let raw = Pid::from_raw(Some(pid).filter(|pid| *pid > 1)?)?;
        // Without a handle, on an old kernel, the process is looked at again and again instead.
        let handle = pidfd::open(raw).ok();
        // Read after the handle was taken, so that both are of the same process.
        let stat = Stat::of(pid).filter(|stat| !stat.is_zombie())?;
        Some(Self { pid, stat, handle })
    }

    /// A pidfile that was written long before the process began names an earlier one, of an earlier boot perhaps.
    fn is_reused(&self, pidfile: &Path) -> bool {
        let written = std::fs::metadata(pidfile).and_then(|metadata| metadata.modified());
        let Some(age) = written.ok().and_then(|at| at.elapsed().ok()) else { return false };
        self.stat.age_seconds() + REUSED_MARGIN_SECONDS < age.as_secs_f64()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn age_seconds(&self) -> f64 {
        self.stat.age_seconds()
    }

    /// Waits for its death.
    pub(crate) async fn died(&self) {
        if let Some(handle) = &self.handle {
            // Readable means dead; an error means that the handle is of no use: look.
            if handle.readable().await.is_ok() {
                return;
            }
        }
        while Stat::of(self.pid)
            .is_some_and(|now| !now.is_zombie() && now.started_ticks == self.stat.started_ticks)
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // A process that is gone needs no signal.
        match &self.handle {
            Some(handle) => {
                let _ = pidfd_send_signal(handle.get_ref(), signal);
            }
            None => {
                if let Some(pid) = Pid::from_raw(self.pid) {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn a_death_is_noticed_and_a_dead_process_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("p.pid");
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        std::fs::write(&pidfile, format!("{}\n", child.id())).unwrap();
        let process = Process::behind(&pidfile).unwrap();
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(10), process.died()).await.expect("the death is noticed");
        assert!(Process::behind(&pidfile).is_none(), "a zombie is dead");
        child.wait().unwrap();
        assert!(Process::behind(&pidfile).is_none());
    }

    #[tokio::test]
    async fn a_stale_pidfile_does_not_name_a_younger_process() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("p.pid");
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(&pidfile, child.id().to_string()).unwrap();
        let file = std::fs::File::options().write(true).open(&pidfile).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        assert!(Process::behind(&pidfile).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn nonsense_in_a_pidfile_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "x", "-5", "0", "1", "999999999"] {
            let pidfile = dir.path().join("p.pid");
            std::fs::write(&pidfile, text).unwrap();
            assert!(Process::behind(&pidfile).is_none(), "{text}");
        }
    }
}
