//! The disk of this machine: RocksDB and the file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use futures::future::BoxFuture;

use super::rocks::RocksDatabase;
use super::{Database, DatabaseKind, DirEntry, Disk, DiskError, LogWork, Reader, WorkLost, Writer};

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

/// A thread that writes a log. It has ended when the drop returns: one that closed its database while the process exits
/// would do so amid what RocksDB has torn down already.
struct WriterThread(Option<JoinHandle<()>>);

impl Writer for WriterThread {}

impl Drop for WriterThread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic there has been reported by its own message.
            let _ = thread.join();
        }
    }
}

impl Disk for LocalDisk {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), WorkLost>> {
        let running = tokio::task::spawn_blocking(work);
        Box::pin(async {
            running.await.map_err(|error| match error.is_panic() {
                true => WorkLost::Panicked,
                false => WorkLost::Ending,
            })
        })
    }

    fn start_writer(&self, work: LogWork) -> io::Result<Box<dyn Writer>> {
        let thread = Builder::new().name("raft-log".into()).spawn(move || work.run_blocking())?;
        Ok(Box::new(WriterThread(Some(thread))))
    }

    fn open(&self, dir: &Path, kind: DatabaseKind) -> Result<Arc<dyn Database>, DiskError> {
        Ok(Arc::new(RocksDatabase::open(dir, kind)?))
    }

    fn peek(&self, dir: &Path, kind: DatabaseKind) -> Result<Arc<dyn Reader>, DiskError> {
        Ok(Arc::new(RocksDatabase::peek(dir, kind)?))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(DirEntry { name, is_dir: metadata.is_dir(), bytes: metadata.len() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::copy(from, to).map(drop)
    }

    fn read(&self, path: &Path, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut content = Vec::new();
        file.take(max as u64).read_to_end(&mut content)?;
        Ok(content)
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        File::create_new(path).map(drop)
    }

    fn append(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).open(path)?.write_all(content)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn sync_files(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            File::open(entry?.path())?.sync_all()?;
        }
        self.sync_dir(dir)
    }
}
