//! Agents of either kind behind one seam: nobody who calls asks which one it is.

use std::sync::Arc;

use agent_api::{AgentError, Agents, Reply, Request};
use async_trait::async_trait;
use model::{AgentId, Epoch, RequestId};

use super::Nats;

/// Our own agents, and those of BOSH's.
pub struct BothAgents {
    /// Our own.
    ours: Arc<dyn Agents>,
    /// BOSH's.
    nats: Arc<Nats>,
}

impl BothAgents {
    /// Returns the agents of either kind, or ours where there is no NATS.
    pub fn of(ours: Arc<dyn Agents>, nats: Option<Arc<Nats>>) -> Arc<dyn Agents> {
        match nats {
            Some(nats) => Arc::new(Self { ours, nats }),
            None => ours,
        }
    }

    fn speaking_to(&self, agent: &AgentId) -> Result<&dyn Agents, AgentError> {
        if !self.nats.is_bosh_s(agent) {
            return Ok(&*self.ours);
        }
        // Until it is connected.
        let unreachable = || AgentError::Unreachable { agent: agent.clone() };
        self.nats.agents.get().map(|agents| agents as &dyn Agents).ok_or_else(unreachable)
    }
}

#[async_trait]
impl Agents for BothAgents {
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError> {
        self.speaking_to(agent)?.call(agent, request).await
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        self.speaking_to(agent)?.cancel(agent, request, epoch).await
    }
}
