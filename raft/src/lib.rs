//! Consensus: a replicated log of bytes, and the state it leads to, on RocksDB.

mod application;
mod codec;
mod connector;
mod error;
mod fatal;
mod node;
mod options;
mod service;
mod state_batch;
mod state_db;
mod state_view;
mod status;
mod type_config;

pub use application::Application;
pub use connector::{ConnectError, PeerConnector, Purpose};
pub use error::{MemberError, ProposeError, ReadError, StartError};
pub use node::{Node, Proposed};
pub use options::{OnFatal, Options, SnapshotPolicy, Timing};
pub use service::{ForwardService, RaftService, peer_services};
pub use state_batch::StateBatch;
pub use state_view::{Direction, Pair, Scan, StateView};
pub use status::{Leadership, MemberStatus, Role, Status};

/// The longest entry that is accepted. Larger things are split by the owner; this only keeps a bug from
/// stalling replication.
pub const MAX_ENTRY_BYTES: usize = 2 << 20;
