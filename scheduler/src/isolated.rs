//! Start, stop, restart and recreate of one instance, and of nothing else (`--no-converge`): with the spec that is stored of
//! it, whatever the manifest says by now.
//!
//! Not here: the converging form, which is a deploy (`state_change.rs`).

use std::collections::BTreeSet;

use model::instance::{InstanceState, Lifecycle};
use model::plan::{Change, Fate, Phase, Plan, Stage, Wave};
use model::step::{Action, DrainKind, StopIntent, WatchKind};
use model::task::{StateChange, TaskError};
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::facts::{Facts, Known};
use crate::input::{AgentObservation, DeploymentFacts, DrainMode};
use crate::order::label;
use crate::steps::{Steps, Stop, Units};
use crate::stored;
use crate::update::{self, Jobs};

/// What is wanted of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsolatedChange<'a> {
    /// What to do.
    pub change: StateChange,
    /// To which instance.
    pub instance: &'a InstanceId,
    /// Whether pre-stop and drain scripts run.
    pub drain: DrainMode,
    /// What is done if its agent says nothing: a new VM needs no answer from the old one.
    pub silence: Silence,
}

/// What is done about an agent that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The change fails.
    Fails,
    /// A new VM takes the place of its own.
    IsPassedOver,
}

/// Plans a change of one instance; none if it is as it is wanted.
pub fn plan_isolated_change(
    deployment: &DeploymentFacts<'_>,
    wanted: &IsolatedChange<'_>,
) -> Result<Option<Plan>, TaskError> {
    let facts = Facts::of(deployment);
    let known = facts.get(wanted.instance).ok_or_else(|| {
        let text =
            format!("Instance '{}' doesn't exist in deployment '{}'", wanted.instance, deployment.name);
        TaskError::new(ErrorCode::InstanceNotFound, text)
    })?;
    let is_silent = known.vm.is_some() && known.is_unresponsive();
    check(known, wanted, is_silent)?;
    let goal = match wanted.change {
        StateChange::Become(state) => state,
        StateChange::Restart | StateChange::Recreate => InstanceState::Started,
    };
    if is_done(known, wanted.change) {
        return Ok(None);
    }
    let mut agents = SeededIds::new(deployment.seed, "agents");
    let new_vm =
        goal == InstanceState::Started && (known.vm.is_none() || wanted.change == StateChange::Recreate);
    let agent = new_vm.then(|| AgentId::new(agents.next()));
    let parts = parts(known, wanted, goal, agent.as_ref(), is_silent);
    let mut change = match wanted.change {
        StateChange::Restart => Change::Restart,
        StateChange::Recreate => Change::Recreate,
        StateChange::Become(_) => Change::State,
    };
    let fate = match new_vm {
        true => Fate::Recreated,
        false => Fate::Updated,
    };
    if !known.instance.update_completed && change == Change::State {
        change = Change::Dirty;
    }
    let target = stored::target(known.instance, goal, fate, vec![change]);
    let phases = vec![Phase { stages: vec![stage(known, parts)] }];
    Ok(Some(stored::plan(deployment, vec![target], phases, Vec::new())))
}

fn check(known: &Known<'_>, wanted: &IsolatedChange<'_>, is_silent: bool) -> Result<(), TaskError> {
    let slug = known.instance.slug();
    if known.instance.ignore {
        let text = format!(
            "You are trying to change the state of the ignored instance '{slug}'. This operation is not allowed. You need to unignore it first."
        );
        return Err(TaskError::new(ErrorCode::DeploymentIgnoredInstancesModification, text));
    }
    if known.instance.spec.lifecycle == Lifecycle::Errand {
        let text = format!(
            "'{slug}' is of an errand's group: it is there for the errand alone, which `run-errand` runs"
        );
        return Err(TaskError::new(ErrorCode::RunErrandError, text));
    }
    match known.agent {
        Some(AgentObservation::Unresponsive { error }) if is_silent && !may_be_silent(wanted) => {
            Err(error.clone())
        }
        _ => Ok(()),
    }
}

fn may_be_silent(wanted: &IsolatedChange<'_>) -> bool {
    wanted.change == StateChange::Recreate && wanted.silence == Silence::IsPassedOver
}

/// Returns whether the instance is as it is wanted, and nothing was left half done.
fn is_done(known: &Known<'_>, change: StateChange) -> bool {
    let state = known.instance.state;
    known.instance.update_completed
        && match change {
            StateChange::Become(InstanceState::Started) => {
                state == InstanceState::Started && known.vm.is_some() && known.is_running()
            }
            // One without a VM is stopped as well as can be.
            StateChange::Become(InstanceState::Stopped) => state != InstanceState::Started,
            StateChange::Become(InstanceState::Detached) => {
                state == InstanceState::Detached && known.vm.is_none() && known.stale_vms.is_empty()
            }
            StateChange::Restart | StateChange::Recreate => false,
        }
}

/// Returns what is done, under the names that operators see.
fn parts(
    known: &Known<'_>,
    wanted: &IsolatedChange<'_>,
    goal: InstanceState,
    new: Option<&AgentId>,
    is_silent: bool,
) -> Vec<(&'static str, Steps)> {
    let id = wanted.instance;
    let mut parts = Vec::new();
    let deletes_vm = new.is_some() || goal == InstanceState::Detached;
    if let (Some(vm), Jobs::Running, true) = (known.vm, known.jobs(), stops(wanted.change)) {
        let mut steps = Steps::default();
        let intent = if deletes_vm { StopIntent::DeleteVm } else { StopIntent::KeepVm };
        steps.stop(id, &vm.agent, Stop { intent, drain: DrainKind::Shutdown, mode: wanted.drain });
        parts.push(("Stopping instance", steps));
    }
    if deletes_vm && (known.vm.is_some() || !known.stale_vms.is_empty()) {
        let mut steps = Steps::default();
        if let (Some(vm), false) = (known.vm, is_silent) {
            steps.take_all(id, &vm.agent, known.disks.iter().copied());
        }
        let vms: Vec<_> = known.vm.iter().chain(&known.stale_vms).copied().collect();
        update::delete_vms(&mut steps, id, &vms);
        parts.push(("Deleting VM", steps));
    }
    if let Some(agent) = new {
        let mut steps = Steps::default();
        update::create_vm(&mut steps, id, agent, known.disks.iter().copied());
        parts.push(("Creating VM", steps));
    }
    if let (InstanceState::Started, Some(agent)) = (goal, new.or(known.vm.map(|vm| &vm.agent))) {
        let mut steps = Steps::default();
        if new.is_none() {
            steps.push(Action::UpdateSettings { instance: id.clone(), agent: agent.clone() });
        }
        steps.apply(id, agent);
        steps.push(Action::SaveInstance { instance: id.clone() });
        steps.start(id, agent, WatchKind::Update);
        parts.push(("Starting instance", steps));
    }
    if parts.is_empty() {
        parts.push(("Stopping instance", Steps::default()));
    }
    framed(parts, id, goal)
}

fn stops(change: StateChange) -> bool {
    change != StateChange::Become(InstanceState::Started)
}

/// Puts the beginning before the first part and the end behind the last: in between, the instance is half done.
fn framed(
    mut parts: Vec<(&'static str, Steps)>,
    id: &InstanceId,
    goal: InstanceState,
) -> Vec<(&'static str, Steps)> {
    if let Some((_, first)) = parts.first_mut() {
        first.push_front(Action::BeginUpdate { instance: id.clone() });
    }
    if let Some((_, last)) = parts.last_mut() {
        if goal != InstanceState::Started {
            last.push(Action::SaveInstance { instance: id.clone() });
        }
        last.push(Action::CompleteUpdate { instance: id.clone() });
    }
    parts
}

fn stage(known: &Known<'_>, parts: Vec<(&'static str, Steps)>) -> Stage {
    let (mut units, total) = (Units::default(), parts.len() as u32);
    let mut waves = Vec::with_capacity(parts.len());
    for (name, steps) in parts {
        let unit = units.unit(name.to_owned(), BTreeSet::new(), steps);
        waves.push(Wave { max_in_flight: 1, units: vec![unit] });
    }
    let title = Some(format!("Updating instance {}", label(&known.instance.spec)));
    Stage { title, tags: Vec::new(), total, waves }
}
