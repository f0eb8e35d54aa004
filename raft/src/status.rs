//! What a replica knows about itself and its cluster.

use std::time::Instant;

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, does not vote.
    Learner,
    /// Receives the log and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Has stopped.
    Stopped,
}

/// One replica, as seen from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// The replica.
    pub id: u64,
    /// Its peer address.
    pub address: String,
    /// Whether it votes; a learner only receives the log.
    pub voter: bool,
    /// The last log entry it is known to have. Only the leader knows, others say `None`.
    pub matched: Option<u64>,
    /// When the leader last heard from it. Only the leader knows.
    pub last_heard: Option<Instant>,
}

/// What a replica knows about itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This replica.
    pub node_id: u64,
    /// What it is at the moment.
    pub role: Role,
    /// The latest term it has seen.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// The last entry in its log.
    pub last_log_index: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry that its state contains.
    pub applied: Option<u64>,
    /// The last entry in its latest snapshot.
    pub snapshot_index: Option<u64>,
    /// Entries up to this one are no longer in its log.
    pub purged: Option<u64>,
    /// All replicas of the cluster, by id.
    pub members: Vec<MemberStatus>,
}

/// Whether this replica leads, and how long that provably holds. See [`Node::leadership`](crate::Node::leadership).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The term it leads, its *epoch*: at most one replica ever leads a term.
    pub term: u64,
    /// When it noticed that it leads, not before it really did.
    pub since: Instant,
    /// Nobody else touches the world before this moment, provided that every new leader waits
    /// [`Node::lease_duration`](crate::Node::lease_duration) first.
    pub until: Instant,
}

impl Leadership {
    /// Returns whether the lease still holds.
    pub fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}
