//! Snapshots: RocksDB checkpoints, as directories.
//!
//! A checkpoint hard-links the immutable table files and copies the small rest, so it costs milliseconds and hardly any
//! space, whatever the size of the state. It is streamed file by file and never held in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{DatabaseKind, Disk, DiskError};
use crate::examine;
use crate::state_db::StateDb;
use crate::type_config::{SnapshotMeta, TypeConfig};

/// A snapshot in its directory; the directory goes with the last clone, unless it is kept.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDir {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Whether the directory stays when nobody uses this value any more, to be found at the next start.
    kept: AtomicBool,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

impl SnapshotDir {
    /// Takes over the snapshot in `path`, to be removed when nobody uses it any more.
    pub(crate) fn temporary(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { disk, path, kept: AtomicBool::new(false) }) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.inner.disk
    }

    /// Makes the directory stay, also after the process.
    pub(crate) fn keep(&self) {
        self.inner.kept.store(true, Ordering::Release);
    }

    /// Lets the directory go once nobody reads it any more.
    pub(crate) fn release(&self) {
        self.inner.kept.store(false, Ordering::Release);
    }

    /// Returns what this snapshot contains.
    pub(crate) fn meta(&self) -> Result<SnapshotMeta, DiskError> {
        let (last_log_id, last_membership) = StateDb::peek(self.disk(), self.path())?;
        Ok(SnapshotMeta { last_log_id, last_membership })
    }

    /// Reads every record once: a damaged snapshot is no snapshot.
    pub(crate) fn check(&self) -> Result<(), DiskError> {
        examine::read_database(self.disk(), self.path(), DatabaseKind::State)
    }

    /// Returns the files that make up the snapshot, by name.
    pub(crate) fn files(&self) -> io::Result<Vec<SnapshotFile>> {
        let entries = self.disk().list(self.path())?.into_iter();
        // Not RocksDB's own chatter, which looking into the snapshot leaves behind.
        let content = entries.filter(|entry| entry.name != "LOCK" && !entry.name.starts_with("LOG"));
        Ok(content.map(|entry| SnapshotFile { name: entry.name, bytes: entry.bytes }).collect())
    }

    /// Copies the snapshot to `to`: table files, which never change, as hard links; the rest, which RocksDB goes on
    /// writing, in full. Durable when it returns.
    pub(crate) fn copy_to(&self, to: &Path) -> io::Result<()> {
        let disk = self.disk();
        disk.create_dir(to)?;
        for file in self.files()? {
            let (from, to) = (self.path().join(&file.name), to.join(&file.name));
            match file.name.ends_with(".sst") {
                true => disk.link(&from, &to)?,
                false => disk.copy(&from, &to)?,
            }
        }
        disk.sync_files(to)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotDir").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            // What a failure leaves is removed at the next start.
            if let Err(error) = self.disk.remove_dir(&self.path) {
                tracing::warn!(%error, dir = %self.path.display(), "an old snapshot was not removed");
            }
        }
    }
}

/// What openraft calls a snapshot: what it contains, and where it is.
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;
