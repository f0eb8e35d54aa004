//! Consensus: a replicated log of bytes, and the state it leads to, on RocksDB.

mod application;
mod codec;
mod connector;
mod disk;
mod engine_config;
mod error;
mod fatal;
mod log_cache;
mod log_db;
mod log_store;
mod log_writer;
mod membership;
mod network;
mod node;
mod options;
mod peers;
mod propose;
mod service;
mod snapshot;
mod snapshot_transfer;
mod state_batch;
mod state_db;
mod state_machine;
mod state_store;
mod state_view;
mod status;
mod type_config;

pub use application::Application;
pub use connector::{ConnectError, PeerConnector, Purpose};
pub use error::{MemberError, ProposeError, ReadError, StartError};
pub use node::Node;
pub use options::{OnFatal, Options, SnapshotPolicy, Timing};
pub use propose::Proposed;
pub use service::{ForwardService, RaftService, peer_services};
pub use state_batch::StateBatch;
pub use state_view::{Direction, Pair, Scan, StateView};
pub use status::{Leadership, MemberStatus, Role, Status};

/// The longest entry that is accepted. Larger things are split by the owner; this only keeps a bug from
/// stalling replication.
pub const MAX_ENTRY_BYTES: usize = 2 << 20;

#[cfg(test)]
mod conformance_tests;
