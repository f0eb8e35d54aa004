//! Agents' homes: which replica an agent belongs to, and that it is told whenever shards or members change.

use std::sync::Arc;

use agent_client_grpc::{AgentHub, Home, Placement};
use model::{AgentId, Epoch, NodeId};
use state::State;
use state::log::CommandLog as _;
use tokio_util::sync::CancellationToken;

use super::log::RaftLog;

/// Where agents belong, as this replica's state says.
pub struct Homes {
    /// This replica.
    pub id: NodeId,
    /// The log.
    pub log: RaftLog,
}

impl Placement for Homes {
    fn home_of(&self, agent: &AgentId) -> Home {
        let view = self.log.view();
        let state = State::new(&*view);
        let Some(record) = state.agent(agent) else { return Home::Here };
        match health::shard_owner(&record.deployment, &state.shard_map().watchers) {
            Some(owner) if owner != self.id => match state.member(owner) {
                Some(member) => Home::Elsewhere(member.agent_address),
                None => Home::Here,
            },
            _ => Home::Here,
        }
    }

    fn endpoints(&self) -> Vec<String> {
        let view = self.log.view();
        State::new(&*view).members().into_iter().map(|m| m.agent_address).collect()
    }

    fn epoch(&self) -> Epoch {
        let view = self.log.view();
        State::new(&*view).epoch()
    }
}

/// Sends agents to their new homes, and tells them new addresses, whenever shards or members change.
pub async fn follow_shards(hub: Arc<AgentHub>, log: RaftLog, stop: CancellationToken) {
    let read = || {
        let view = log.view();
        let state = State::new(&*view);
        let addresses: Vec<String> = state.members().into_iter().map(|m| m.agent_address).collect();
        (state.shard_map().number, addresses)
    };
    let mut seen = log.revision();
    let mut last = read();
    loop {
        tokio::select! {
            now = log.changed(seen) => seen = now,
            () = stop.cancelled() => return,
        }
        let current = read();
        if current.1 != last.1 {
            hub.announce_endpoints();
        }
        let moved = current.0 != last.0;
        last = current;
        if moved {
            // Sending thousands of agents home takes a while; whoever is told to stop does not wait for it.
            tokio::select! {
                () = hub.rehome() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
