//! Blobs as files: `<root>/ab/cdef…`, named by the SHA-256 of their content.
//!
//! A blob is written to `<root>/tmp`, synced, and only then renamed into place, so a crash at any moment leaves either
//! no blob or a whole one. Storing a blob that is there replaces it by an equal one: that heals a damaged copy.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use model::BlobDigest;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

use super::{BlobError, BlobReader, BlobStat, Blobstore};

/// Bytes moved at once. Large enough that system calls don't count, small enough for many uploads at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How many bytes are written between two looks at the room that is left.
const LOOK_EVERY_BYTES: u64 = 8 << 20;

/// A store in one folder of the local file system.
#[derive(Clone, Debug)]
pub struct LocalBlobs {
    root: PathBuf,
    keep_free: u64,
}

impl LocalBlobs {
    /// Opens the store in `root`, making the folder if need be. What an earlier crash left half written is removed, so
    /// only one process may have a store open.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let root = root.into();
        let failed = |operation, path: &Path| {
            let subject = path.display().to_string();
            move |source| BlobError::Store { operation, subject, source }
        };
        let tmp = root.join("tmp");
        std::fs::create_dir_all(&tmp).map_err(failed("make the folder of", &tmp))?;
        for entry in std::fs::read_dir(&tmp).map_err(failed("list unfinished", &tmp))? {
            let path = entry.map_err(failed("list unfinished", &tmp))?.path();
            std::fs::remove_file(&path).map_err(failed("remove unfinished", &path))?;
        }
        Ok(Self { root, keep_free: 0 })
    }

    /// Returns the store with so many bytes of its disk reserved for others: it takes nothing in that would leave less.
    pub fn keeping_free(self, keep_free: u64) -> Self {
        Self { keep_free, ..self }
    }

    /// Returns how many bytes of its disk are reserved for others.
    pub fn kept_free(&self) -> u64 {
        self.keep_free
    }

    /// Fails if the disk has less room than is to stay free.
    async fn check_room(&self) -> Result<(), BlobError> {
        if self.keep_free == 0 {
            return Ok(());
        }
        let root = self.root.clone();
        let look = tokio::task::spawn_blocking(move || nix::sys::statvfs::statvfs(&root)).await;
        match look {
            // What only root may use counts as used.
            Ok(Ok(disk)) if disk.blocks_available() * disk.fragment_size() < self.keep_free => {
                Err(BlobError::NoRoom { keep_free: self.keep_free })
            }
            // Who can't be asked is not full; if it is, writing says so.
            _ => Ok(()),
        }
    }

    /// Tells a full disk from other failures.
    fn write_failed(
        &self,
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> BlobError + use<> {
        let (keep_free, subject) = (self.keep_free, path.display().to_string());
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                BlobError::NoRoom { keep_free }
            }
            _ => BlobError::Store { operation, subject, source },
        }
    }

    /// Returns every blob that is there, in no particular order. Meant for healing and garbage collection.
    pub async fn list(&self) -> Result<Vec<BlobStat>, BlobError> {
        let root = self.root.clone();
        let listed = tokio::task::spawn_blocking(move || list_blobs(&root)).await;
        listed.map_err(io::Error::other).and_then(|found| found).map_err(|source| BlobError::Store {
            operation: "list",
            subject: self.root.display().to_string(),
            source,
        })
    }

    /// Returns the blobs that were last stored so long ago, in no particular order.
    pub async fn older_than(&self, age: Duration) -> Result<Vec<BlobDigest>, BlobError> {
        let mut old = Vec::new();
        for BlobStat { digest, .. } in self.list().await? {
            if self.is_older_than(&digest, age).await? {
                old.push(digest);
            }
        }
        Ok(old)
    }

    /// Returns whether a blob was last stored so long ago. One that is gone is not old, nor is one from the future.
    pub async fn is_older_than(&self, digest: &BlobDigest, age: Duration) -> Result<bool, BlobError> {
        let stored_at = tokio::fs::metadata(self.path(digest)?).await.and_then(|file| file.modified());
        Ok(stored_at.is_ok_and(|at| at.elapsed().is_ok_and(|since| since >= age)))
    }

    /// Returns where a blob's file is or would be.
    pub fn path(&self, digest: &BlobDigest) -> Result<PathBuf, BlobError> {
        let text = digest.as_str();
        let is_address = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_address {
            return Err(BlobError::InvalidDigest { text: text.chars().take(200).collect() });
        }
        Ok(self.root.join(&text[..2]).join(&text[2..]))
    }

    /// Renames a synced file into place and syncs the folder, so that the name survives a crash too.
    async fn commit(&self, unfinished: &Path, digest: &BlobDigest) -> Result<(), BlobError> {
        let target = self.path(digest)?;
        let (unfinished, root) = (unfinished.to_owned(), self.root.clone());
        let work = move || {
            let folder = target.parent().expect("a blob's path has its first two digits as folder");
            if !folder.is_dir() {
                std::fs::create_dir_all(folder)?;
                std::fs::File::open(&root)?.sync_all()?;
            }
            std::fs::rename(&unfinished, &target)?;
            std::fs::File::open(folder)?.sync_all()
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done);
        done.map_err(store_failed("commit", digest))
    }
}

#[async_trait]
impl Blobstore for LocalBlobs {
    async fn put(&self, content: &mut (dyn AsyncRead + Send + Unpin)) -> Result<BlobStat, BlobError> {
        let unfinished = Unfinished(self.root.join("tmp").join(uuid::Uuid::new_v4().to_string()));
        let failed = |operation| self.write_failed(operation, &unfinished.0);
        let mut file = File::create_new(&unfinished.0).await.map_err(failed("create"))?;
        let (mut hasher, mut bytes, mut look_at) = (Sha256::new(), 0u64, 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if bytes >= look_at {
                self.check_room().await?;
                look_at = bytes + LOOK_EVERY_BYTES;
            }
            let n = content.read(&mut chunk).await.map_err(|source| BlobError::ReadContent { source })?;
            if n == 0 {
                break;
            }
            hasher.update(&chunk[..n]);
            bytes += n as u64;
            file.write_all(&chunk[..n]).await.map_err(failed("write"))?;
        }
        file.flush().await.map_err(failed("write"))?;
        file.sync_all().await.map_err(failed("sync"))?;
        let digest = BlobDigest::new(hex::encode(hasher.finalize()));
        self.commit(&unfinished.0, &digest).await?;
        Ok(BlobStat { digest, bytes })
    }

    async fn get(&self, digest: &BlobDigest) -> Result<BlobReader, BlobError> {
        match File::open(self.path(digest)?).await {
            Ok(file) => {
                let path = self.path(digest)?;
                Ok(Box::pin(Checked { file, path, digest: digest.clone(), hasher: Some(Sha256::new()) }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::NotFound { digest: digest.clone() })
            }
            Err(source) => Err(store_failed("open", digest)(source)),
        }
    }

    async fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>, BlobError> {
        match tokio::fs::metadata(self.path(digest)?).await {
            Ok(found) => Ok(Some(BlobStat { digest: digest.clone(), bytes: found.len() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(store_failed("look at", digest)(source)),
        }
    }

    async fn delete(&self, digest: &BlobDigest) -> Result<(), BlobError> {
        match tokio::fs::remove_file(self.path(digest)?).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(store_failed("delete", digest)(e)),
            _ => Ok(()),
        }
    }
}

fn store_failed(operation: &'static str, digest: &BlobDigest) -> impl FnOnce(io::Error) -> BlobError + use<> {
    let subject = digest.to_string();
    move |source| BlobError::Store { operation, subject, source }
}

fn list_blobs(root: &Path) -> io::Result<Vec<BlobStat>> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root)? {
        let folder = folder?;
        let prefix = folder.file_name().to_string_lossy().into_owned();
        if prefix.len() != 2 {
            continue; // `tmp`, or something that is not ours.
        }
        for file in std::fs::read_dir(folder.path())? {
            let file = file?;
            let digest = BlobDigest::new(format!("{prefix}{}", file.file_name().to_string_lossy()));
            match file.metadata() {
                Ok(metadata) => found.push(BlobStat { digest, bytes: metadata.len() }),
                // Deleted meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(found)
}

/// A file that disappears with its writer unless it was renamed: then the path is gone and nothing happens.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Best effort: what stays behind is removed when the store is opened next.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A blob's file that fails at its end if the content is not what the address says. A damaged copy is removed then: it is
/// worth nothing, and what is missing is fetched again.
struct Checked {
    file: File,
    path: PathBuf,
    digest: BlobDigest,
    /// Gone once the end was judged.
    hasher: Option<Sha256>,
}

impl Checked {
    /// Removes the file that was read, unless a sound copy has taken its place.
    fn remove(&self) {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::MetadataExt as _;
        let read = nix::sys::stat::fstat(self.file.as_fd()).map(|read| (read.st_dev, read.st_ino));
        let there = std::fs::metadata(&self.path).map(|there| (there.dev(), there.ino()));
        if read.ok() == there.ok() {
            let removed = std::fs::remove_file(&self.path);
            tracing::error!(blob = %self.digest, removed = removed.is_ok(), "a copy of a blob is damaged");
        }
    }
}

impl AsyncRead for Checked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if let Err(error) = std::task::ready!(Pin::new(&mut self.file).poll_read(cx, buf)) {
            // The disk says itself that it has lost it.
            if error.raw_os_error() == Some(nix::libc::EIO) {
                self.remove();
            }
            return Poll::Ready(Err(error));
        }
        let fresh = &buf.filled()[before..];
        if !fresh.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(fresh);
            }
            return Poll::Ready(Ok(()));
        }
        let Some(hasher) = self.hasher.take() else { return Poll::Ready(Ok(())) };
        let actual = hex::encode(hasher.finalize());
        if actual == self.digest.as_str() {
            return Poll::Ready(Ok(()));
        }
        self.remove();
        let damaged = BlobError::Damaged { digest: self.digest.clone(), actual };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, damaged)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(store: &LocalBlobs, content: &[u8]) -> BlobStat {
        let mut content = content;
        store.put(&mut content).await.unwrap()
    }

    fn files(root: &Path) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(root).unwrap().map(|f| f.unwrap().path());
        folders.flat_map(|f| std::fs::read_dir(f).unwrap().map(|f| f.unwrap().path())).collect()
    }

    #[tokio::test]
    async fn a_damaged_blob_is_never_delivered_and_storing_it_again_heals_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalBlobs::open(dir.path()).unwrap();
        let stat = put(&store, b"precious").await;
        std::fs::write(store.path(&stat.digest).unwrap(), b"precariou").unwrap();
        let mut text = Vec::new();
        let error = store.get(&stat.digest).await.unwrap().read_to_end(&mut text).await.unwrap_err();
        assert!(
            matches!(error.get_ref().unwrap().downcast_ref(), Some(BlobError::Damaged { .. })),
            "{error}"
        );
        // Gone, so that whoever has a sound copy is asked for it.
        assert!(matches!(store.get(&stat.digest).await, Err(BlobError::NotFound { .. })));
        assert_eq!(put(&store, b"precious").await, stat);
        text.clear();
        store.get(&stat.digest).await.unwrap().read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"precious");
    }

    #[tokio::test]
    async fn a_sound_copy_is_not_removed_for_the_damaged_one_that_it_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalBlobs::open(dir.path()).unwrap();
        let stat = put(&store, b"precious").await;
        std::fs::write(store.path(&stat.digest).unwrap(), b"precariou").unwrap();
        let mut reader = store.get(&stat.digest).await.unwrap();
        put(&store, b"precious").await;
        assert!(reader.read_to_end(&mut Vec::new()).await.is_err());
        assert!(store.has(&stat.digest).await.unwrap());
    }

    #[tokio::test]
    async fn what_a_crash_left_half_written_is_removed_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let stat = put(&LocalBlobs::open(dir.path()).unwrap(), b"whole").await;
        std::fs::write(dir.path().join("tmp/half"), b"hal").unwrap();
        let store = LocalBlobs::open(dir.path()).unwrap();
        assert_eq!(files(dir.path()), [store.path(&stat.digest).unwrap()]);
        assert_eq!(store.list().await.unwrap(), [stat]);
    }

    #[tokio::test]
    async fn what_is_to_stay_free_is_not_filled_with_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalBlobs::open(dir.path()).unwrap();
        let here = put(&store, b"here already").await;
        let full = store.keeping_free(u64::MAX);
        let refused = full.put(&mut &b"another"[..]).await.unwrap_err();
        assert!(matches!(refused, BlobError::NoRoom { keep_free: u64::MAX }), "{refused}");
        assert_eq!(full.list().await.unwrap(), std::slice::from_ref(&here), "nothing was stored");
        assert!(full.has(&here.digest).await.unwrap(), "and nothing was lost");
        put(&LocalBlobs::open(dir.path()).unwrap().keeping_free(1), b"another").await;
    }

    #[tokio::test]
    async fn a_cancelled_put_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalBlobs::open(dir.path()).unwrap();
        let (mut writer, mut reader) = tokio::io::duplex(16);
        let mut putting = Box::pin(store.put(&mut reader));
        // The put has taken in these bytes once the second write finds room for all of its own.
        tokio::select! {
            _ = &mut putting => panic!("the content has no end yet"),
            written = async { writer.write_all(&[7; 64]).await } => written.unwrap(),
        }
        assert_eq!(files(dir.path()).len(), 1, "it is being written");
        drop(putting);
        assert!(files(dir.path()).is_empty());
    }
}
