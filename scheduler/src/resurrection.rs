//! Resurrection: new VMs, from stored specs, for instances whose VMs are gone or dead.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{Disk, InstanceState};
use model::plan::Plan;
use model::step::{Action, WatchKind};
use model::task::TaskError;
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::facts::{Facts, Known};
use crate::input::{DeploymentFacts, Director};
use crate::order::label;
use crate::repairs::{self, Answering, PostDeploy, Repair, Terms};
use crate::steps::Steps;
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
    let dead = wanted.into_iter().filter_map(|id| facts.get(id)).filter(|known| needs_vm(known));
    let repair = |known: &Known<'_>| {
        let (spec, agent) = (&known.instance.spec, AgentId::new(agents.next()));
        let mut steps = Steps::default();
        revive(&mut steps, known, &agent, &known.disks, Processes::Awaited);
        Repair {
            instance: spec.id.clone(),
            group: spec.group.clone(),
            label: label(spec),
            turn: 0,
            steps,
            agent: Answering::New(agent),
        }
    };
    let repairs = dead.map(repair).collect();
    let terms = Terms { max_in_flight: &BTreeMap::new(), post_deploy: PostDeploy::IfAnyEndedWell };
    repairs::plan(director, deployment, repairs, &terms)
}

/// Whether it is waited for that the jobs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processes {
    /// It is.
    Awaited,
    /// They are started, and that is that.
    Started,
}

fn needs_vm(known: &Known<'_>) -> bool {
    let dead = known.vm.is_none() || known.is_unresponsive();
    !known.instance.ignore && known.instance.expects_vm() && dead
}

/// Adds a new VM, with the instance's disks. The old VM goes first, whatever is left of it: two VMs with one disk would be
/// worse than none.
pub(crate) fn revive(
    steps: &mut Steps,
    known: &Known<'_>,
    agent: &AgentId,
    disks: &[&Disk],
    processes: Processes,
) {
    let id = &known.instance.spec.id;
    steps.push(Action::BeginUpdate { instance: id.clone() });
    for vm in known.vm.iter().chain(&known.stale_vms) {
        steps.push(Action::DeleteVm { instance: id.clone(), agent: vm.agent.clone() });
    }
    update::create_vm(steps, id, agent, disks.iter().copied());
    steps.apply(id, agent);
    steps.push(Action::SaveInstance { instance: id.clone() });
    match (known.instance.state, processes) {
        (InstanceState::Started, Processes::Awaited) => steps.start(id, agent, WatchKind::Update),
        (InstanceState::Started, Processes::Started) => steps.start_without_waiting(id, agent),
        (InstanceState::Stopped | InstanceState::Detached, _) => {}
    }
    steps.push(Action::CompleteUpdate { instance: id.clone() });
}
