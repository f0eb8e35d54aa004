//! The seam to the transport: how to reach a peer.

use tonic::transport::Channel;

/// What a channel to a peer is for. Each purpose has a connection of its own, so that a long snapshot or a full
/// replication pipeline never delays a heartbeat: that would look like a dead leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// The replication pipeline.
    Append,
    /// Heartbeats, votes and transfers of leadership.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Proposals and read barriers carried to the leader on behalf of clients.
    Forward,
}

/// Why a peer's channel cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare a connection to replica {node_id} at `{address}`")]
pub struct ConnectError {
    /// The peer.
    pub node_id: u64,
    /// Where it was looked for.
    pub address: String,
    /// What was wrong.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Makes channels to peers. The server supplies one with mutual TLS.
///
/// Implementers promise to return at once with a *lazy* channel (`Endpoint::connect_lazy`, with a connect timeout),
/// to make sure that whoever answers really is replica `node_id`, and not to share one channel between purposes.
pub trait PeerConnector: Send + Sync + 'static {
    /// Returns a lazily connected channel to `node_id`.
    fn channel(&self, node_id: u64, address: &str, purpose: Purpose) -> Result<Channel, ConnectError>;
}
