//! [`agent_api::Agents`] over the whole cluster.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{AgentError, Agents, Reply, Request};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use model::{AgentId, Epoch, NodeId, RequestId};
use proto::peer::v1::{RelayCancelRequest, RelayLocateRequest};
use tokio::time::Instant;
use tracing::debug;

use crate::hub::AgentHub;
use crate::ports::{Peers, Relay};
use crate::relay::{CANCEL_WITHIN, STILL_WAITING_EVERY};
use crate::wire::{Call, Cancelled, Sent, Try, reply};

/// How long one `Locate` waits at another replica for the agent to arrive there.
const LOCATE_WAIT: Duration = Duration::from_secs(5);

/// Pause before a replica that could not be asked is asked again.
const LOCATE_PAUSE: retry::Policy =
    retry::Policy { initial: Duration::from_millis(100), max: Duration::from_secs(2), total: None };

/// Pause after a stream was lost under a request: agents dial again within about this.
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// Every agent of the cluster, wherever its stream is.
#[derive(Clone)]
pub struct RemoteAgents {
    pub(crate) hub: Arc<AgentHub>,
    pub(crate) peers: Arc<dyn Peers>,
}

/// Which replica hears an agent.
enum Holder {
    Here,
    Peer(Arc<dyn Relay>),
}

impl RemoteAgents {
    /// Returns the agents as seen from the replica of `hub`.
    pub fn new(hub: Arc<AgentHub>, peers: Arc<dyn Peers>) -> Self {
        Self { hub, peers }
    }

    /// Finds the replica that hears the agent, waiting for the agent to dial one of them. A stream that has fallen silent
    /// does not count, wherever it is: the agent may have left it, and its end has not come through.
    async fn find(&self, agent: &AgentId) -> Holder {
        if self.hub.registry.hears(agent) {
            return Holder::Here;
        }
        let mut elsewhere: FuturesUnordered<_> =
            self.peers.replicas().into_iter().map(|node| self.find_at(node, agent)).collect();
        loop {
            tokio::select! {
                () = self.hub.registry.arrival(agent) => if self.hub.registry.hears(agent) { return Holder::Here },
                Some(relay) = elsewhere.next() => return Holder::Peer(relay),
            }
        }
    }

    /// Waits until one certain replica hears the agent.
    async fn find_at(&self, node: NodeId, agent: &AgentId) -> Arc<dyn Relay> {
        let mut waits = LOCATE_PAUSE.waits();
        loop {
            if let Some(relay) = self.peers.relay(node) {
                let wait_ms = u32::try_from(LOCATE_WAIT.as_millis()).unwrap_or(u32::MAX);
                let ask = relay.locate(RelayLocateRequest { agent_id: agent.to_string(), wait_ms });
                match tokio::time::timeout(LOCATE_WAIT * 2, ask).await {
                    Ok(Ok(answer)) if answer.here => return relay,
                    Ok(Ok(_)) => {
                        waits.reset();
                        continue;
                    }
                    Ok(Err(status)) => {
                        debug!(node = %node, error = %status, "a replica can't be asked for an agent")
                    }
                    Err(_) => debug!(node = %node, "a replica does not answer"),
                }
            }
            // The policy has no end.
            tokio::time::sleep(waits.next().unwrap_or(LOCATE_PAUSE.max)).await;
        }
    }

    async fn try_once(&self, call: &Call, deadline: Instant) -> Try {
        let holder = match tokio::time::timeout_at(deadline, self.find(&call.agent)).await {
            Ok(holder) => holder,
            Err(_) => return Try::TimedOut(Sent::No),
        };
        match holder {
            Holder::Here => self.hub.registry.call(call, deadline).await,
            Holder::Peer(relay) => relayed(&*relay, call, deadline).await,
        }
    }

    async fn cancel_once(
        &self,
        agent: &AgentId,
        request: &RequestId,
        epoch: Epoch,
        deadline: Instant,
    ) -> Cancelled {
        let Ok(holder) = tokio::time::timeout_at(deadline, self.find(agent)).await else {
            return Cancelled::StreamLost;
        };
        match holder {
            Holder::Here => self.hub.registry.cancel(agent, request, epoch, deadline).await,
            Holder::Peer(relay) => {
                let ask = relay.cancel(RelayCancelRequest {
                    agent_id: agent.to_string(),
                    request_id: request.to_string(),
                    epoch: epoch.0,
                });
                match tokio::time::timeout_at(deadline, ask).await {
                    Ok(Ok(answer)) => Cancelled::from_peer(&answer),
                    Ok(Err(_)) | Err(_) => Cancelled::StreamLost,
                }
            }
        }
    }
}

/// Sends a request through another replica. A replica that falls silent counts as a lost stream.
async fn relayed(relay: &dyn Relay, call: &Call, deadline: Instant) -> Try {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let silence_max = STILL_WAITING_EVERY * 4;
    let opened = tokio::time::timeout(silence_max, relay.call(call.to_peer(timeout))).await;
    let Ok(Ok(mut events)) = opened else { return Try::StreamLost(Sent::Yes) };
    loop {
        tokio::select! {
            event = tokio::time::timeout(silence_max, events.next()) => match event {
                Ok(Some(Ok(event))) => if let Some(ended) = Try::from_peer(event) { return ended },
                _ => return Try::StreamLost(Sent::Yes),
            },
            () = tokio::time::sleep_until(deadline) => return Try::TimedOut(Sent::Yes),
        }
    }
}

#[async_trait]
impl Agents for RemoteAgents {
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError> {
        let call = Call::new(agent, &request);
        let deadline = Instant::now() + request.timeout;
        let mut sent = Sent::No;
        loop {
            match self.try_once(&call, deadline).await {
                Try::Answered(answer) => return reply(agent, &request, answer),
                Try::StreamLost(this) => {
                    if this == Sent::Yes {
                        sent = Sent::Yes;
                    }
                    // The same id again, over whichever stream comes next: the agent attaches us or answers from its record.
                    debug!(agent = %agent, request_id = %request.id, "agent's stream was lost under a request");
                    tokio::time::sleep(AGAIN_PAUSE).await;
                }
                Try::TimedOut(Sent::No) if sent == Sent::No => {
                    return Err(AgentError::Unreachable { agent: agent.clone() });
                }
                Try::TimedOut(_) => {
                    let (method, timeout) = (request.method.name(), request.timeout);
                    return Err(AgentError::TimedOut { agent: agent.clone(), method, timeout });
                }
            }
        }
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        let deadline = Instant::now() + CANCEL_WITHIN;
        loop {
            match self.cancel_once(agent, request, epoch, deadline).await {
                Cancelled::WasRunning => return Ok(true),
                Cancelled::NotRunning => return Ok(false),
                Cancelled::RefusedEpoch(current) => {
                    return Err(AgentError::StaleEpoch { agent: agent.clone(), current });
                }
                Cancelled::StreamLost if Instant::now() + AGAIN_PAUSE >= deadline => {
                    return Err(AgentError::Unreachable { agent: agent.clone() });
                }
                Cancelled::StreamLost => tokio::time::sleep(AGAIN_PAUSE).await,
            }
        }
    }
}
