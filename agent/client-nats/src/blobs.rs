//! How agents come to blobs: not over the bus, whose messages are short.

use model::{AgentId, BlobDigest};

/// The directors' blobs, as agents on the bus come to them.
pub trait AgentBlobs: Send + Sync + 'static {
    /// Returns a URL under which this agent gets a blob for some time from now, and nobody gets another one. `None` for an agent that
    /// asks the blobstore of its settings instead.
    fn url_to_get(&self, agent: &AgentId, blob: &BlobDigest) -> Option<String>;
}
