//! Looking for problems with VMs and disks: what agents say, and clouds where agents say nothing. Changes nothing but the
//! list of problems.
//!
//! A new leader looks anew. Lines that are there already are not written again.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::{Method, Mode, Request};
use cpi_api::CpiErrorKind;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::instance::{Disk, Instance, Vm};
use model::problem::{Fault, Finding};
use model::task::TaskError;
use model::{AgentId, DiskCid, ErrorCode, InstanceId, RequestId, VmCid};
use scheduler::input::AgentObservation;
use state::command::Command;
use state::log::Proposal;

use super::facts::Facts;
use super::lines::Lines;
use super::second_look::{self, Said};
use crate::context::TaskContext;
use crate::error::{Interrupted, StepError};

/// How long an agent may take to say what it has mounted.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long clouds may take to say of all VMs whether they are there, when somebody waits for the answer.
const CLOUDS_ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The same, for the resurrector: what is done next does not depend on it.
const CLOUDS_ANSWER_SOON: Duration = Duration::from_secs(10);

/// Agents asked at once.
const AGENTS_AT_ONCE: usize = 128;

/// Disks asked for at once.
const DISKS_AT_ONCE: usize = 8;

/// Findings in one entry of the log: some hundred bytes each.
const FINDINGS_AT_ONCE: usize = 500;

/// The two parts of each stage.
const PARTS: u32 = 2;

/// What is scanned.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All VMs and disks.
    Everything,
    /// The VMs of these instances. An agent that answers with an error counts as one that does not answer: whoever asks for
    /// this has missed its heartbeats.
    VmsOf(&'a [InstanceId]),
}

/// An instance that should have a VM, and how that is.
struct Scanned<'a> {
    instance: &'a Instance,
    vm: Option<&'a Vm>,
    state: VmState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VmState {
    Ok,
    Unresponsive,
    Missing,
    Ignored,
}

/// Who has which disk mounted.
type Mounts = BTreeMap<DiskCid, Vec<VmCid>>;

/// Looks for problems, and tells of it. The inner error is that of an agent or cloud that could not be asked.
pub async fn scan(
    context: &TaskContext,
    facts: &Facts,
    scope: Scope<'_>,
) -> Result<Result<Vec<Finding>, TaskError>, Interrupted> {
    let wanted = |instance: &&Instance| match scope {
        Scope::Everything => instance.expects_vm(),
        Scope::VmsOf(ids) => instance.expects_vm() && ids.contains(&instance.spec.id),
    };
    let instances: Vec<&Instance> = facts.instances().iter().filter(wanted).collect();
    let (stage, lines) = (format!("Scanning {} VMs", instances.len()), Lines::of(context, PARTS));
    const PART: &str = "Checking VM states";
    lines.started(&stage, PART, 1).await?;
    let scanned = match vm_states(context, facts, scope, instances).await? {
        Ok(scanned) => scanned,
        Err(error) => {
            lines.ended_badly(&stage, PART, 1, &error).await?;
            return Ok(Err(error));
        }
    };
    lines.finished(&stage, PART, 1).await?;
    lines.done(&stage, &summary_of_vms(&scanned), 2).await?;
    let mut findings: Vec<Finding> = scanned.iter().filter_map(problem_of_vm).collect();
    if matches!(scope, Scope::Everything) {
        match scan_disks(context, facts, &scanned).await? {
            Ok(found) => findings.extend(found),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(findings))
}

/// Files what was found, instead of what was found before.
pub async fn file(context: &TaskContext, scope: Scope<'_>, findings: &[Finding]) -> Result<(), Interrupted> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let among = match scope {
        Scope::Everything => None,
        Scope::VmsOf(ids) => Some(ids.to_vec()),
    };
    let none: &[Finding] = &[];
    let parts = if findings.is_empty() { vec![none] } else { findings.chunks(FINDINGS_AT_ONCE).collect() };
    for (part, findings) in (0u32..).zip(parts) {
        let among = among.clone();
        let found = Command::ProblemsFound { task, epoch, part, among, findings: findings.to_vec() };
        context.propose(Proposal::own(found)).await??;
    }
    Ok(())
}

async fn vm_states<'f>(
    context: &TaskContext,
    facts: &'f Facts,
    scope: Scope<'_>,
    instances: Vec<&'f Instance>,
) -> Result<Result<Vec<Scanned<'f>>, TaskError>, Interrupted> {
    let with_vm = |instance: &'f Instance| (instance, facts.current_vm(&instance.spec.id));
    let pairs: Vec<(&Instance, Option<&Vm>)> = instances.into_iter().map(with_vm).collect();
    let mut silent = Vec::new();
    for (instance, vm) in pairs.iter().filter(|(instance, _)| !instance.ignore) {
        match (facts.observed(&instance.spec.id), vm) {
            (Some(AgentObservation::Unresponsive { error }), Some(vm)) => {
                if matches!(scope, Scope::Everything) && error.code != ErrorCode::RpcTimeout.number() {
                    return Ok(Err(error.clone()));
                }
                silent.push(*vm);
            }
            (Some(AgentObservation::Answered { .. }) | None, _) | (_, None) => {}
        }
    }
    let within = match scope {
        Scope::Everything => CLOUDS_ANSWER_WITHIN,
        Scope::VmsOf(_) => CLOUDS_ANSWER_SOON,
    };
    let said = match silent.is_empty() {
        true => BTreeMap::new(),
        false => second_look::ask_clouds(context, &silent, within).await?,
    };
    let mut scanned = Vec::with_capacity(pairs.len());
    for (instance, vm) in pairs {
        let observed = facts.observed(&instance.spec.id);
        let state = match (vm, vm.and_then(|vm| said.get(&vm.agent))) {
            _ if instance.ignore => VmState::Ignored,
            (None, _) => VmState::Missing,
            (Some(_), _) if matches!(observed, Some(AgentObservation::Answered { .. })) => VmState::Ok,
            (Some(_), Some(Said::Gone)) => VmState::Missing,
            (Some(_), Some(Said::Failed(why))) if matches!(scope, Scope::Everything) => {
                let text = format!("nobody can say whether the VM of '{}' is there: {why}", instance.slug());
                return Ok(Err(TaskError::plain(text)));
            }
            (Some(_), _) => VmState::Unresponsive,
        };
        scanned.push(Scanned { instance, vm, state });
    }
    Ok(Ok(scanned))
}

fn summary_of_vms(scanned: &[Scanned<'_>]) -> String {
    let count = |state| scanned.iter().filter(|one| one.state == state).count();
    let ignored = match count(VmState::Ignored) {
        0 => String::new(),
        ignored => format!(", {ignored} ignored"),
    };
    // None is unbound: each VM has its instance from the moment on in which it is asked for.
    format!(
        "{} OK, {} unresponsive, {} missing, 0 unbound{ignored}",
        count(VmState::Ok),
        count(VmState::Unresponsive),
        count(VmState::Missing)
    )
}

fn problem_of_vm(scanned: &Scanned<'_>) -> Option<Finding> {
    let (agent, cid) = (scanned.vm.map(|vm| vm.agent.clone()), scanned.vm.and_then(|vm| vm.cid.clone()));
    let fault = match (scanned.state, agent) {
        (VmState::Ok | VmState::Ignored, _) => return None,
        (VmState::Unresponsive, Some(agent)) => Fault::UnresponsiveAgent { agent, cid },
        (VmState::Missing | VmState::Unresponsive, agent) => Fault::MissingVm { agent, cid },
    };
    Some(finding(scanned.instance, fault))
}

fn finding(instance: &Instance, fault: Fault) -> Finding {
    let spec = &instance.spec;
    Finding { instance: spec.id.clone(), group: spec.group.clone(), index: spec.index, fault }
}

/// How a disk is.
enum DiskState {
    Ok,
    Problem(Fault),
}

async fn scan_disks(
    context: &TaskContext,
    facts: &Facts,
    scanned: &[Scanned<'_>],
) -> Result<Result<Vec<Finding>, TaskError>, Interrupted> {
    let mounts = mounts(context, facts, scanned).await?;
    let mut disks: Vec<(&Instance, &Disk, &DiskCid)> = Vec::new();
    for disk in facts.disks() {
        let owner = facts.instances().iter().find(|i| i.spec.id == disk.instance && !i.ignore);
        // One without an id comes from a creation that was broken off: the next deploy looks for it and gives it up.
        if let (Some(owner), Some(cid)) = (owner, &disk.cid) {
            disks.push((owner, disk, cid));
        }
    }
    let (stage, lines) = (format!("Scanning {} persistent disks", disks.len()), Lines::of(context, PARTS));
    const PART: &str = "Looking for inactive disks";
    lines.started(&stage, PART, 1).await?;
    let mut questions: Vec<BoxFuture<'_, _>> = Vec::with_capacity(disks.len());
    for (_, disk, cid) in &disks {
        questions.push(exists(context, disk, cid).boxed());
    }
    let answers: Vec<Result<bool, StepError>> =
        futures::stream::iter(questions).buffered(DISKS_AT_ONCE).collect().await;
    context.fence.check()?;
    let (mut findings, mut states) = (Vec::new(), Vec::with_capacity(disks.len()));
    for ((owner, disk, cid), answer) in disks.into_iter().zip(answers) {
        let there = match answer {
            Ok(there) => there,
            Err(StepError::Lost(lost)) => return Err(lost.into()),
            Err(error) => {
                let error = TaskError::plain(error.to_string());
                lines.ended_badly(&stage, PART, 1, &error).await?;
                return Ok(Err(error));
            }
        };
        let vm = facts.current_vm(&owner.spec.id).and_then(|vm| vm.cid.clone());
        let state = state_of(disk, cid, there, vm, mounts.get(cid));
        if let DiskState::Problem(fault) = &state {
            findings.push(finding(owner, fault.clone()));
        }
        states.push(state);
    }
    lines.finished(&stage, PART, 1).await?;
    lines.done(&stage, &summary_of_disks(&states), 2).await?;
    Ok(Ok(findings))
}

fn state_of(
    disk: &Disk,
    cid: &DiskCid,
    there: bool,
    vm: Option<VmCid>,
    mounted_on: Option<&Vec<VmCid>>,
) -> DiskState {
    let (id, cid, size_mib) = (disk.id.clone(), cid.clone(), disk.spec.size_mib);
    let mounted_on = mounted_on.cloned().unwrap_or_default();
    match vm {
        _ if !there => DiskState::Problem(Fault::MissingDisk { disk: id, cid, size_mib }),
        _ if !disk.active => DiskState::Problem(Fault::InactiveDisk { disk: id, cid, size_mib }),
        // Only its jobs know whether one with a name is mounted, and whether it should be.
        Some(vm) if disk.spec.is_mounted() && mounted_on != [vm.clone()] => {
            DiskState::Problem(Fault::MountInfoMismatch { disk: id, cid, vm, mounted_on })
        }
        Some(_) | None => DiskState::Ok,
    }
}

fn summary_of_disks(states: &[DiskState]) -> String {
    let (mut ok, mut missing, mut inactive, mut mismatch) = (0, 0, 0, 0);
    for state in states {
        match state {
            DiskState::Problem(Fault::MissingDisk { .. }) => missing += 1,
            DiskState::Problem(Fault::InactiveDisk { .. }) => inactive += 1,
            DiskState::Problem(Fault::MountInfoMismatch { .. }) => mismatch += 1,
            DiskState::Problem(_) | DiskState::Ok => ok += 1,
        }
    }
    format!("{ok} OK, {missing} missing, {inactive} inactive, {mismatch} mount-info mismatch")
}

async fn exists(context: &TaskContext, disk: &Disk, cid: &DiskCid) -> Result<bool, StepError> {
    let cloud = context.cloud(&disk.cpi).map_err(StepError::Failed)?;
    let call = context.call("look", CLOUDS_ANSWER_WITHIN);
    let answer = tokio::time::timeout(CLOUDS_ANSWER_WITHIN, cloud.has_disk(&call, cid)).await;
    match answer {
        Ok(Ok(there)) => Ok(there),
        Ok(Err(error)) if error.kind == CpiErrorKind::NotImplemented => Ok(true),
        Ok(Err(error)) => Err(StepError::from_cpi(error, context.fence.epoch())),
        Err(_) => {
            Err(StepError::plain(format!("the cloud did not say in time whether disk '{cid}' is there")))
        }
    }
}

/// Asks the agents that answer what they have mounted. Of those that don't, the record is taken for true: so a dead VM is
/// one problem and not two.
async fn mounts(
    context: &TaskContext,
    facts: &Facts,
    scanned: &[Scanned<'_>],
) -> Result<Mounts, Interrupted> {
    let mut mounts = Mounts::new();
    let mut questions: Vec<BoxFuture<'_, (VmCid, Vec<DiskCid>)>> = Vec::new();
    for one in scanned {
        let Some((vm, cid)) = one.vm.and_then(|vm| Some((vm, vm.cid.clone()?))) else { continue };
        match one.state {
            VmState::Ok => questions.push(mounted(context, &vm.agent, cid).boxed()),
            VmState::Unresponsive | VmState::Missing => {
                let own = facts.disks().iter().filter(|d| d.instance == one.instance.spec.id && d.active);
                for disk in own.filter_map(|disk| disk.cid.clone()) {
                    mounts.entry(disk).or_default().push(cid.clone());
                }
            }
            VmState::Ignored => {}
        }
    }
    let answers: Vec<_> = futures::stream::iter(questions).buffered(AGENTS_AT_ONCE).collect().await;
    context.fence.check()?;
    for (vm, disks) in answers {
        for disk in disks {
            mounts.entry(disk).or_default().push(vm.clone());
        }
    }
    Ok(mounts)
}

async fn mounted(context: &TaskContext, agent: &AgentId, vm: VmCid) -> (VmCid, Vec<DiskCid>) {
    let request = Request {
        id: RequestId::new(format!("t{}-mounted-{}", context.id(), uuid::Uuid::new_v4())),
        epoch: context.fence.epoch(),
        mode: Mode::Submit,
        timeout: LIST_TIMEOUT,
        method: Method::ListDisk,
    };
    let disks = match context.ports.agents.call(agent, request).await {
        Ok(reply) => serde_json::from_value(reply.0).unwrap_or_default(),
        Err(error) => {
            context.debug(&format!("agent {agent} does not say what it has mounted: {error}"));
            Vec::new()
        }
    };
    (vm, disks)
}
