//! Where bytes live: the [`Blobstore`] trait, its embedded implementation and its conformance suite.
//!
//! A blob's address is the SHA-256 of its content, so a blob never changes, storing it twice is storing it once, and
//! any copy can be checked. Not here: who refers to a blob (the state) and how replicas get their copies (the server).

pub mod conformance;
mod local;
mod sink;

use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use model::BlobDigest;
use tokio::io::AsyncRead;

pub use local::LocalBlobs;
pub use sink::{BlobSink, MemorySink, StoreSink};

/// A blob's content as it streams.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// A blob that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Its address.
    pub digest: BlobDigest,
    /// Its length.
    pub bytes: u64,
}

/// A store of content-addressed blobs.
///
/// Implementers promise: `put` is idempotent and atomic (a blob is there entirely or not at all, also after a crash and
/// when the call is cancelled), what `put` has acknowledged survives a crash, and a reader of `get` fails at the end
/// rather than deliver another content than its address says.
#[async_trait]
pub trait Blobstore: Send + Sync {
    /// Stores everything that `content` yields and returns its address and size. If reading fails, nothing is stored.
    async fn put(&self, content: &mut (dyn AsyncRead + Send + Unpin)) -> Result<BlobStat, BlobError>;

    /// Opens a blob. [`BlobError::NotFound`] if it is not there.
    async fn get(&self, digest: &BlobDigest) -> Result<BlobReader, BlobError>;

    /// Returns the blob's size, or none if it is not there. Does not read the content.
    async fn stat(&self, digest: &BlobDigest) -> Result<Option<BlobStat>, BlobError>;

    /// Deletes a blob; one that is not there counts as deleted. Open readers may finish or fail.
    async fn delete(&self, digest: &BlobDigest) -> Result<(), BlobError>;

    /// Returns whether the blob is there.
    async fn has(&self, digest: &BlobDigest) -> Result<bool, BlobError> {
        Ok(self.stat(digest).await?.is_some())
    }
}

/// Why a blob operation failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob.
    #[error("blob {digest} is not in the store")]
    NotFound {
        /// Its address.
        digest: BlobDigest,
    },
    /// The text is not 64 lower-case hex digits; it must not become a path or an object key.
    #[error("`{text}` is not a blob's address")]
    InvalidDigest {
        /// What was given.
        text: String,
    },
    /// The stored bytes are not those that the address says.
    #[error("blob {digest} is damaged: its content has SHA-256 {actual}")]
    Damaged {
        /// Its address.
        digest: BlobDigest,
        /// What its content has.
        actual: String,
    },
    /// The content to store could not be read to its end.
    #[error("failed to read the content to store")]
    ReadContent {
        /// What the content's reader said.
        #[source]
        source: io::Error,
    },
    /// There is no room for it: so much must stay free on the store's disk for those who can't do without.
    #[error("there is no room for another blob: {keep_free} bytes of the disk are to stay free")]
    NoRoom {
        /// What is kept free.
        keep_free: u64,
    },
    /// The store itself failed.
    #[error("failed to {operation} blob {subject}")]
    Store {
        /// What was being done.
        operation: &'static str,
        /// To which blob or file.
        subject: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
