//! Dynamic disks: made, attached, detached, deleted; and what VMs and deployments that go do with theirs.
//!
//! Every deed is on record before a cloud is asked for it. Who takes a VM away detaches what is on record then, and not what its
//! plan knew; once the state knows that the VM goes, nothing else is attached to it. What somebody is about to attach is waited
//! for: two calls for one VM never cross.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{Method, Mode};
use cpi_api::{Cpi, CpiErrorKind, CreateDisk, Found, Metadata};
use model::dynamic_disk::{DiskMetadata, DynamicAttachment, DynamicDisk};
use model::instance::Vm;
use model::task::{TaskError, TaskKind};
use model::{AgentId, DiskCid, DynamicDiskName};
use serde_json::Value;
use state::State;
use state::command::{Command, Refusal};
use state::log::Proposal;
use state::records::{AgentHealth, DynamicDeed, LineState, Sought};

use super::calls::{CLOUD, QUICK};
use super::once::{self, Search};
use crate::context::StepContext;
use crate::error::{Interrupted, StepError, leaves_open};
use crate::prepare::Lines;
use crate::variables::{Resolver, Sight, StandIns};

/// How long the agent of a VM that goes may take to forget a disk.
const FORGET: Duration = Duration::from_secs(10);

// BOSH's words.
const STAGE: &str = "Deleting properties";
const DELETING: &str = "Deleting dynamic disks";

/// Returns a disk's row.
pub fn row(cx: &StepContext, name: &DynamicDiskName) -> Option<DynamicDisk> {
    let view = cx.task.view();
    State::new(&*view).dynamic_disk(name)
}

/// Has a deed recorded; the inner error is the state's refusal.
pub async fn record(
    cx: &StepContext,
    name: &DynamicDiskName,
    deed: DynamicDeed,
) -> Result<Result<(), Refusal>, StepError> {
    let (task, epoch) = (cx.task.id(), cx.task.fence.epoch());
    let command = Command::DynamicDisk { task, epoch, name: name.clone(), deed };
    Ok(cx.task.propose(Proposal::own(command)).await?.map(drop))
}

async fn must_record(cx: &StepContext, name: &DynamicDiskName, deed: DynamicDeed) -> Result<(), StepError> {
    Ok(record(cx, name, deed).await??)
}

/// Makes a disk whose row is there, near a VM; or finds the one that an earlier leader's call made.
pub async fn make(cx: &StepContext, disk: &DynamicDisk, beside: &Vm) -> Result<(), StepError> {
    let search = Search {
        cpi: &disk.cpi,
        sought: Sought::Disk(disk.id.clone()),
        what: format!(
            "a dynamic disk of {} MiB with the name '{}' and disk id {}",
            disk.size_mib, disk.name, disk.id
        ),
    };
    let making = async {
        let mut properties = Resolver::for_planning(&cx.task, Sight::DryRun(&StandIns::new()))
            .resolve(&disk.cloud_properties)?;
        if let Value::Object(properties) = &mut properties {
            properties.insert("name".into(), disk.name.as_str().into());
        }
        let request = CreateDisk {
            disk_id: disk.id.clone(),
            size_mib: disk.size_mib,
            cloud_properties: properties,
            vm: beside.cid.clone(),
        };
        let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.create_disk(&call, request).await };
        cx.cloud_raw(&disk.cpi, "create-dynamic-disk", None, call).await
    };
    match once::make(cx, search, making).await {
        Ok(cid) => {
            let made = DynamicDeed::Made { id: disk.id.clone(), cid: DiskCid::new(cid) };
            must_record(cx, &disk.name, made).await
        }
        // Nobody knows whether it is there: it keeps its row, by which whoever deletes it looks for it.
        Err(error @ (StepError::Unclear(_) | StepError::Lost(_) | StepError::Log(_))) => Err(error),
        Err(error) => {
            must_record(cx, &disk.name, DynamicDeed::Gone { id: disk.id.clone() }).await?;
            Err(error)
        }
    }
}

/// Tells the cloud of a disk, unless it has been told the same.
pub async fn describe(
    cx: &StepContext,
    disk: &DynamicDisk,
    metadata: Option<&DiskMetadata>,
) -> Result<(), StepError> {
    let (Some(cid), Some(metadata)) = (&disk.cid, metadata.filter(|wanted| **wanted != disk.metadata)) else {
        return Ok(());
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let told: Metadata = metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let cid = cid.clone();
    let answer = cx
        .cloud_raw(&disk.cpi, "set-dynamic-disk-metadata", None, |cpi, call| async move {
            cpi.set_disk_metadata(&call, &cid, &told).await
        })
        .await?;
    super::vm::optional(cx, answer)?;
    must_record(cx, &disk.name, DynamicDeed::Told { metadata: metadata.clone() }).await
}

/// Attaches a disk to an instance's VM, and tells its agent. Where it is attached already, the agent is told once more.
pub async fn attach(cx: &StepContext, name: &DynamicDiskName, vm: &Vm) -> Result<(), StepError> {
    let deed = DynamicDeed::Attach { agent: vm.agent.clone() };
    if let Err(refusal) = record(cx, name, deed).await? {
        return Err(StepError::plain(format!("dynamic disk '{name}' can't be attached: {refusal}")));
    }
    let gone = || StepError::plain(format!("dynamic disk '{name}' was deleted meanwhile"));
    let disk = row(cx, name).ok_or_else(gone)?;
    let (Some(cid), Some(vm_cid), Some(at)) = (disk.cid.clone(), vm.cid.clone(), disk.attached.clone())
    else {
        return Err(gone());
    };
    let hint = match at.hint {
        Some(hint) => hint,
        None => attach_in_cloud(cx, &disk, vm, (vm_cid, cid.clone())).await?,
    };
    let add = Method::AddDynamicDisk { disk: cid.clone(), hint };
    let part = format!("add-dynamic-disk-{cid}");
    cx.agent_raw(&vm.agent, &part, add, QUICK, Mode::Submit)
        .await?
        .map_err(|error| cx.told(error, &vm.instance))?;
    Ok(())
}

async fn attach_in_cloud(
    cx: &StepContext,
    disk: &DynamicDisk,
    vm: &Vm,
    (vm_cid, cid): (model::VmCid, DiskCid),
) -> Result<Value, StepError> {
    let version = Some(vm.stemcell.api_version);
    let answer = cx
        .cloud_raw(&vm.cpi, "attach-dynamic-disk", version, |cpi, call| async move {
            cpi.attach_disk(&call, &vm_cid, &cid).await
        })
        .await?;
    match answer {
        Ok(hint) => {
            let deed = DynamicDeed::Attached { agent: vm.agent.clone(), hint: hint.0.clone() };
            match record(cx, &disk.name, deed).await? {
                Ok(()) => Ok(hint.0),
                Err(refusal) => Err(StepError::plain(format!(
                    "dynamic disk '{}' was attached in vain: {refusal}",
                    disk.name
                ))),
            }
        }
        // It may be attached: that stays on record, and who asks again, or detaches it, finds out.
        Err(error) if leaves_open(&error) => Err(StepError::from_cpi(error, cx.task.fence.epoch())),
        Err(error) => {
            let told = StepError::from_cpi(error, cx.task.fence.epoch());
            if !matches!(told, StepError::Lost(_)) {
                // Clouds fail half way, too.
                detach_in_cloud(cx, disk, vm).await?;
                must_record(cx, &disk.name, DynamicDeed::Detached { agent: vm.agent.clone() }).await?;
            }
            Err(told)
        }
    }
}

/// Detaches a disk from the VM that has it, or may.
pub async fn detach(
    cx: &StepContext,
    disk: &DynamicDisk,
    at: &DynamicAttachment,
    agents: Agents,
) -> Result<(), StepError> {
    if let Some(vm) = cx.vm(&at.agent) {
        if let (Some(cid), false) = (&disk.cid, is_dead(cx, &at.agent)) {
            let forget = Method::RemoveDynamicDisk { disk: cid.clone() };
            let part = format!("remove-dynamic-disk-{cid}");
            let limit = if agents == Agents::MustAnswer { QUICK } else { FORGET };
            match cx.agent_raw(&at.agent, &part, forget, limit, Mode::Submit).await? {
                Ok(_) => {}
                Err(error) if agents == Agents::MustAnswer => return Err(cx.told(error, &at.instance)),
                Err(error) => {
                    let text =
                        format!("agent {} does not say that it forgets disk '{cid}': {error}", at.agent);
                    cx.task.debug(&text);
                }
            }
        }
        detach_in_cloud(cx, disk, &vm).await?;
    }
    must_record(cx, &disk.name, DynamicDeed::Detached { agent: at.agent.clone() }).await
}

/// Whether a disk is detached although the agent says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Agents {
    /// It is not.
    MustAnswer,
    /// It is: the VM goes.
    MayBeSilent,
}

fn is_dead(cx: &StepContext, agent: &AgentId) -> bool {
    let view = cx.task.view();
    State::new(&*view).agent(agent).is_none_or(|agent| agent.health == AgentHealth::Dead)
}

async fn detach_in_cloud(cx: &StepContext, disk: &DynamicDisk, vm: &Vm) -> Result<(), StepError> {
    let (Some(cid), Some(vm_cid)) = (disk.cid.clone(), vm.cid.clone()) else { return Ok(()) };
    let (version, part) = (Some(vm.stemcell.api_version), format!("detach-dynamic-disk-{cid}"));
    let answer =
        cx.cloud_raw(&vm.cpi, &part, version, |cpi, call| async move {
            cpi.detach_disk(&call, &vm_cid, &cid).await
        })
        .await?;
    match answer {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind,
                CpiErrorKind::DiskNotAttached | CpiErrorKind::DiskNotFound | CpiErrorKind::VmNotFound
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(StepError::from_cpi(error, cx.task.fence.epoch())),
    }
}

/// Deletes a disk. One of which nobody knows what came of its making is looked for.
pub async fn delete(cx: &StepContext, disk: &DynamicDisk) -> Result<(), StepError> {
    let cids = match &disk.cid {
        Some(cid) => vec![cid.clone()],
        None => found(cx, disk).await?,
    };
    for cid in cids {
        let (looked, part) = (cid.clone(), format!("has-disk-{cid}"));
        let answer = cx
            .cloud_raw(&disk.cpi, &part, None, |cpi, call| async move { cpi.has_disk(&call, &looked).await })
            .await?;
        match answer {
            Ok(false) => continue,
            Ok(true) => {}
            Err(error) if error.kind == CpiErrorKind::NotImplemented => {}
            Err(error) => return Err(StepError::from_cpi(error, cx.task.fence.epoch())),
        }
        let part = format!("delete-disk-{cid}");
        let answer = cx
            .cloud_raw(&disk.cpi, &part, None, |cpi, call| async move { cpi.delete_disk(&call, &cid).await })
            .await?;
        match answer {
            Ok(()) => {}
            Err(error) if error.kind == CpiErrorKind::DiskNotFound => {}
            Err(error) => return Err(StepError::from_cpi(error, cx.task.fence.epoch())),
        }
    }
    must_record(cx, &disk.name, DynamicDeed::Gone { id: disk.id.clone() }).await
}

/// Looks for what a call made whose answer was lost. What is not found may still come, and is looked for.
async fn found(cx: &StepContext, disk: &DynamicDisk) -> Result<Vec<DiskCid>, StepError> {
    let id = disk.id.clone();
    let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.find_disk(&call, &id).await };
    match cx.cloud(&disk.cpi, "find-disk", None, call).await? {
        Found::These(cids) => {
            if cids.is_empty() {
                once::may_appear(cx, &Sought::Disk(disk.id.clone())).await?;
            }
            Ok(cids)
        }
        Found::CannotTell => {
            let what = format!(
                "dynamic disk '{}' of {} MiB with disk id {}, created by a call whose answer was lost",
                disk.name, disk.size_mib, disk.id
            );
            cx.task.leaked(&format!("dynamic-{}", disk.id), what).await?;
            Ok(Vec::new())
        }
    }
}

/// A VM that is about to go, which the state knows: detaches what it has.
pub async fn let_go(cx: &StepContext, agent: &AgentId) -> Result<(), StepError> {
    let on = |state: &State<'_>| state.dynamic_disks_on(agent);
    let limit = tokio::time::Instant::now() + CLOUD;
    until(cx, limit, |state| {
        let attachments = on(state).into_iter().filter_map(|disk| disk.attached);
        let is_at_work =
            |at: &DynamicAttachment| at.hint.is_none() && at.task != cx.task.id() && state.is_open(at.task);
        !attachments.into_iter().any(|at| is_at_work(&at))
    })
    .await?;
    let disks = {
        let view = cx.task.view();
        on(&State::new(&*view))
    };
    for disk in disks {
        if let Some(at) = &disk.attached {
            detach(cx, &disk, at, Agents::MayBeSilent).await?;
        }
    }
    Ok(())
}

/// As [`let_go`], for a VM of which the state does not know yet that it goes.
pub async fn part_with(cx: &StepContext, agent: &AgentId) -> Result<(), StepError> {
    // Where members do not know dynamic disks, there are none.
    if cx.task.knows_third_level() {
        let (task, epoch) = (cx.task.id(), cx.task.fence.epoch());
        let leaves = Command::VmLeaves { task, epoch, agent: agent.clone() };
        cx.propose(Proposal::own(leaves)).await?;
        let_go(cx, agent).await?;
    }
    Ok(())
}

/// The deployment is about to go, its VMs are gone: deletes its disks. What can't be deleted becomes an orphan, if the deletion
/// is forced.
pub async fn delete_with_deployment(cx: &StepContext) -> Result<(), StepError> {
    let deployment = cx.task.task.deployment.clone().unwrap_or_default();
    let all = || {
        let view = cx.task.view();
        State::new(&*view).dynamic_disks_of(&deployment)
    };
    let lines = Lines::of(&cx.task, 0);
    if all().is_empty() {
        if lines.seen(STAGE, DELETING) == Some(LineState::Started) {
            lines.finished(STAGE, DELETING, 1).await?;
        }
        return Ok(());
    }
    lines.started(STAGE, DELETING, 1).await?;
    let limit = tokio::time::Instant::now() + CLOUD;
    until(cx, limit, |state| {
        let disks = state.dynamic_disks_of(&deployment);
        !disks.iter().any(|disk| disk.cid.is_none() && state.is_open(disk.task))
    })
    .await?;
    let is_forced = matches!(cx.task.task.kind, TaskKind::DeleteDeployment { force: true });
    for disk in all() {
        match delete(cx, &disk).await {
            Ok(()) => {}
            Err(StepError::Failed(error) | StepError::Again(error) | StepError::Unclear(error))
                if is_forced =>
            {
                cx.task.debug(&format!("dynamic disk '{}' becomes an orphan: {error}", disk.name));
                must_record(cx, &disk.name, DynamicDeed::Orphaned { id: disk.id.clone() }).await?;
            }
            Err(error) => {
                let told = TaskError::plain(error.to_string());
                if !matches!(error, StepError::Lost(_) | StepError::Log(_)) {
                    lines.ended_badly(STAGE, DELETING, 1, &told).await?;
                }
                return Err(error);
            }
        }
    }
    lines.finished(STAGE, DELETING, 1).await?;
    Ok(())
}

/// Waits until the state is so, or for as long as a cloud may take for a call.
async fn until(
    cx: &StepContext,
    limit: tokio::time::Instant,
    is_so: impl Fn(&State<'_>) -> bool,
) -> Result<(), Interrupted> {
    loop {
        let revision = cx.task.ports.log.revision();
        let is_so = {
            let view = cx.task.view();
            is_so(&State::new(&*view))
        };
        if is_so {
            return Ok(());
        }
        tokio::select! {
            _ = cx.task.ports.log.changed(revision) => {}
            () = tokio::time::sleep_until(limit) => return Ok(()),
            lost = cx.task.fence.lost() => return Err(lost.into()),
        }
    }
}
