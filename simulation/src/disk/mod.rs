//! A disk that forgets: what was not synced when its machine crashes is lost, in part or as a whole.
//!
//! Names and content are durable apart from each other, as POSIX has it: a file is there after a crash if its directory
//! was synced, with what was in it when the file was. A database keeps what was synced, and of the writes after that
//! some first ones; a torn record at the end of a write-ahead log is one that was not written.

mod database;
mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use owned_tasks::{OnExit, OwnedTasks};
use raft::disk::{
    Change, Database, DatabaseKind, DirEntry, Disk, DiskError, Durability, LogWork, Reader, WorkLost, Writer,
};

use self::database::{Content, OpenDatabase, Stored};
use self::files::{Files, Node};
use crate::chance::Chance;

/// Told of everything that is written to a database.
pub type Witness = Arc<dyn Fn(DatabaseKind, &[Change]) + Send + Sync>;

/// What ails a disk at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ailment {
    /// A sync takes so much longer, in milliseconds.
    pub slow_ms: u64,
    /// Syncs fail.
    pub fails: bool,
}

struct Platter {
    files: Files,
    chance: Chance,
    ailment: Ailment,
    /// Which life of the machine may use it: a handle of an earlier one finds nothing.
    life: u64,
    witness: Witness,
}

/// The disk of one machine, over all its lives.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

impl SimDisk {
    /// Returns an empty disk.
    pub fn new(chance: Chance, witness: Witness) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            files: Files::default(),
            chance,
            ailment: Ailment::default(),
            life: 0,
            witness,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine crashes. Returns how many writes were lost.
    pub fn crash(&self) -> usize {
        let mut platter = self.lock();
        platter.life += 1;
        let Platter { files, chance, .. } = &mut *platter;
        files.crash(chance)
    }

    /// The process ends, the machine goes on: what was written is written.
    pub fn kill(&self) {
        let mut platter = self.lock();
        platter.life += 1;
        platter.files.close();
    }

    /// Makes the disk ail.
    pub fn ail(&self, ailment: Ailment) {
        self.lock().ailment = ailment;
    }

    /// Returns the disk for the process that starts now, which spawns with `tasks`.
    pub fn handle(&self, tasks: OwnedTasks) -> Handle {
        Handle { disk: self.clone(), life: self.lock().life, tasks }
    }
}

/// A disk as one life of its machine has it.
#[derive(Clone)]
pub struct Handle {
    disk: SimDisk,
    life: u64,
    tasks: OwnedTasks,
}

/// How long a write and its sync take, in microseconds, when nothing ails.
const SYNC_US: (u64, u64) = (100, 3000);

impl Handle {
    /// Does something to the disk, if it is still this life's.
    fn with<T>(&self, work: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.disk.lock();
        if platter.life != self.life {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "this machine is gone"));
        }
        work(&mut platter)
    }

    fn sync<T>(&self, work: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        self.with(|platter| {
            if platter.ailment.fails {
                return Err(io::Error::other("Input/output error"));
            }
            work(platter)
        })
    }

    fn sync_time(&self) -> Duration {
        let mut platter = self.disk.lock();
        let us = platter.chance.between(SYNC_US.0, SYNC_US.1);
        Duration::from_micros(us + platter.ailment.slow_ms * 1000)
    }

    fn stored(&self, dir: &Path) -> Result<Arc<Mutex<Stored>>, DiskError> {
        Ok(self.with(|platter| platter.files.database(dir))?)
    }
}

/// The writer of a log, which is a task like any other.
struct WriterTask;

impl Writer for WriterTask {}

impl Disk for Handle {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkLost>> {
        // At once, and after a moment: others get their turn while the disk works.
        let wait = Duration::from_micros(self.disk.lock().chance.between(0, SYNC_US.0));
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            work();
            Ok(())
        })
    }

    fn start_writer(&self, work: LogWork) -> io::Result<Box<dyn Writer>> {
        let handle = self.clone();
        let run = async move { work.run(|| tokio::time::sleep(handle.sync_time())).await };
        self.tasks.spawn("log writer", OnExit::Ignore, |_| run);
        Ok(Box::new(WriterTask))
    }

    fn open(&self, dir: &Path, kind: DatabaseKind) -> Result<Arc<dyn Database>, DiskError> {
        let stored = self.with(|platter| platter.files.open_database(dir, kind))?;
        Ok(Arc::new(OpenDatabase { handle: self.clone(), dir: dir.to_owned(), kind, stored }))
    }

    fn peek(&self, dir: &Path, _kind: DatabaseKind) -> Result<Arc<dyn Reader>, DiskError> {
        let stored = self.stored(dir)?;
        let content = stored.lock().unwrap_or_else(PoisonError::into_inner).content();
        Ok(Arc::new(content) as Arc<dyn Reader>)
    }

    fn exists(&self, path: &Path) -> bool {
        self.with(|platter| Ok(platter.files.node(path).is_some())).unwrap_or(false)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.with(|platter| platter.files.list(dir))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.with(|platter| platter.files.create_dir_all(dir))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|platter| platter.files.put(dir, Node::dir()))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|platter| platter.files.remove(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|platter| platter.files.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|platter| platter.files.link(from, to))
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|platter| {
            let content = platter.files.read(from)?;
            platter.files.put(to, Node::file(content))
        })
    }

    fn read(&self, path: &Path, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let content = self.with(|platter| platter.files.read(path))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        Ok(content[start..content.len().min(start.saturating_add(max))].to_vec())
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        self.with(|platter| platter.files.put(path, Node::file(Vec::new())))
    }

    fn append(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.with(|platter| platter.files.append(path, content))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.sync(|platter| platter.files.replace(path, content))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync(|platter| platter.files.sync_dir(dir))
    }

    fn sync_files(&self, dir: &Path) -> io::Result<()> {
        self.sync(|platter| platter.files.sync_files(dir))
    }
}

impl OpenDatabase<Handle> {
    fn write_through(&self, changes: Vec<Change>, durability: Durability) -> Result<(), DiskError> {
        let write = |platter: &mut Platter| {
            (platter.witness)(self.kind, &changes);
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            stored.write(changes);
            if durability == Durability::Synced {
                stored.sync();
                platter.files.sync_way_to(&self.dir);
            }
            Ok(())
        };
        match durability {
            Durability::Synced => self.handle.sync(write)?,
            Durability::Buffered => self.handle.with(write)?,
        }
        Ok(())
    }

    fn content(&self) -> Result<Content, DiskError> {
        let content = || Ok(self.stored.lock().unwrap_or_else(PoisonError::into_inner).content());
        Ok(self.handle.with(|_| content())?)
    }
}

impl Reader for OpenDatabase<Handle> {
    fn get(&self, family: raft::disk::Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.content()?.get(family, key)
    }

    fn scan(
        &self,
        family: raft::disk::Family,
        start: &[u8],
        end: Option<&[u8]>,
        direction: raft::Direction,
    ) -> raft::disk::DiskScan<'_> {
        match self.content() {
            Ok(content) => content.into_scan(family, start, end, direction),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

impl Database for OpenDatabase<Handle> {
    fn write(&self, changes: Vec<Change>, durability: Durability) -> Result<(), DiskError> {
        self.write_through(changes, durability)
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.handle.sync(|platter| {
            self.stored.lock().unwrap_or_else(PoisonError::into_inner).sync();
            platter.files.sync_way_to(&self.dir);
            Ok(())
        })?;
        Ok(())
    }

    fn pin(self: Arc<Self>) -> Arc<dyn Reader> {
        let content = self.stored.lock().unwrap_or_else(PoisonError::into_inner).content();
        Arc::new(content)
    }

    fn checkpoint(&self, to: &Path) -> Result<(), DiskError> {
        let image = self.content()?.to_image();
        self.handle.with(|platter| {
            platter.files.put(to, Node::dir())?;
            platter.files.put(&to.join(IMAGE), Node::file(image))
        })?;
        Ok(())
    }
}

/// The file that a checkpoint consists of, and that a database is opened from.
const IMAGE: &str = "000001.sst";

/// Returns the directory above `path` and the name in it.
fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("not a path: {}", path.display()));
    let name = path.file_name().ok_or_else(invalid)?.to_string_lossy().into_owned();
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), name))
}
