//! What a replica knows about itself and its cluster.

use openraft::{Instant as _, ServerState, TokioInstant};
use tokio::time::Instant;

use crate::node::Metrics;

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

impl Status {
    /// Returns whether nothing changed but the times at which members were heard.
    pub(crate) fn equals_but_for_heartbeats(&self, other: &Self) -> bool {
        let silent = |status: &Self| {
            let mut status = status.clone();
            status.members.iter_mut().for_each(|member| member.last_heard = None);
            status
        };
        silent(self) == silent(other)
    }
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

/// Returns `at` without openraft's wrapping; a moment too early rather than too late.
pub(crate) fn moment(at: TokioInstant) -> Instant {
    // The order matters: the age is measured after the present.
    let now = Instant::now();
    now - TokioInstant::now().saturating_duration_since(at)
}

/// Returns what `metrics` say, in our words.
pub(crate) fn status_of(metrics: &Metrics) -> Status {
    let membership = metrics.membership_config.membership();
    let matched = |id: &u64| match &metrics.replication {
        Some(all) => all.get(id).copied().flatten().map(|matched| matched.index),
        None => None,
    };
    let last_heard = |id: &u64| match &metrics.heartbeat {
        Some(all) => all.get(id).copied().flatten().map(|heard| moment(heard.into_inner())),
        None => None,
    };
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    Status {
        node_id: metrics.id,
        role: match (&metrics.running_state, metrics.state) {
            (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
            (_, ServerState::Learner) => Role::Learner,
            (_, ServerState::Follower) => Role::Follower,
            (_, ServerState::Candidate) => Role::Candidate,
            (_, ServerState::Leader) => Role::Leader,
        },
        term: metrics.current_term,
        leader: metrics.current_leader,
        last_log_index: metrics.last_log_index,
        committed: metrics.local_committed.map(|id| id.index),
        applied: metrics.last_applied.map(|id| id.index),
        snapshot_index: metrics.snapshot.map(|id| id.index),
        purged: metrics.purged.map(|id| id.index),
        members: membership
            .nodes()
            .map(|(id, node)| MemberStatus {
                id: *id,
                address: node.addr.clone(),
                voter: voters.contains(id),
                matched: matched(id),
                last_heard: last_heard(id),
            })
            .collect(),
    }
}
