//! Locks that all replicas on the machine share, and that die with the process that holds them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::LocalError;
use crate::scope::Scope;

/// An exclusive lock on a name, until dropped.
pub(crate) struct NamedLock {
    held: Flock<File>,
    path: PathBuf,
}

impl NamedLock {
    /// Takes the lock at `path`, waiting as long as the caller does.
    pub fn take(path: &Path, scope: &Scope) -> Result<Self, LocalError> {
        scope.wait_for(&format!("the lock `{}`", path.display()), || Self::try_take(path))
    }

    /// Takes the lock at `path` if nobody has it.
    pub fn try_take(path: &Path) -> Result<Option<Self>, LocalError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(LocalError::os("open", path))?;
        let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(LocalError::os("lock", path)(errno)),
        };
        // Whoever held it before may have removed the file: then this lock is on a name that nobody sees any more.
        let is_current = match (std::fs::metadata(path), held.metadata()) {
            (Ok(on_disk), Ok(ours)) => on_disk.ino() == ours.ino() && on_disk.dev() == ours.dev(),
            _ => false,
        };
        Ok(is_current.then(|| Self { held, path: path.to_owned() }))
    }

    /// Gives the lock up for good: its object is gone, so the file goes too.
    pub fn retire(self) {
        // A file that stays behind costs an inode; the next holder of the name just uses it.
        let _ = std::fs::remove_file(&self.path);
        drop(self.held);
    }
}
