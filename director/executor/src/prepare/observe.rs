//! Asking every VM's agent for its state before planning.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::{AgentState, JobState, Method, Mode, Request};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::instance::{Instance, Vm};
use model::task::TaskError;
use model::{AgentId, ErrorCode, InstanceId, RequestId};
use scheduler::input::{AgentObservation, is_spare};
use state::State;

use crate::context::TaskContext;
use crate::error::{Interrupted, StepError};
use crate::patience;

/// Agents asked at once: enough that a thousand take a second, few enough not to flood one replica's streams.
const ASKED_AT_ONCE: usize = 128;

/// Returns what each agent said.
pub async fn observe(
    context: &TaskContext,
    instances: &[Instance],
    vms: &[Vm],
) -> Result<BTreeMap<InstanceId, AgentObservation>, Interrupted> {
    let slugs: BTreeMap<&InstanceId, String> =
        instances.iter().filter(|i| !i.ignore && !i.compilation).map(|i| (&i.spec.id, i.slug())).collect();
    let asked = vms.iter().filter(|vm| vm.is_current()).filter_map(|vm| Some((vm, slugs.get(&vm.instance)?)));
    let mut questions: Vec<BoxFuture<'_, _>> = Vec::new();
    for (vm, slug) in asked {
        questions.push(ask(context, vm, slug).boxed());
    }
    Ok(all(context, questions).await?.into_iter().collect())
}

/// Returns the agents in VMs that were made ahead which do not answer.
pub async fn silent_spares(context: &TaskContext, vms: &[Vm]) -> Result<BTreeSet<AgentId>, Interrupted> {
    let mut questions: Vec<BoxFuture<'_, _>> = Vec::new();
    for vm in vms.iter().filter(|vm| is_spare(vm)) {
        let asked = async move { (vm.agent.clone(), ask(context, vm, vm.instance.as_str()).await.1) };
        questions.push(asked.boxed());
    }
    let answers = all(context, questions).await?.into_iter();
    let is_silent =
        |(_, said): &(AgentId, AgentObservation)| matches!(said, AgentObservation::Unresponsive { .. });
    Ok(answers.filter(is_silent).map(|(agent, _)| agent).collect())
}

async fn all<T>(context: &TaskContext, questions: Vec<BoxFuture<'_, T>>) -> Result<Vec<T>, Interrupted> {
    let answers = futures::stream::iter(questions).buffer_unordered(ASKED_AT_ONCE).collect().await;
    // An answer that was cut short by the end of the lease says nothing about the agent.
    context.fence.check()?;
    Ok(answers)
}

async fn ask(context: &TaskContext, vm: &Vm, slug: &str) -> (InstanceId, AgentObservation) {
    let epoch = context.fence.epoch();
    let request = Request {
        id: RequestId::new(format!("t{}-observe-{}", context.id(), uuid::Uuid::new_v4())),
        epoch,
        mode: Mode::Submit,
        timeout: patience::for_state(&State::new(&*context.view()), &vm.agent),
        method: Method::GetState { full: false },
    };
    let observation = match context.ports.agents.call(&vm.agent, request).await {
        Ok(reply) => match serde_json::from_value::<AgentState>(reply.0) {
            Ok(state) => AgentObservation::Answered { job_state: name(state.job_state).into() },
            Err(error) => AgentObservation::Unresponsive {
                error: TaskError::new(
                    ErrorCode::AgentInvalidStateFormat,
                    format!("its state is not one: {error}"),
                ),
            },
        },
        Err(error) => match StepError::from_agent(error, slug, epoch) {
            StepError::Failed(error) | StepError::Again(error) => AgentObservation::Unresponsive { error },
            other => AgentObservation::Unresponsive { error: TaskError::plain(other.to_string()) },
        },
    };
    (vm.instance.clone(), observation)
}

fn name(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Starting => "starting",
        JobState::Failing => "failing",
        JobState::Stopped => "stopped",
        JobState::Unknown => "unknown",
    }
}
