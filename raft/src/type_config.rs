//! The types that openraft is generic over, chosen once.

use std::fmt;

use bytes::Bytes;

openraft::declare_raft_types!(
    /// Entries and answers are bytes. Leader ids are the standard ones: at most one leader in a term, so that the
    /// term alone can serve as an epoch (openraft's default allows two leaders of one term).
    pub TypeConfig:
        D = EntryBytes,
        R = Answer,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The owner's part of a log entry. Cheap to clone: the log, its cache, the replication streams and the state
/// machine share one buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBytes(pub Bytes);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Only the length: entries may carry secrets, and openraft logs what it displays.
impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The state machine's answer to one entry; empty for entries that are not the owner's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(pub Vec<u8>);
