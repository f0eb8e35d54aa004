//! Resurrection: new VMs, from stored specs, for instances whose VMs are gone or dead.

use std::collections::BTreeSet;

use model::instance::InstanceState;
use model::plan::{Change, Fate, Plan};
use model::step::{Action, Script, WatchKind};
use model::task::TaskError;
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::facts::{Facts, Known};
use crate::input::{DeploymentFacts, Director};
use crate::order::label;
use crate::steps::{Steps, Units};
use crate::stored;
use crate::update;

/// Plans new VMs for instances whose VMs are gone or dead. Those that need none (any more) are passed over: between
/// the alarm and the plan somebody may have deleted, stopped or repaired them.
pub fn plan_resurrection(
    director: &Director,
    deployment: &DeploymentFacts<'_>,
    instances: &[InstanceId],
) -> Result<Plan, TaskError> {
    let facts = Facts::of(deployment);
    let wanted: BTreeSet<&InstanceId> = instances.iter().collect();
    let mut agents = SeededIds::new(deployment.seed, "agents");
    let mut units = Units::default();
    let (mut targets, mut repairs, mut afterwards) = (Vec::new(), Vec::new(), Vec::new());
    for known in wanted.into_iter().filter_map(|id| facts.get(id)) {
        if !needs_vm(known) {
            continue;
        }
        let instance = known.instance;
        let agent = AgentId::new(agents.next());
        repairs.push(units.unit(label(&instance.spec), BTreeSet::new(), revive(known, &agent)));
        targets.push(stored::target(instance, instance.state, Fate::Recreated, vec![Change::Recreate]));
        if instance.state == InstanceState::Started {
            let mut steps = Steps::default();
            steps.push(Action::RunScript {
                instance: instance.spec.id.clone(),
                agent,
                script: Script::PostDeploy,
                intent: None,
            });
            afterwards.push(units.unit(label(&instance.spec), BTreeSet::new(), steps));
        }
    }
    let mut phases = Vec::new();
    if !repairs.is_empty() {
        phases.push(stored::phase(Some("Applying problem resolutions"), director.threads_max, repairs));
    }
    if !afterwards.is_empty() {
        phases.push(stored::phase(None, director.threads_max, afterwards));
    }
    Ok(stored::plan(deployment, targets, phases, Vec::new()))
}

fn needs_vm(known: &Known<'_>) -> bool {
    let dead = known.vm.is_none() || known.is_unresponsive();
    !known.instance.ignore && known.instance.expects_vm() && dead
}

/// The old VM goes first, whatever is left of it: two VMs with one disk would be worse than none.
fn revive(known: &Known<'_>, agent: &AgentId) -> Steps {
    let id = &known.instance.spec.id;
    let mut steps = Steps::default();
    steps.push(Action::BeginUpdate { instance: id.clone() });
    for vm in known.vm.iter().chain(&known.stale_vms) {
        steps.push(Action::DeleteVm { instance: id.clone(), agent: vm.agent.clone() });
    }
    update::create_vm(&mut steps, id, agent, known.disk);
    steps.apply(id, agent);
    steps.push(Action::SaveInstance { instance: id.clone() });
    if known.instance.state == InstanceState::Started {
        steps.start(id, agent, WatchKind::Update);
    }
    steps.push(Action::CompleteUpdate { instance: id.clone() });
    steps
}

/// Plans the deletion of orphaned disks.
pub fn plan_orphaned_disks(disks: &[DiskId]) -> Plan {
    // As many at once as the reference's pool has threads; clouds throttle beyond that.
    const DELETIONS_AT_ONCE: u32 = 32;
    let mut units = Units::default();
    let deletions: Vec<_> = disks
        .iter()
        .map(|disk| {
            let mut steps = Steps::default();
            steps.push(Action::DeleteOrphanedDisk { disk: disk.clone() });
            units.unit(format!("Deleting orphaned disk {disk}"), BTreeSet::new(), steps)
        })
        .collect();
    let phases = match deletions.is_empty() {
        true => Vec::new(),
        false => vec![stored::phase(Some("Deleting orphaned disks"), DELETIONS_AT_ONCE, deletions)],
    };
    Plan {
        deployment: None,
        generation: 0,
        targets: Vec::new(),
        reservations: Vec::new(),
        phases,
        record: None,
        warnings: Vec::new(),
    }
}
