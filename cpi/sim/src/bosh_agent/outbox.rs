//! Blobs that a machine has made, until it is known where they go.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use dagent::{ActionError, Blobs, Stored};
use model::BlobDigest;
use sha2::{Digest as _, Sha256};

/// See the module's header.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<BTreeMap<String, Vec<u8>>>);

impl Outbox {
    /// Takes a blob out.
    pub fn take(&self, digest: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest)
    }
}

#[async_trait]
impl Blobs for Outbox {
    async fn fetch(&self, digest: &BlobDigest, _to: &Path) -> Result<(), ActionError> {
        Err(ActionError::failed(format!("blob {digest} is nowhere that a simulated machine looks")))
    }

    async fn store(&self, from: &Path) -> Result<Stored, ActionError> {
        let read = tokio::fs::read(from).await;
        let content = read.map_err(|error| ActionError::failed(format!("read a blob: {error}")))?;
        let (digest, size_bytes) = (hex::encode(Sha256::digest(&content)), content.len() as u64);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), content);
        Ok(Stored { digest: digest.into(), size_bytes })
    }
}
