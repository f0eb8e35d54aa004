//! Instances whose agents a task asks for something outside any plan.

use std::time::Duration;

use agent_api::{AgentError, Method, Mode, Request};
use model::instance::{InstanceSpec, Vm};
use model::task::TaskError;
use model::{InstanceId, RequestId};
use serde_json::Value;
use state::State;
use state::records::AgentHealth;

use crate::context::TaskContext;
use crate::error::{Interrupted, StepError};

/// Agents asked at once, as many as BOSH asks.
pub(super) const ASKED_AT_ONCE: usize = 32;

/// How long an agent may take to come back that was called dead: a little more than the longest pause of one that dials in
/// vain.
const BACK_WITHIN: Duration = Duration::from_secs(16);

/// An instance with a VM.
pub(super) struct Member {
    pub spec: InstanceSpec,
    pub vm: Vm,
    is_dead: bool,
}

/// Why an agent gave no answer.
pub(super) enum NoAnswer {
    /// This.
    Failed(TaskError),
    /// It was told to give it up.
    Cancelled,
}

impl Member {
    /// Returns those of the instances that have a VM now.
    pub fn all(context: &TaskContext, instances: &[InstanceId]) -> Vec<Self> {
        let view = context.view();
        let state = State::new(&*view);
        let member = |id: &InstanceId| {
            let spec = state.instance(id)?.spec;
            let vm = state.active_vm(id)?;
            let health = state.agent(&vm.agent).map(|agent| agent.health);
            Some(Self { spec, vm, is_dead: health == Some(AgentHealth::Dead) })
        };
        instances.iter().filter_map(member).collect()
    }

    /// Returns `group/uuid`.
    pub fn slug(&self) -> String {
        format!("{}/{}", self.spec.group, self.spec.id)
    }

    /// Returns the id under which every leader of this task asks this instance for the same.
    fn request_id(&self, context: &TaskContext, what: &str) -> RequestId {
        RequestId::new(format!("t{}-{what}-{}", context.id(), self.spec.id))
    }

    /// Asks the agent. One that all have agreed is dead is given a moment to say otherwise: it may just be dialling in again.
    /// Nobody waits longer for it.
    pub async fn ask(
        &self,
        context: &TaskContext,
        what: &str,
        method: Method,
        timeout: Duration,
    ) -> Result<Result<Value, NoAnswer>, Interrupted> {
        let (agent, epoch) = (&self.vm.agent, context.fence.epoch());
        let there = match self.is_dead {
            true => self.come_back(context).await,
            false => Ok(()),
        };
        let answer = match there {
            Ok(()) => {
                let id = self.request_id(context, what);
                let request = Request { id, epoch, mode: Mode::Submit, timeout, method };
                context.ports.agents.call(agent, request).await
            }
            Err(error) => Err(error),
        };
        match answer.map_err(|error| StepError::from_agent(error, &self.slug(), epoch)) {
            Ok(reply) => Ok(Ok(reply.0)),
            Err(StepError::Lost(lost)) => Err(lost.into()),
            Err(StepError::Log(error)) => Err(error.into()),
            Err(StepError::Cancelled) => Ok(Err(NoAnswer::Cancelled)),
            Err(StepError::Failed(error) | StepError::Again(error) | StepError::Unclear(error)) => {
                Ok(Err(NoAnswer::Failed(error)))
            }
            Err(other @ StepError::Telling { .. }) => {
                Ok(Err(NoAnswer::Failed(TaskError::plain(other.to_string()))))
            }
        }
    }

    /// Returns when the agent answers; an error if it does not do so soon.
    async fn come_back(&self, context: &TaskContext) -> Result<(), AgentError> {
        let request = Request {
            id: RequestId::new(format!("t{}-back-{}", context.id(), uuid::Uuid::new_v4())),
            epoch: context.fence.epoch(),
            mode: Mode::Submit,
            timeout: BACK_WITHIN,
            method: Method::GetState { full: false },
        };
        context.ports.agents.call(&self.vm.agent, request).await.map(|_| ())
    }

    /// Tells the agent that nobody waits any longer.
    pub async fn give_up(&self, context: &TaskContext, what: &str) {
        let (agent, id) = (&self.vm.agent, self.request_id(context, what));
        if let Err(error) = context.ports.agents.cancel(agent, &id, context.fence.epoch()).await {
            context.debug(&format!("agent {agent} did not take the cancellation: {error}"));
        }
    }
}
