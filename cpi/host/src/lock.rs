//! Locks that all replicas on the machine share, and that die with the process that holds them.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::HostError;
use crate::scope::Scope;

/// An exclusive lock on a name, until dropped.
pub struct NamedLock {
    held: Flock<File>,
    path: PathBuf,
}

impl NamedLock {
    /// Takes the lock at `path`, waiting as long as the call may.
    pub fn take(path: &Path, scope: &Scope) -> Result<Self, HostError> {
        let waited_since = Instant::now();
        scope.wait_for(&format!("the lock `{}`", path.display()), || match Self::try_take(path)? {
            // A lock dies with its holder, but a holder that was stopped keeps it for ever.
            None if waited_since.elapsed() >= scope.lock_wait() => {
                Err(HostError::Busy { path: path.to_owned(), holder: holder(path) })
            }
            answer => Ok(answer),
        })
    }

    /// Takes the lock at `path` if nobody has it.
    pub fn try_take(path: &Path) -> Result<Option<Self>, HostError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(HostError::os("open", path))?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(HostError::os("lock", path)(errno)),
        };
        // Whoever held it before may have removed the file: then this lock is on a name that nobody sees any more.
        let is_current = match (std::fs::metadata(path), held.metadata()) {
            (Ok(on_disk), Ok(ours)) => on_disk.ino() == ours.ino() && on_disk.dev() == ours.dev(),
            _ => false,
        };
        if !is_current {
            return Ok(None);
        }
        // For whoever waits in vain. The lock counts, not this line: it stays when its writer has died.
        let own_line = held.set_len(0).and_then(|()| writeln!(held, "{}", std::process::id()));
        own_line.map_err(HostError::os("write", path))?;
        Ok(Some(Self { held, path: path.to_owned() }))
    }

    /// Gives the lock up for good: its object is gone, so the file goes too.
    pub fn retire(self) {
        // A file that stays behind costs an inode; the next holder of the name just uses it.
        let _ = std::fs::remove_file(&self.path);
        drop(self.held);
    }
}

/// Returns who has the lock at `path`, for people to read.
fn holder(path: &Path) -> String {
    let line = std::fs::read_to_string(path).unwrap_or_default();
    match line.trim().parse() {
        Ok(pid) if is_stopped(pid) => format!("process {pid}, which is stopped,"),
        Ok(pid) => format!("process {pid}"),
        // It has the lock since this moment, and has not written its line yet.
        Err(_) => "another process".to_owned(),
    }
}

/// Returns whether the process with this number is there and was stopped, by a signal or a debugger.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold any character: what follows the last one is the state.
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with(['T', 't']))
}
