//! What health reads out of the state: the state in, facts or a proposal out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use health::{Beats, Failed, Health, Unhealthy, Watched};
use model::task::{Task, TaskKind, TaskState};
use model::{AgentId, DeploymentName, InstanceId, LockName, NodeId, RequestId, TaskId};
use ring::digest::{SHA256, digest};
use state::State;
use state::command::Command;
use state::log::Proposal;
use state::query::{DeploymentHealth, TaskFilter, Which};
use state::records::{AgentHealth, AgentRecord};
use tokio::time::Instant;

/// Rest after a resurrection: a failed attempt must not be repeated every second. Doubles with each failure in a row.
const REST: Duration = Duration::from_secs(10);

/// The longest rest: a cloud that is full now has room later.
const REST_MAX: Duration = Duration::from_secs(600);

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

/// Whether there is a bus of BOSH's agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    There,
    None,
}

/// Returns all agents.
pub(super) fn watched(state: &State<'_>, bus: Bus) -> Vec<Watched> {
    // The VM's row is read only where it can tell something.
    let is_bosh_s = |agent: &AgentId| {
        bus == Bus::There && state.vm(agent).is_some_and(|vm| vm.stemcell.has_bosh_s_agent())
    };
    let busy = state.deployments_in_work();
    let watched = |agent: AgentRecord| Watched {
        beats: if is_bosh_s(&agent.agent) { Beats::Seldom } else { Beats::Often },
        agent: agent.agent,
        in_work: busy.contains(&agent.deployment),
        deployment: agent.deployment,
        agreed: health_of(agent.health),
        jobs_run: agent.jobs_run,
    };
    state.agents().into_iter().map(watched).collect()
}

/// Returns the deployments that have failures or are in meltdown. Only those are read whole.
pub(super) fn unhealthy(state: &State<'_>) -> Vec<Unhealthy> {
    let unhealthy = |health: DeploymentHealth| Unhealthy {
        deployment: health.deployment,
        in_work: health.in_work,
        wanted: health.wanted,
        dead: health.dead,
        missing: health.missing,
        meltdown: health.meltdown.map(|meltdown| Failed {
            unhealthy: meltdown.failed.unhealthy as usize,
            total: meltdown.failed.total as usize,
        }),
    };
    state.health(Which::Ailing).into_iter().map(unhealthy).collect()
}

fn newest_tasks(state: &State<'_>, deployment: &DeploymentName) -> Vec<Task> {
    let filter =
        TaskFilter { deployment: Some(deployment.clone()), limit: Some(TASKS_READ), ..TaskFilter::default() };
    state.tasks(&filter)
}

/// Returns the proposal that asks for new VMs.
///
/// The request id says after which task of the deployment it comes: two leaders, or one whose state lags behind what was
/// committed, propose the same, and the log takes it once.
pub(super) fn resurrection(
    state: &State<'_>,
    deployment: &DeploymentName,
    instances: Vec<InstanceId>,
) -> Proposal {
    let after = newest_tasks(state, deployment).first().map(|t| t.id.0).unwrap_or_default();
    // Hashed, so that no user can make the same id: theirs have a slash.
    let id = digest(&SHA256, format!("resurrection of {deployment} after task {after}").as_bytes());
    let command = Command::TaskQueue {
        kind: TaskKind::ScanAndFix { instances, unknown: Vec::new() },
        deployment: Some(deployment.clone()),
        context_id: String::new(),
        locks: vec![LockName::new(format!("lock:deployment:{deployment}"))],
    };
    Proposal { request_id: Some(RequestId::new(hex::encode(id))), ..Proposal::own(command) }
}

/// What an earlier resurrection means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There is none: nothing.
    None,
    /// It is still open.
    Open,
    /// It has ended: the next one waits, from when that was first seen. Not from the time in the state: clocks of leaders
    /// differ, by a day where one is wrong.
    After { task: TaskId, rest: Duration },
}

/// Returns what the newest tasks of a deployment mean for its next resurrection.
pub(super) fn rest(state: &State<'_>, deployment: &DeploymentName) -> Rest {
    let newest = newest_tasks(state, deployment);
    let resurrections = || newest.iter().take_while(|t| matches!(t.kind, TaskKind::ScanAndFix { .. }));
    match resurrections().next() {
        None => Rest::None,
        Some(last) if !last.state.is_final() => Rest::Open,
        Some(last) => {
            let failures = resurrections().take_while(|t| t.state != TaskState::Done).count() as u32;
            let rest = (REST * (1 << failures.saturating_sub(1))).min(REST_MAX);
            Rest::After { task: last.id, rest }
        }
    }
}

/// The ends of resurrections, and when this replica first saw them.
#[derive(Debug, Default)]
pub(super) struct Rests(BTreeMap<DeploymentName, (TaskId, Instant)>);

impl Rests {
    /// Returns whether a deployment may be resurrected now.
    pub(super) fn is_over(&mut self, deployment: &DeploymentName, rest: Rest) -> bool {
        let Rest::After { task, rest } = rest else { return rest == Rest::None };
        let now = Instant::now();
        // What is older than the longest rest keeps nobody back, and its deployment may be gone.
        self.0.retain(|name, (_, seen)| name == deployment || seen.elapsed() < REST_MAX);
        let seen = self.0.entry(deployment.clone()).or_insert((task, now));
        if seen.0 != task {
            *seen = (task, now);
        }
        seen.1.elapsed() >= rest
    }
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
