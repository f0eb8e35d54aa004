//! Agents' homes: whenever shards or members change, agents are told where they belong.

use std::sync::Arc;

use agent_client_grpc::AgentHub;
use state::State;
use state::log::CommandLog as _;
use tokio_util::sync::CancellationToken;

use super::log::RaftLog;

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
