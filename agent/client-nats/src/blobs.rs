//! How agents come to blobs, and blobs to us: not over the bus, whose messages are short.

use async_trait::async_trait;
use model::{AgentId, BlobDigest};

/// The directors' blobs, as agents on the bus come to them. An agent knows no addresses of blobs: what it brings has a name that it
/// was told, or one of its own.
#[async_trait]
pub trait AgentBlobs: Send + Sync + 'static {
    /// Returns a URL under which this agent gets a blob for some time from now, and nobody gets another one. `None` for an agent that
    /// asks the blobstore of its settings instead.
    fn url_to_get(&self, agent: &AgentId, blob: &BlobDigest) -> Option<String>;

    /// Returns a URL under which this agent may bring a blob for some time from now. Under the same name once more, it takes the place
    /// of the other one. `None` for an agent that brings it to the blobstore of its settings, under a name of its own.
    fn url_to_put(&self, agent: &AgentId, name: &str) -> Option<String>;

    /// Returns the blob that this agent has brought under a name, if it has the digest that the agent tells.
    async fn brought(&self, agent: &AgentId, name: &str, digest: &str) -> Result<Brought, NotBrought>;
}

/// A blob that an agent has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// Its address.
    pub blob: BlobDigest,
    /// Its size.
    pub size_bytes: u64,
}

/// Why a blob of an agent's can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBrought {
    /// Nobody has got it.
    #[error("the agent says that it has uploaded the result, but nobody holds it")]
    Nowhere,
    /// It is another content.
    #[error("the agent says that the result has digest {told}, but what it has uploaded has {actual}")]
    Different {
        /// What the agent says.
        told: String,
        /// What came.
        actual: String,
    },
    /// It can't be told now.
    #[error("nobody can tell now what the agent has uploaded: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}
