//! Where the archive readers send what they find: a synchronous door to a [`Blobstore`], since archives are read on
//! blocking threads.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use model::BlobDigest;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::runtime::Handle;

use super::{BlobError, BlobStat, Blobstore};

/// Bytes in flight between the archive's reader and the store.
const IN_FLIGHT_BYTES: usize = 64 * 1024;

/// Takes blobs in, one after another.
pub trait BlobSink {
    /// Stores everything that `content` yields. If reading fails, nothing is stored and the error is
    /// [`BlobError::ReadContent`].
    fn put(&mut self, content: &mut dyn Read) -> Result<BlobStat, BlobError>;
}

/// Keeps blobs in memory: for tests and for small releases in the CLI.
#[derive(Debug, Default)]
pub struct MemorySink {
    /// What was stored.
    pub blobs: BTreeMap<BlobDigest, Vec<u8>>,
}

impl BlobSink for MemorySink {
    fn put(&mut self, content: &mut dyn Read) -> Result<BlobStat, BlobError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|source| BlobError::ReadContent { source })?;
        let digest = BlobDigest::new(hex::encode(Sha256::digest(&bytes)));
        let stat = BlobStat { digest: digest.clone(), bytes: bytes.len() as u64 };
        self.blobs.insert(digest, bytes);
        Ok(stat)
    }
}

/// Stores into a [`Blobstore`] from a blocking thread (`spawn_blocking`): calling it on an async thread panics.
pub struct StoreSink {
    store: Arc<dyn Blobstore>,
    runtime: Handle,
}

impl StoreSink {
    /// Returns a sink into `store`, which works on `runtime`.
    pub fn new(store: Arc<dyn Blobstore>, runtime: Handle) -> Self {
        Self { store, runtime }
    }
}

impl BlobSink for StoreSink {
    fn put(&mut self, content: &mut dyn Read) -> Result<BlobStat, BlobError> {
        let (mut writer, pipe) = tokio::io::duplex(IN_FLIGHT_BYTES);
        let failure = Arc::new(Mutex::new(None));
        let mut reader = Fed { pipe, failure: failure.clone() };
        let feed = async move {
            let mut chunk = vec![0; IN_FLIGHT_BYTES];
            loop {
                match content.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(n) if writer.write_all(&chunk[..n]).await.is_ok() => {}
                    // The store has given up; its own error is the one to report.
                    Ok(_) => return,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        return;
                    }
                }
            }
        };
        // Both on this thread: the reader of an archive cannot move to another one.
        let put = async {
            let stored = self.store.put(&mut reader).await;
            drop(reader);
            stored
        };
        self.runtime.block_on(async { tokio::join!(put, feed).0 })
    }
}

/// The store's end of the pipe: it fails where the content's reader failed.
struct Fed {
    pipe: DuplexStream,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl AsyncRead for Fed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        Poll::Ready(failure.map_or(Ok(()), Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{MultiDigest, Verifying};
    use crate::{LocalBlobs, digest::DigestMismatch};

    #[tokio::test]
    async fn a_stream_that_fails_is_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalBlobs::open(dir.path()).unwrap();
        let mut sink = StoreSink::new(Arc::new(store.clone()), Handle::current());
        let content = vec![1u8; 200_000];
        let work = move || {
            let wrong = MultiDigest::parse(&"0".repeat(40)).unwrap();
            let refused = sink.put(&mut Verifying::new(&content[..], wrong)).unwrap_err();
            (refused, sink.put(&mut &content[..]).unwrap())
        };
        let (refused, stored) = tokio::task::spawn_blocking(work).await.unwrap();
        let BlobError::ReadContent { source } = refused else { panic!("{refused}") };
        assert!(source.get_ref().unwrap().is::<DigestMismatch>());
        assert_eq!(store.list().await.unwrap(), std::slice::from_ref(&stored));
        assert_eq!(stored.bytes, 200_000);
    }
}
