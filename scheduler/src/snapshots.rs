//! Snapshots of disks: those that are taken before an update changes anything, and those that operators ask for.
//!
//! Not here: of an instance that is deleted none is taken. Its disk is kept for some days, and nobody writes to it.

use std::collections::{BTreeMap, BTreeSet};

use model::plan::{Fate, OnFailure, Plan, Step, Unit};
use model::snapshot::Snapshot;
use model::step::{Action, Script, StopIntent};
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::facts::Facts;
use crate::input::{DeploymentFacts, Seed};
use crate::order::label;
use crate::steps::{Steps, Units};
use crate::stored;

/// As many at once as the reference's pool has threads; clouds throttle beyond that.
const AT_ONCE: u32 = 32;

/// The disks that each instance works with, as far as it has any.
pub type CurrentDisks = BTreeMap<InstanceId, Vec<DiskId>>;

/// Adds to a plan that a snapshot is taken of an instance's disks each time its jobs have been stopped, before anything else
/// is done to it.
pub fn with_snapshots(mut plan: Plan, disks: &CurrentDisks, seed: Seed) -> Plan {
    let mut ids = SeededIds::new(seed, "snapshots");
    let stages = plan.phases.iter_mut().flat_map(|phase| &mut phase.stages);
    for unit in stages.flat_map(|stage| &mut stage.waves).flat_map(|wave| &mut wave.units) {
        let steps = std::mem::take(&mut unit.steps);
        for step in steps {
            let stopped = stopped(&step.action).and_then(|instance| disks.get_key_value(instance));
            unit.steps.push(step);
            let disks =
                stopped.into_iter().flat_map(|(instance, disks)| disks.iter().map(move |d| (instance, d)));
            for (instance, disk) in disks {
                let snapshot = SnapshotId::new(ids.next());
                let (instance, disk) = (instance.clone(), disk.clone());
                let action = Action::SnapshotDisk { instance, disk, snapshot, clean: true };
                unit.steps.push(Step { action, progress: None, on_failure: OnFailure::Stop });
            }
        }
    }
    plan
}

/// Returns the instance whose jobs have stopped for good after this step, and which stays.
fn stopped(action: &Action) -> Option<&InstanceId> {
    match action {
        Action::RunScript {
            instance,
            script: Script::PostStop,
            intent: Some(StopIntent::KeepVm | StopIntent::DeleteVm),
            ..
        } => Some(instance),
        _ => None,
    }
}

/// Plans snapshots of the disks of one instance, or of all, as they are: jobs run on. None if there are no disks.
pub fn plan_taking_snapshots(
    deployment: &DeploymentFacts<'_>,
    instance: Option<&InstanceId>,
) -> Option<Plan> {
    let facts = Facts::of(deployment);
    let mut ids = SeededIds::new(deployment.seed, "snapshots");
    let (mut units, mut targets, mut takings) = (Units::default(), Vec::new(), Vec::new());
    let wanted = |id: &InstanceId| instance.is_none_or(|instance| instance == id);
    for known in facts.values().filter(|known| wanted(&known.instance.spec.id)) {
        let (spec, before) = (&known.instance.spec, takings.len());
        for disk in known.disks.iter().filter(|disk| disk.cid.is_some()) {
            let (snapshot, mut steps) = (SnapshotId::new(ids.next()), Steps::default());
            let (instance, disk) = (spec.id.clone(), disk.id.clone());
            steps.push(Action::SnapshotDisk { instance, disk, snapshot, clean: false });
            takings.push(going_on(units.unit(label(spec), BTreeSet::new(), steps)));
        }
        if takings.len() == before {
            continue;
        }
        targets.push(stored::target(known.instance, known.instance.state, Fate::Untouched, Vec::new()));
    }
    if takings.is_empty() {
        return None;
    }
    Some(stored::plan(deployment, targets, vec![stored::phase(None, AT_ONCE, takings)], Vec::new()))
}

/// Plans the deletion of snapshots; none if there are none.
pub fn plan_deleting_snapshots(deployment: &DeploymentFacts<'_>, snapshots: &[Snapshot]) -> Option<Plan> {
    let mut units = Units::default();
    let deletion = |snapshot: &Snapshot| {
        let mut steps = Steps::default();
        steps.push(Action::DeleteSnapshot { snapshot: snapshot.id.clone() });
        let label = snapshot.cid.as_ref().map_or_else(
            || format!("snapshot {} of {}", snapshot.id, snapshot.slug),
            |cid| format!("{cid} of {}", snapshot.slug),
        );
        going_on(units.unit(label, BTreeSet::new(), steps))
    };
    let deletions: Vec<Unit> = snapshots.iter().map(deletion).collect();
    if deletions.is_empty() {
        return None;
    }
    Some(stored::plan(deployment, Vec::new(), vec![stored::phase(None, AT_ONCE, deletions)], Vec::new()))
}

/// One that fails says nothing about the others.
fn going_on(unit: Unit) -> Unit {
    Unit { on_failure: OnFailure::GoOn, ..unit }
}
