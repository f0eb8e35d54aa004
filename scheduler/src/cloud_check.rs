//! Cloud check: what each resolution of a problem consists of.
//!
//! Problems of one instance come one after the other, its disks' first: what is decided of a disk decides whether a new VM
//! gets it. Not here: finding problems, and whether they are still there when their turn comes (`ConfirmProblem`).

use std::collections::{BTreeMap, BTreeSet};

use model::instance::Disk;
use model::plan::Plan;
use model::problem::{Fault, Resolution, Standing};
use model::step::{Action, Left};
use model::task::TaskError;
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::facts::{Facts, Known};
use crate::input::{DeploymentFacts, Director};
use crate::repairs::{self, Answering, PostDeploy, Repair, Terms};
use crate::resurrection::{self, Processes};
use crate::steps::Steps;

/// What was decided about a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The problem.
    pub problem: Standing,
    /// The name of the resolution; the automatic one if absent.
    pub resolution: Option<String>,
}

/// Who has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecidedBy<'a> {
    /// An operator, who may override the groups' `max_in_flight`. Post-deploy scripts run if nothing has failed.
    Operator(&'a BTreeMap<GroupName, String>),
    /// The resurrector. Post-deploy scripts run as soon as one problem is resolved.
    Resurrector,
}

/// Plans what is done about problems. One that can't be resolved does not keep the others from it.
pub fn plan_resolutions(
    director: &Director,
    deployment: &DeploymentFacts<'_>,
    decisions: &[Decision],
    decided_by: &DecidedBy<'_>,
) -> Result<Plan, TaskError> {
    let facts = Facts::of(deployment);
    let mut agents = SeededIds::new(deployment.seed, "agents");
    let mut decisions: Vec<&Decision> = decisions.iter().collect();
    let of_vm = |decision: &&Decision| decision.problem.problem.finding.fault.disk().is_none();
    decisions.sort_by_key(|decision| (of_vm(decision), decision.problem.problem.id));
    let given_up: BTreeSet<&DiskId> = decisions.iter().filter_map(|decision| gives_up(decision)).collect();
    let mut turns: BTreeMap<&InstanceId, usize> = BTreeMap::new();
    let mut repairs = Vec::with_capacity(decisions.len());
    for decision in decisions {
        let finding = &decision.problem.problem.finding;
        let turn = turns.entry(&finding.instance).or_default();
        let mut repair = Repair {
            instance: finding.instance.clone(),
            group: finding.group.clone(),
            label: label(decision),
            turn: *turn,
            steps: Steps::default(),
            agent: Answering::AsBefore,
        };
        *turn += 1;
        resolve(&mut repair, decision, facts.get(&finding.instance), &given_up, &mut agents);
        repairs.push(repair);
    }
    let none = BTreeMap::new();
    let (max_in_flight, post_deploy) = match decided_by {
        DecidedBy::Operator(overrides) => (*overrides, PostDeploy::IfAllEndedWell),
        DecidedBy::Resurrector => (&none, PostDeploy::IfAnyEndedWell),
    };
    repairs::plan(director, deployment, repairs, &Terms { max_in_flight, post_deploy })
}

fn chosen(decision: &Decision) -> Option<Resolution> {
    decision.problem.resolution(decision.resolution.as_deref())
}

/// Returns the disk that the instance does not have any more after the decision.
fn gives_up(decision: &Decision) -> Option<&DiskId> {
    let gives_up = matches!(chosen(decision)?, Resolution::DeleteDiskReference | Resolution::DeleteDisk);
    decision.problem.problem.finding.fault.disk().filter(|_| gives_up)
}

/// As BOSH words it.
fn label(decision: &Decision) -> String {
    let problem = &decision.problem.problem;
    let fault = &problem.finding.fault;
    let plan = match chosen(decision) {
        Some(resolution) => fault.plan(resolution),
        None => decision.resolution.as_deref().unwrap_or_default(),
    };
    format!("{} ({} {}): {plan}", decision.problem.description(), fault.type_name(), problem.id)
}

/// Adds the deeds.
fn resolve(
    repair: &mut Repair,
    decision: &Decision,
    known: Option<&Known<'_>>,
    given_up: &BTreeSet<&DiskId>,
    agents: &mut SeededIds,
) {
    let problem = &decision.problem.problem;
    let resolution = chosen(decision);
    if needs_look(&problem.finding.fault, resolution) {
        let resolution = decision.resolution.clone();
        repair.steps.push(Action::ConfirmProblem {
            problem: problem.id,
            instance: repair.instance.clone(),
            resolution: resolution.unwrap_or_else(|| decision.problem.automatic().name().to_owned()),
        });
    }
    if let (Some(resolution), Some(known)) = (resolution, known) {
        match problem.finding.fault.disk() {
            Some(disk) => of_disk(repair, resolution, known, disk),
            None => of_vm(repair, (&problem.finding.fault, resolution), known, given_up, agents),
        }
    }
    repair.steps.push(Action::CloseProblem { problem: problem.id });
}

/// Returns whether the problem is looked at once more before anything is done about it.
fn needs_look(fault: &Fault, resolution: Option<Resolution>) -> bool {
    match (fault, resolution) {
        // There is no such resolution: that is told when its turn comes.
        (_, None) => true,
        (_, Some(Resolution::Ignore | Resolution::Close)) => false,
        (Fault::UnresponsiveAgent { .. } | Fault::InactiveDisk { .. }, Some(_)) => true,
        (Fault::MissingVm { .. } | Fault::MissingDisk { .. } | Fault::MountInfoMismatch { .. }, Some(_)) => {
            false
        }
    }
}

fn of_vm(
    repair: &mut Repair,
    (fault, resolution): (&Fault, Resolution),
    known: &Known<'_>,
    given_up: &BTreeSet<&DiskId>,
    agents: &mut SeededIds,
) {
    let steps = &mut repair.steps;
    let instance = || repair.instance.clone();
    match resolution {
        Resolution::RecreateVm | Resolution::RecreateVmWithoutWait => {
            let agent = AgentId::new(agents.next());
            let processes = match resolution {
                Resolution::RecreateVm => Processes::Awaited,
                _ => Processes::Started,
            };
            let stay = known.disks.iter().filter(|disk| !given_up.contains(&disk.id));
            let disks: Vec<&Disk> = stay.copied().collect();
            resurrection::revive(steps, known, &agent, &disks, processes);
            repair.agent = Answering::New(agent);
        }
        Resolution::RebootVm => {
            if let Some(vm) = known.vm {
                reboot(steps, &repair.instance, &vm.agent);
                repair.agent = Answering::Again(vm.agent.clone());
            }
        }
        Resolution::DeleteVm => {
            for vm in known.vm.iter().chain(&known.stale_vms) {
                steps.push(Action::DeleteVm { instance: instance(), agent: vm.agent.clone() });
            }
            repair.agent = Answering::Nobody;
        }
        Resolution::DeleteVmReference => {
            // Of one that is missing the cloud has said that it is not there.
            let is_missing = matches!(fault, Fault::MissingVm { .. });
            let left = if is_missing { Left::Nothing } else { Left::Perhaps };
            if let Some(vm) = known.vm {
                steps.push(Action::ForgetVm { instance: instance(), agent: vm.agent.clone(), left });
            }
            repair.agent = Answering::Nobody;
        }
        _ => {}
    }
}

fn reboot(steps: &mut Steps, instance: &InstanceId, agent: &AgentId) {
    steps.push(Action::RebootVm { instance: instance.clone(), agent: agent.clone() });
    steps.push(Action::AwaitAgent { instance: instance.clone(), agent: agent.clone() });
}

fn of_disk(repair: &mut Repair, resolution: Resolution, known: &Known<'_>, disk: &DiskId) {
    let steps = &mut repair.steps;
    let row = known.all_disks().into_iter().find(|row| row.id == *disk);
    let name = row.and_then(|row| row.spec.name.as_ref());
    let (instance, disk) = (|| repair.instance.clone(), || disk.clone());
    match (resolution, known.vm) {
        (Resolution::DeleteDiskReference | Resolution::DeleteDisk, vm) => {
            if let Some(vm) = vm {
                let agent = || vm.agent.clone();
                // One that an instance works with may be mounted still; of another one it was made sure that it is not.
                if resolution == Resolution::DeleteDiskReference && name.is_none() {
                    let unmount = Action::UnmountDisk { instance: instance(), agent: agent(), disk: disk() };
                    steps.push_passing_over_failure(unmount);
                }
                let detach = Action::DetachDisk { instance: instance(), agent: agent(), disk: disk() };
                steps.push_passing_over_failure(detach);
            }
            steps.push(Action::OrphanDisk { instance: instance(), disk: disk() });
            if let (Some(vm), Some(_)) = (vm, name) {
                let (instance, agent) = (instance(), vm.agent.clone());
                steps.push_passing_over_failure(Action::UpdateSettings { instance, agent });
            }
        }
        (Resolution::ActivateDisk, _) => {
            steps.push(Action::ActivateDisk { instance: instance(), disk: disk() });
        }
        (Resolution::ReattachDisk | Resolution::ReattachDiskAndReboot, Some(vm)) => {
            steps.give(&repair.instance, &vm.agent, (&disk(), name));
            if resolution == Resolution::ReattachDiskAndReboot {
                reboot(steps, &repair.instance, &vm.agent);
            }
        }
        _ => {}
    }
}
