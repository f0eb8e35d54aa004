//! What can go wrong, one enum per operation.

use std::path::PathBuf;
use std::time::Duration;

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("cannot prepare the data directory `{path}`")]
    DataDir {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A database cannot be opened or read; it may be damaged.
    #[error(
        "cannot open the {database} database at `{path}`: it is damaged, in use by another process, or unreadable"
    )]
    Database {
        /// `log` or `state`.
        database: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data directory belongs to another replica.
    #[error("the data in `{path}` belongs to replica {found}, not to replica {expected}")]
    OtherNode {
        /// The data directory.
        path: PathBuf,
        /// The configured id.
        expected: u64,
        /// The id in the data.
        found: u64,
    },
    /// The options contradict each other.
    #[error("the consensus options contradict each other")]
    Options(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The consensus engine did not start.
    #[error("the consensus engine did not start")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a cluster of one was not made.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// A database cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The data directory cannot be written.
    #[error("cannot fill the data directory `{path}`")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A database failed.
    #[error("cannot read or write the data")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The rows ended in an error.
    #[error("cannot read the state that the cluster is to begin with")]
    Rows(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no entry to go on from.
    #[error("there is nothing to go on from: not even one entry")]
    Nothing,
    /// The membership contradicts itself.
    #[error("the new membership contradicts itself: {0}")]
    Members(String),
}

/// Why a proposal was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Surely not committed: no leader took it before the deadline.
    #[error("no leader took the entry within {0:?}; it was not committed")]
    NoLeader(Duration),
    /// It may have been committed or may yet be. Proposing the same bytes again is safe, because the application
    /// recognizes them by their request id.
    #[error("the entry was not confirmed within {0:?}; it may have been committed")]
    Unknown(Duration),
    /// The leader's disk is full, and no other replica leads: surely not committed.
    #[error("the leader has no room on its disk and takes no writes until there is some")]
    NoRoom,
    /// Longer than [`MAX_ENTRY_BYTES`](crate::MAX_ENTRY_BYTES).
    #[error("an entry of {bytes} bytes is longer than the limit of {} bytes", crate::MAX_ENTRY_BYTES)]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// This replica is shutting down or has failed.
    #[error("this replica has stopped")]
    Stopped,
}

/// Why a linearizable read cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed itself, or the state did not catch up, before the deadline.
    #[error("no read index was confirmed and applied within {0:?}")]
    Timeout(Duration),
    /// This replica is shutting down or has failed.
    #[error("this replica has stopped")]
    Stopped,
}

/// Why the cluster's membership or leadership was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Ask the leader.
    #[error("replica {node_id} does not lead; the leader is {leader:?}")]
    NotLeader {
        /// Who was asked.
        node_id: u64,
        /// Who leads, if that is known.
        leader: Option<u64>,
    },
    /// Another change is under way.
    #[error("another change of the membership is under way")]
    Busy,
    /// Bootstrapping twice, or a replica that has data of a cluster.
    #[error("replica {0} already belongs to a cluster")]
    AlreadyInitialized(u64),
    /// No such replica.
    #[error("replica {0} is not a member")]
    UnknownMember(u64),
    /// It cannot lead now: it was not heard for a while, or lacks entries.
    #[error("replica {0} is out of reach or too far behind to lead")]
    NotReady(u64),
    /// The last voter cannot leave.
    #[error("replica {0} is the only voter")]
    LastVoter(u64),
    /// The id is taken by a replica at another address.
    #[error("replica {id} is already a member at `{address}`")]
    AddressInUse {
        /// The replica.
        id: u64,
        /// Its address.
        address: String,
    },
    /// It did not happen in time. It may still be happening; asking again is safe.
    #[error("{operation} of replica {id} did not finish within {within:?}")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// Of whom.
        id: u64,
        /// How long it took.
        within: Duration,
    },
    /// The consensus engine refused.
    #[error("{operation} of replica {id} was refused")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Of whom.
        id: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This replica is shutting down or has failed.
    #[error("this replica has stopped")]
    Stopped,
}
