//! What a process serves requests with.

use std::sync::{Arc, Mutex, PoisonError};

use agent_api::Agents;
use agent_client_grpc::AgentHub;
use cpi_api::CallPort;
use directord::fleet::log::RaftLog;
use raft::{Node, Peer};
use service::Service;

/// A replica, as others reach it.
#[derive(Clone)]
pub struct Replica {
    /// For its peers.
    pub peer: Arc<dyn Peer>,
    /// For clients.
    pub log: RaftLog,
    /// For those who watch.
    pub service: Service,
    /// For agents, and for those who look for them.
    pub hub: Arc<AgentHub>,
    /// For operators.
    pub node: Node,
}

/// The world outside, as replicas reach it.
#[derive(Clone)]
pub struct Outside {
    /// The cloud.
    pub cloud: Arc<dyn CallPort>,
    /// The agents in its VMs.
    pub agents: Arc<dyn Agents>,
}

/// What a process serves requests with.
#[derive(Clone)]
pub enum Services {
    /// It is a replica.
    Replica(Replica),
    /// It is the world outside.
    Outside(Outside),
    /// It serves nobody.
    Nobody,
}

/// Where a process puts what it serves with, once it is up.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Services>>>);

impl Slot {
    /// Serves with this from now on.
    pub fn put(&self, services: Services) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(services);
    }

    /// Serves no more.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns what is served with.
    pub fn get(&self) -> Option<Services> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the replica, if it is one and up.
    pub fn replica(&self) -> Option<Replica> {
        match self.get() {
            Some(Services::Replica(replica)) => Some(replica),
            _ => None,
        }
    }
}
