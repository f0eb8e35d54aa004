//! One process at a time on a data folder. The databases have locks of their own; this one is there before them, says
//! who is in the way in words, and covers what is no database.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held for as long as the process works on the folder; goes with the process, however that ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock of a data folder, which is made if it is not there.
    pub fn take(data_dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("create the data folder {}", data_dir.display()))?;
        let path = data_dir.join("lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => anyhow::bail!(
                "a replica, or a command for one, is at work on `{}`: stop it first",
                data_dir.display()
            ),
            Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_process_s_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataLock::take(&folder.path().join("data")).unwrap();
        let refused = DataLock::take(&folder.path().join("data")).unwrap_err().to_string();
        assert!(refused.contains("is at work on"), "{refused}");
        drop(held);
        DataLock::take(&folder.path().join("data")).unwrap();
    }
}
