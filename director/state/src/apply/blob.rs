//! Blobs: which replicas hold which.

use model::*;

use super::tx::Tx;
use crate::command::{Outcome, Refusal};
use crate::records::BlobRecord;
use crate::tables::BLOBS;

/// `BlobHeld`. The size is the first one told: the digest leaves no other.
pub(super) fn held(
    tx: &mut Tx<'_>,
    digest: &BlobDigest,
    size_bytes: u64,
    nodes: &[NodeId],
) -> Result<Outcome, Refusal> {
    let new =
        || BlobRecord { digest: digest.clone(), size_bytes, nodes: Default::default(), created_at: tx.at };
    let mut blob = tx.get(&BLOBS, digest).unwrap_or_else(new);
    blob.nodes.extend(nodes);
    tx.put(&BLOBS, digest, &blob);
    Ok(Outcome::Done)
}

/// `BlobLost`. A blob that nobody holds any more stays known, so that its loss can be seen.
pub(super) fn lost(tx: &mut Tx<'_>, digest: &BlobDigest, node: NodeId) -> Result<Outcome, Refusal> {
    let mut blob = tx.need(&BLOBS, digest, "blob")?;
    blob.nodes.remove(&node);
    tx.put(&BLOBS, digest, &blob);
    Ok(Outcome::Done)
}

/// `BlobForget`. Forgetting twice is fine.
pub(super) fn forget(tx: &mut Tx<'_>, digest: &BlobDigest) -> Result<Outcome, Refusal> {
    tx.delete(&BLOBS, digest);
    Ok(Outcome::Done)
}
