//! Connections to peers: what for, and why not.

/// What a connection to a peer is for. Each purpose has a connection of its own, so that a long snapshot or a full
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

/// Why a connection to a peer cannot be made.
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
