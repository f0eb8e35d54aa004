//! The handle to one replica.

use std::sync::Arc;
use std::time::Duration;

use owned_tasks::OwnedTasks;
use tokio::sync::watch;

use crate::{
    Application, Leadership, MemberError, Options, PeerConnector, ProposeError, ReadError, StartError,
    StateView, Status,
};

/// An entry that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its position in the log.
    pub index: u64,
    /// What the application answered.
    pub answer: Vec<u8>,
}

/// The handle to one replica; cheap to clone.
#[derive(Clone)]
pub struct Node {}

impl Node {
    /// Opens the data and starts the replica. A fresh one waits to be bootstrapped or added to a cluster.
    pub async fn start(
        _options: Options,
        _application: Arc<dyn Application>,
        _connector: Arc<dyn PeerConnector>,
        _tasks: &OwnedTasks,
    ) -> Result<Self, StartError> {
        todo!()
    }
    /// Makes this replica the first and only voter of a new cluster.
    pub async fn bootstrap(&self, _own_address: &str) -> Result<(), MemberError> {
        todo!()
    }
    /// Returns whether this replica belongs to a cluster.
    pub fn is_initialized(&self) -> bool {
        todo!()
    }
    /// Has an entry committed and applied, through whichever replica leads.
    pub async fn propose(&self, _entry: Vec<u8>, _timeout: Duration) -> Result<Proposed, ProposeError> {
        todo!()
    }
    /// Waits until the local state contains everything that was confirmed to anybody before the call; returns its index.
    pub async fn read_barrier(&self, _timeout: Duration) -> Result<u64, ReadError> {
        todo!()
    }
    /// Returns a consistent view of the local state, as it is now.
    pub fn view(&self) -> StateView {
        todo!()
    }
    /// Returns what this replica knows.
    pub fn status(&self) -> Status {
        todo!()
    }
    /// Returns a receiver that follows [`Node::status`].
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        todo!()
    }
    /// Returns whether this replica leads and until when that provably holds.
    pub fn leadership(&self) -> Option<Leadership> {
        todo!()
    }
    /// Returns what a new leader waits out, counted from [`Leadership::since`], before it touches the world.
    pub fn lease_duration(&self) -> Duration {
        todo!()
    }
    /// Adds a replica: as a learner, then, once it has caught up, as a voter. Leader only; idempotent.
    pub async fn add_member(&self, _id: u64, _address: &str, _timeout: Duration) -> Result<(), MemberError> {
        todo!()
    }
    /// Removes a replica. Leader only; idempotent.
    pub async fn remove_member(&self, _id: u64, _timeout: Duration) -> Result<(), MemberError> {
        todo!()
    }
    /// Hands leadership to `to`, or to the voter that is furthest. Leader only.
    pub async fn transfer_leader(&self, _to: Option<u64>, _timeout: Duration) -> Result<u64, MemberError> {
        todo!()
    }
    /// Takes a snapshot now and waits for it; returns the index of its last entry.
    pub async fn snapshot(&self, _timeout: Duration) -> Result<u64, MemberError> {
        todo!()
    }
    /// Hands leadership over if this replica leads, then stops. Bounded.
    pub async fn shutdown(&self) {
        todo!()
    }
}
