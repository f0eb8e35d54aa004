//! Consensus: one log of bytes on all replicas, and the state that it leads to.
//!
//! A [`Node`] is one replica. Its owner supplies an [`Application`], which turns log entries into writes to an ordered
//! key-value store, and a [`PeerConnector`], which reaches the other replicas; it serves [`peer_services`] on the
//! port where only replicas may call. Then, on any replica: [`Node::propose`] has an entry committed and applied,
//! [`Node::read_barrier`] makes the next [`Node::view`] linearizable, [`Node::leadership`] fences deeds in the world.
//!
//! # What it is not
//!
//! It knows bytes, not deployments. It does not deduplicate proposals (the application does, by a request id),
//! authenticate peers (the connector and the server's TLS do) or encrypt anything. openraft stays inside: no
//! type of it is in the public API, because it is what compiles slowly and what will be upgraded.
//!
//! # What it keeps
//!
//! * **Acknowledged is on the disk** of a majority: entries and votes are fsynced before they are answered for. A failed
//!   fsync, or any failed write or read of a database, ends the process ([`Options::on_fatal`]); it is never retried.
//! * **State and position never disagree**: what a batch of entries wrote, the last applied position and the membership
//!   are one RocksDB write. It is not synced: the log is replayed from the position that survived. So the log is
//!   cut only after the state was synced.
//! * **A snapshot replaces the state as a whole** or not at all; views taken before stay valid.
//! * **One leader per term**, so the term is an epoch; and the leases of two leaders never overlap
//!   ([`Node::leadership`] has the proof).
//! * **Blocking work stays off the async threads**: one thread writes the log, the blocking pool does the rest.
//!
//! # Where to read next
//!
//! `node.rs` puts it together. Downwards: `log_store.rs` (what openraft asks) → `log_writer.rs` (group commit),
//! `log_cache.rs`, `log_db.rs`; `state_machine.rs` → `state_store.rs` (generations, snapshots) → `state_db.rs`, with
//! `hot_rows.rs` before it; `disk/` is the seam to what forgets. To the peers: `network.rs` and `service.rs` are the two ends of one
//! wire, `peer.rs` is the seam between them,
//! `snapshot_transfer.rs` the two ends of another, `codec.rs` says what is on it and on the disk. For callers:
//! `propose.rs` → `leader.rs` (who leads) → `carrier.rs` (the way there), and `membership.rs`. After a disaster:
//! `founding.rs`, and `examine.rs`.

mod acks;
mod application;
mod carrier;
mod codec;
mod connector;
pub mod disk;
mod engine_config;
mod error;
mod examine;
mod fatal;
mod founding;
mod heard;
mod hot_rows;
mod leader;
mod log_cache;
mod log_db;
mod log_store;
mod log_writer;
mod membership;
pub mod metrics;
mod network;
mod node;
mod options;
mod peer;
mod peers;
mod propose;
mod room;
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
pub use codec::{DecodeError, LogRow};
pub use connector::{ConnectError, Purpose};
pub use error::{FoundError, MemberError, ProposeError, ReadError, StartError};
pub use examine::{Damage, examine};
pub use founding::{Founder, Position, Remains, found, remains, take_over};
pub use node::Node;
pub use options::{OnFatal, Options, SnapshotPolicy, Timing};
pub use peer::{Peer, PeerConnector, grpc_peer, local_peer};
pub use propose::Proposed;
pub use room::Room;
pub use service::{ForwardService, RaftService, peer_services};
pub use state_batch::StateBatch;
pub use state_view::{Direction, Pair, Scan, StateView};
pub use status::{Leadership, MemberStatus, Role, Status};

/// The longest entry that is accepted. Larger things are split by the owner; this only keeps a bug from
/// stalling replication.
pub const MAX_ENTRY_BYTES: usize = 2 << 20;

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod codec_tests;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod log_cache_tests;
#[cfg(test)]
mod state_batch_tests;
