//! The seam to the disk: two kinds of ordered databases, some files, and the threads that wait for them.
//!
//! [`LocalDisk`] is the real one: RocksDB and the file system. A simulated one forgets what was not synced when its
//! machine crashes, which no real disk does on demand. Whatever relies on an order of writes and syncs is above this seam,
//! so that the simulation tests it.
//!
//! Everything here blocks, but [`Disk::run`] and [`Disk::start_writer`], which see to where it does.

mod local;
mod rocks;

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

pub use self::local::LocalDisk;
pub use crate::log_writer::LogWork;
use crate::{Direction, Pair};

/// What a disk says when it fails.
pub type DiskError = Box<dyn std::error::Error + Send + Sync>;

/// The pairs of a scan, or what kept the disk from reading on; lazy.
pub type DiskScan<'a> = Box<dyn Iterator<Item = Result<Pair, DiskError>> + 'a>;

/// A part of a database: keys of different families never meet.
pub type Family = &'static str;

/// What a database is for, which decides how it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatabaseKind {
    /// The Raft log: short-lived entries, every write synced.
    Log,
    /// The state: long-lived rows, synced now and then.
    State,
}

impl DatabaseKind {
    /// Returns the families that a database of this kind has.
    pub fn families(self) -> &'static [Family] {
        match self {
            Self::Log => &["logs", "meta"],
            Self::State => &["data", "meta"],
        }
    }
}

/// Whether a write must be on the disk before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Fsync before returning.
    Synced,
    /// Whenever the operating system likes.
    Buffered,
}

/// One change to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Removes a key; an absent one is fine.
    Delete(Family, Vec<u8>),
    /// Removes all keys from the first one up to, without, the second.
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

/// Reading, of a database as it is or as it was.
pub trait Reader: Send + Sync {
    /// Returns the value of `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError>;
    /// Returns the pairs with `start <= key < end`; no `end` means all keys from `start`.
    fn scan(&self, family: Family, start: &[u8], end: Option<&[u8]>, direction: Direction) -> DiskScan<'_>;
}

/// An open database.
pub trait Database: Reader {
    /// Makes all changes at once: after a crash all of them are there or none. What was written before this is not lost
    /// while this is kept.
    fn write(&self, changes: Vec<Change>, durability: Durability) -> Result<(), DiskError>;
    /// Puts everything that was written on the disk.
    fn sync(&self) -> Result<(), DiskError>;
    /// Returns the database as it is now, whatever is written later.
    fn pin(self: Arc<Self>) -> Arc<dyn Reader>;
    /// Makes a copy of the database, as it is now, in the directory `to`, which must not exist yet.
    fn checkpoint(&self, to: &Path) -> Result<(), DiskError>;
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// A directory, or a file.
    pub is_dir: bool,
    /// The length of a file.
    pub bytes: u64,
}

/// The writer of a log, as its owner holds it. It has ended when the drop returns, and has written what it was sent.
pub trait Writer: Send + Sync {}

/// Where a replica keeps what it must not forget.
pub trait Disk: Send + Sync + 'static {
    /// Runs blocking work where it holds nobody up. Fails if it panicked, or the program is ending.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkLost>>;
    /// Starts the writer of a log.
    fn start_writer(&self, work: LogWork) -> io::Result<Box<dyn Writer>>;

    /// Opens the database in `dir`, creating it when absent. Nobody else can open it meanwhile.
    fn open(&self, dir: &Path, kind: DatabaseKind) -> Result<Arc<dyn Database>, DiskError>;
    /// Opens the database in `dir` for a look, without changing it.
    fn peek(&self, dir: &Path, kind: DatabaseKind) -> Result<Arc<dyn Reader>, DiskError>;

    /// Returns whether there is something at `path`.
    fn exists(&self, path: &Path) -> bool;
    /// Returns what is in a directory, by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a directory and those above it, where absent.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates a directory, which must not exist yet.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it; an absent one is fine.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or a directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file that never changes a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies a file.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns up to `max` bytes of a file from `offset` on; fewer only at its end.
    fn read(&self, path: &Path, offset: u64, max: usize) -> io::Result<Vec<u8>>;
    /// Creates a file, which must not exist yet, with nothing in it.
    fn create(&self, path: &Path) -> io::Result<()>;
    /// Adds to the end of a file.
    fn append(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Replaces a file: afterwards, and after a crash, it is the old one or the new one.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Makes the entries of a directory durable: names are data of the directory, not of the file.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the content of all files in a directory, and their names, durable.
    fn sync_files(&self, dir: &Path) -> io::Result<()>;
}

/// Work did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkLost {
    /// It panicked.
    Panicked,
    /// The program is ending.
    Ending,
}

/// Runs `work` on `disk` and returns what it returned.
pub(crate) async fn run<T: Send + 'static>(
    disk: &dyn Disk,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkLost> {
    let (done, result) = tokio::sync::oneshot::channel();
    // Whoever waited may be gone; the work counts all the same.
    disk.run(Box::new(move || drop(done.send(work())))).await?;
    result.await.map_err(|_| WorkLost::Panicked)
}

impl std::fmt::Display for WorkLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Panicked => "it panicked",
            Self::Ending => "the program is ending",
        })
    }
}

impl std::error::Error for WorkLost {}
