//! What health reads out of the state. Pure: the state and a time in, facts or a proposal out.

use std::collections::{BTreeMap, BTreeSet};

use health::{Health, Unhealthy, Watched};
use model::instance::Instance;
use model::task::{Task, TaskKind, TaskState};
use model::{AgentId, DeploymentName, InstanceId, LockName, NodeId, RequestId, Timestamp};
use ring::digest::{SHA256, digest};
use state::State;
use state::command::Command;
use state::log::Proposal;
use state::query::TaskFilter;
use state::records::{AgentHealth, AgentRecord};

/// Rest after a resurrection: a failed attempt must not be repeated every second. Doubles with each failure in a row.
const REST_MS: i64 = 10_000;

/// The longest rest: a cloud that is full now has room later.
const REST_MAX_MS: i64 = 600_000;

/// How far back a deployment's tasks are read: as many failures in a row as it takes to the longest rest.
const TASKS_READ: usize = 8;

pub(super) fn health_of(health: AgentHealth) -> Health {
    match health {
        AgentHealth::New => Health::New,
        AgentHealth::Alive => Health::Alive,
        AgentHealth::Suspect => Health::Suspect,
        AgentHealth::Dead => Health::Dead,
    }
}

/// Returns all agents.
pub(super) fn watched(state: &State<'_>) -> Vec<Watched> {
    let busy = state.deployments_in_work();
    let watched = |agent: AgentRecord| Watched {
        agent: agent.agent,
        in_work: busy.contains(&agent.deployment),
        deployment: agent.deployment,
        agreed: health_of(agent.health),
    };
    state.agents().into_iter().map(watched).collect()
}

/// Returns the deployments that nobody works on and that have failures. Only those with a failure are read whole.
pub(super) fn unhealthy(state: &State<'_>) -> Vec<Unhealthy> {
    if state.resurrection_paused() {
        return Vec::new();
    }
    let busy = state.deployments_in_work();
    let mut dead: BTreeMap<DeploymentName, BTreeMap<AgentId, i64>> = BTreeMap::new();
    for agent in state.agents().into_iter().filter(|a| a.health == AgentHealth::Dead) {
        dead.entry(agent.deployment).or_default().insert(agent.agent, agent.health_since.0);
    }
    let none = BTreeMap::new();
    let mut found = Vec::new();
    for deployment in state.deployments().into_iter().map(|d| d.name).filter(|name| !busy.contains(name)) {
        let dead = dead.get(&deployment).unwrap_or(&none);
        let left = left_without_vm(state, &deployment);
        if dead.is_empty() && left.is_empty() {
            continue;
        }
        let wanted: Vec<Instance> =
            state.instances(&deployment).into_iter().filter(|i| i.expects_vm() && !i.ignore).collect();
        let since = |instance: &Instance| match state.active_vm(&instance.spec.id) {
            Some(vm) => dead.get(&vm.agent).copied(),
            None => left.get(&instance.spec.id).copied(),
        };
        let instances: Vec<(InstanceId, i64)> =
            wanted.iter().filter_map(|i| Some((i.spec.id.clone(), since(i)?))).collect();
        if !instances.is_empty() {
            found.push(Unhealthy { deployment, total: wanted.len(), instances });
        }
    }
    found
}

/// Returns the instances whose resurrection has failed lately, and when. It may have deleted the dead VM and made no new
/// one; then no agent is left that could be found dead, and without this nobody would try again. VMs that are missing
/// after a failed deploy are not among them: those are the operator's affair.
fn left_without_vm(state: &State<'_>, deployment: &DeploymentName) -> BTreeMap<InstanceId, i64> {
    let mut left = BTreeMap::new();
    for task in newest_tasks(state, deployment) {
        if let (TaskKind::ScanAndFix { instances }, TaskState::Error) = (task.kind, task.state) {
            left.extend(instances.into_iter().map(|id| (id, task.updated_at.0)));
        }
    }
    left
}

fn newest_tasks(state: &State<'_>, deployment: &DeploymentName) -> Vec<Task> {
    let filter =
        TaskFilter { deployment: Some(deployment.clone()), limit: Some(TASKS_READ), ..TaskFilter::default() };
    state.tasks(&filter)
}

/// Returns the proposal that asks for new VMs; none while an earlier resurrection is open or the deployment rests.
///
/// The request id says after which task of the deployment it comes: two leaders, or one whose state lags behind what was
/// committed, propose the same, and the log takes it once.
pub(super) fn resurrection(
    state: &State<'_>,
    deployment: &DeploymentName,
    instances: Vec<InstanceId>,
    now: Timestamp,
) -> Option<Proposal> {
    let tasks = newest_tasks(state, deployment);
    if rests_until(&tasks).is_some_and(|until| now < until) {
        return None;
    }
    let after = tasks.first().map(|t| t.id.0).unwrap_or_default();
    // Hashed, so that no user can make the same id: theirs have a slash.
    let id = digest(&SHA256, format!("resurrection of {deployment} after task {after}").as_bytes());
    let command = Command::TaskQueue {
        kind: TaskKind::ScanAndFix { instances },
        deployment: Some(deployment.clone()),
        context_id: String::new(),
        locks: vec![LockName::new(format!("lock:deployment:{deployment}"))],
    };
    Some(Proposal { request_id: Some(RequestId::new(hex::encode(id))), ..Proposal::own(command) })
}

/// Returns until when a deployment with these newest tasks (newest first) is left alone.
fn rests_until(newest: &[Task]) -> Option<Timestamp> {
    let resurrections = || newest.iter().take_while(|t| matches!(t.kind, TaskKind::ScanAndFix { .. }));
    let last = resurrections().next()?;
    if !last.state.is_final() {
        return Some(Timestamp(i64::MAX));
    }
    let failures = resurrections().take_while(|t| t.state != TaskState::Done).count() as u32;
    let rest = (REST_MS << failures.saturating_sub(1)).min(REST_MAX_MS);
    Some(Timestamp(last.updated_at.0.saturating_add(rest)))
}

/// What is known of the others when a leader decides who watches.
pub(super) struct Others {
    /// All voters but the leader.
    pub voters: BTreeSet<NodeId>,
    /// Those of them that were heard just now.
    pub heard: BTreeSet<NodeId>,
    /// Whether this replica has led for long enough to have heard whoever is there.
    pub settled: bool,
}

/// Returns who can watch: the followers that are heard, or the leader if it is alone. A leader that has only just begun
/// has heard nobody yet; to say "alone" then would move every agent of the fleet twice.
pub(super) fn able_to_watch(own: NodeId, others: Others) -> BTreeSet<NodeId> {
    match others {
        Others { heard, voters, settled } if !heard.is_empty() && (settled || heard == voters) => heard,
        Others { voters, settled, .. } if voters.is_empty() || settled => BTreeSet::from([own]),
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
