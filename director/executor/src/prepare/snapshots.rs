//! Snapshots of disks: added to plans that stop jobs, where the director takes them, and planned by themselves.

use model::plan::Plan;
use model::step::Action;
use model::task::{TaskError, TaskKind};
use model::{InstanceId, SnapshotCid};
use rand::Rng as _;
use scheduler::CurrentDisks;
use scheduler::input::Seed;
use state::State;

use super::facts::Facts;
use super::{Prepared, boxed};
use crate::context::TaskContext;
use crate::ports::Snapshots;

/// Adds snapshots of the disks of those instances that a plan stops, if the director takes them.
pub fn added(context: &TaskContext, plan: Plan) -> Plan {
    // Members that are too old to know what is meant would refuse the plan.
    if context.ports.options.snapshots == Snapshots::Off || !context.knows_second_level() {
        return plan;
    }
    let disks: CurrentDisks = {
        let view = context.view();
        let state = State::new(&*view);
        let of = |id: &InstanceId| {
            let current = state.disks(id).into_iter().filter(|disk| disk.active && disk.cid.is_some());
            current.map(|disk| disk.id).collect()
        };
        plan.targets.iter().map(|target| (target.spec.id.clone(), of(&target.spec.id))).collect()
    };
    scheduler::with_snapshots(plan, &disks, Seed(rand::rng().random()))
}

/// Plans `take-snapshot`. Nothing is done where the director takes none, as in BOSH.
pub fn take(context: &TaskContext, instance: Option<&InstanceId>) -> Result<Prepared, TaskError> {
    let plan = match context.ports.options.snapshots {
        Snapshots::Off => None,
        Snapshots::On => scheduler::plan_taking_snapshots(&Facts::read(context).deployment(), instance),
    };
    Ok(plan.map_or_else(|| Prepared::Nothing(told(context)), boxed))
}

/// Plans `delete-snapshot` and `delete-snapshots`; one that is gone meanwhile is deleted.
pub fn delete(context: &TaskContext, cid: Option<&SnapshotCid>) -> Result<Prepared, TaskError> {
    let snapshots = {
        let view = context.view();
        let name = context.task.deployment.clone().unwrap_or_default();
        let all = State::new(&*view).deployment_snapshots(&name).into_iter();
        all.filter(|snapshot| cid.is_none() || snapshot.cid.as_ref() == cid).collect::<Vec<_>>()
    };
    let plan = scheduler::plan_deleting_snapshots(&Facts::read(context).deployment(), &snapshots);
    Ok(plan.map_or_else(|| Prepared::Nothing(told(context)), boxed))
}

/// Returns how a task about snapshots that ended well is told, in BOSH's words.
pub fn told(context: &TaskContext) -> Option<String> {
    let deployment = context.task.deployment.clone().unwrap_or_default();
    match &context.task.kind {
        TaskKind::TakeSnapshots { instance: None } => {
            Some(format!("snapshots of deployment '{deployment}' created"))
        }
        TaskKind::TakeSnapshots { .. } => Some(format!("snapshot(s) {} created", taken(context).join(", "))),
        TaskKind::DeleteSnapshots { cid: None } => {
            Some(format!("snapshots of deployment '{deployment}' deleted"))
        }
        TaskKind::DeleteSnapshots { cid: Some(cid) } => Some(format!("snapshot(s) {cid} deleted")),
        _ => None,
    }
}

/// Returns what the clouds call the snapshots that the task has taken.
fn taken(context: &TaskContext) -> Vec<String> {
    let view = context.view();
    let state = State::new(&*view);
    let units = state.units(context.id());
    let steps = units.iter().flat_map(|planned| &planned.unit.steps);
    let cid = |action: &Action| match action {
        Action::SnapshotDisk { snapshot, .. } => state.snapshot(snapshot)?.cid,
        _ => None,
    };
    steps.filter_map(|step| cid(&step.action)).map(|cid| cid.to_string()).collect()
}
