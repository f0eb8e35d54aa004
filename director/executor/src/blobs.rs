//! Reading and spooling blobs, bounded.

use std::io;

use model::BlobDigest;
use release::{BlobError, Blobstore};
use tokio::io::AsyncReadExt as _;

/// The largest blob that is read whole: job archives, which hold templates only.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// Why a blob could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Reading broke off.
    #[error("failed to read blob {digest}")]
    Read {
        /// Which.
        digest: BlobDigest,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is larger than what may be read whole.
    #[error("blob {digest} is larger than {} MiB", WHOLE_BYTES_MAX >> 20)]
    TooLarge {
        /// Which.
        digest: BlobDigest,
    },
}

/// Reads a small blob into memory.
pub async fn read_whole(store: &dyn Blobstore, digest: &BlobDigest) -> Result<Vec<u8>, ReadError> {
    let reader = store.get(digest).await?;
    let mut content = Vec::new();
    let read = |source| ReadError::Read { digest: digest.clone(), source };
    reader.take(WHOLE_BYTES_MAX + 1).read_to_end(&mut content).await.map_err(read)?;
    if content.len() as u64 > WHOLE_BYTES_MAX {
        return Err(ReadError::TooLarge { digest: digest.clone() });
    }
    Ok(content)
}

/// Copies a blob into a file that is gone when the handle is, for readers that need a path.
pub async fn spool(store: &dyn Blobstore, digest: &BlobDigest) -> Result<tempfile::NamedTempFile, ReadError> {
    let read = |source| ReadError::Read { digest: digest.clone(), source };
    let mut reader = store.get(digest).await?;
    let file = tempfile::NamedTempFile::new().map_err(read)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(read)?);
    tokio::io::copy(&mut reader, &mut writer).await.map_err(read)?;
    tokio::io::AsyncWriteExt::flush(&mut writer).await.map_err(read)?;
    Ok(file)
}
