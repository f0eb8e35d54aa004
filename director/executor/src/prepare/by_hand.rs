//! What operators do to single disks and VMs, from a cloud's id to a plan.

use std::future::Future;
use std::time::Duration;

use cpi_api::{CpiError, CpiErrorKind};
use model::instance::Disk;
use model::task::{InstanceFilter, TaskError, TaskKind};
use model::{CpiName, DeploymentName, DiskCid, ErrorCode, VmCid};
use scheduler::AttachRequest;
use state::State;

use super::facts::Facts;
use super::{Lines, Prepared, boxed};
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::lease::Lost;

/// How long a cloud may take to say whether a disk is there.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Returns how a task of this kind that ended well is told, in BOSH's words.
pub fn told(kind: &TaskKind, deployment: Option<&DeploymentName>) -> Option<String> {
    match kind {
        TaskKind::OrphanDisk { cid } => Some(format!("disk {cid} orphaned")),
        TaskKind::AttachDisk { instance, cid, .. } => {
            let (slug, deployment) = (instance.slug(), deployment.cloned().unwrap_or_default());
            Some(format!("attached disk '{cid}' to '{slug}' in deployment '{deployment}'"))
        }
        TaskKind::DeleteVm { cid } => Some(format!("vm {cid} deleted")),
        _ => None,
    }
}

/// Plans `orphan-disk`. A disk that no instance has is passed over with a warning, as in BOSH.
pub async fn orphan_disk(
    context: &TaskContext,
    cid: &DiskCid,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let facts = observed(context).await?;
    match scheduler::plan_orphan_disk(&facts.deployment(), cid) {
        Ok(Some(plan)) => Ok(Ok(boxed(plan))),
        Ok(None) => {
            Lines::new(context).done("Orphan disk", cid.as_str(), 1).await?;
            Ok(Ok(boxed(scheduler::plan_warning(format!("Disk {cid} does not exist. Orphaning is skipped")))))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// Plans `attach-disk`.
pub async fn attach_disk(
    context: &TaskContext,
    instance: &InstanceFilter,
    cid: &DiskCid,
    copy_properties: bool,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let facts = observed(context).await?;
    let (orphan, holder) = whose(context, cid);
    let orphan = orphan.as_ref().map(|disk| (&disk.id, disk.spec.name.as_ref()));
    let request = AttachRequest { instance, cid, orphan, copy_properties };
    let plan = match scheduler::plan_attach_disk(&facts.deployment(), &request) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            return Ok(Ok(Prepared::Nothing(told(&context.task.kind, context.task.deployment.as_ref()))));
        }
        Err(error) => return Ok(Err(error)),
    };
    if let Some(holder) = holder {
        let text = format!(
            "Disk '{cid}' is used by instance '{holder}': orphan it there first (`orphan-disk {cid}`)"
        );
        return Ok(Err(TaskError::new(ErrorCode::AttachDiskError, text)));
    }
    if orphan.is_none()
        && let Some(target) = plan.targets.first()
        && let Err(error) = must_exist(context, &target.spec.cpi, cid).await?
    {
        return Ok(Err(error));
    }
    Ok(Ok(boxed(plan)))
}

/// Plans `delete-vm`.
pub async fn delete_vm(
    context: &TaskContext,
    cid: &VmCid,
) -> Result<Result<Prepared, TaskError>, Interrupted> {
    let facts = Facts::read(context);
    if let Some(plan) = scheduler::plan_delete_vm(&facts.deployment(), cid) {
        return Ok(Ok(boxed(plan)));
    }
    let (orphan, holder) = {
        let view = context.view();
        let state = State::new(&*view);
        let orphans = state.orphaned_vms().into_iter();
        let orphan = orphans.map(|orphan| orphan.vm).find(|vm| vm.cid.as_ref() == Some(cid));
        (orphan.map(|vm| vm.agent), state.vm_by_cid(cid).map(|vm| vm.instance))
    };
    if let Some(holder) = holder {
        let text = format!("VM '{cid}' has become the VM of instance {holder} meanwhile: look again");
        return Ok(Err(TaskError::plain(text)));
    }
    if let Some(agent) = orphan {
        return Ok(Ok(boxed(scheduler::plan_orphaned_vms(&[(agent, Some(cid.clone()))]))));
    }
    let cloud = cloud_of(context, cid).await?;
    Ok(cloud.map(|cloud| boxed(scheduler::plan_delete_foreign_vm(cid, &cloud))))
}

async fn observed(context: &TaskContext) -> Result<Facts, Interrupted> {
    let mut facts = Facts::read(context);
    facts.observe(context).await?;
    Ok(facts)
}

/// Returns the orphan that a disk is, or the name of the instance that has it.
fn whose(context: &TaskContext, cid: &DiskCid) -> (Option<Disk>, Option<String>) {
    let view = context.view();
    let state = State::new(&*view);
    let is_it = |disk: &Disk| disk.cid.as_ref() == Some(cid);
    let orphan = state.orphaned_disks().into_iter().find(|orphan| is_it(&orphan.disk));
    let slug = |disk: Disk| {
        let owner = state.instance(&disk.instance);
        owner.map_or_else(|| disk.instance.to_string(), |owner| owner.slug())
    };
    (orphan.map(|orphan| orphan.disk), state.disk_by_cid(cid).map(slug))
}

/// Fails unless the cloud has the disk: a wrong id is better told now than by the start that needs it.
async fn must_exist(
    context: &TaskContext,
    cpi: &CpiName,
    cid: &DiskCid,
) -> Result<Result<(), TaskError>, Interrupted> {
    let cloud = match context.cloud(cpi) {
        Ok(cloud) => cloud,
        Err(none) => return Ok(Err(none)),
    };
    let call = context.call("look", ANSWERED_WITHIN);
    Ok(match in_time(context, "has_disk", cloud.has_disk(&call, cid)).await? {
        Ok(true) => Ok(()),
        // It can't be asked: the cloud will say so when the disk is attached.
        Err(error) if error.kind == CpiErrorKind::NotImplemented => Ok(()),
        Ok(false) => {
            let text = format!("Disk '{cid}' does not exist");
            Err(TaskError::new(ErrorCode::AttachDiskError, text))
        }
        Err(error) => Err(TaskError::plain(error.to_string())),
    })
}

/// Finds the cloud of a VM that nobody here knows. One that no cloud has is anybody's to delete: there is nothing to do.
async fn cloud_of(context: &TaskContext, cid: &VmCid) -> Result<Result<CpiName, TaskError>, Interrupted> {
    let mut names = context.ports.cpis.names();
    if names.len() <= 1 {
        return Ok(Ok(names.pop().unwrap_or_default()));
    }
    let mut unasked = Vec::new();
    for name in &names {
        let cloud = match context.cloud(name) {
            Ok(cloud) => cloud,
            Err(none) => {
                unasked.push(none.message);
                continue;
            }
        };
        let call = context.call("look", ANSWERED_WITHIN);
        match in_time(context, "has_vm", cloud.has_vm(&call, cid)).await? {
            Ok(true) => return Ok(Ok(name.clone())),
            Ok(false) => {}
            Err(error) => unasked.push(format!("CPI '{name}': {error}")),
        }
    }
    if unasked.is_empty() {
        return Ok(Ok(names.swap_remove(0)));
    }
    let text = format!(
        "VM '{cid}' is in none of the clouds that answered, and these did not say whether they have it: {}",
        unasked.join("; ")
    );
    Ok(Err(TaskError::plain(text)))
}

/// Waits for a cloud's answer, no longer than it may take, and only while this replica leads.
async fn in_time(
    context: &TaskContext,
    method: &'static str,
    answer: impl Future<Output = Result<bool, CpiError>>,
) -> Result<Result<bool, CpiError>, Interrupted> {
    context.fence.check()?;
    let answer = tokio::select! {
        answer = tokio::time::timeout(ANSWERED_WITHIN, answer) => answer,
        lost = context.fence.lost() => return Err(lost.into()),
    };
    let late = || {
        let why = format!("no answer within {} s", ANSWERED_WITHIN.as_secs());
        CpiError::new(CpiErrorKind::TimedOut, method, why)
    };
    match answer.unwrap_or_else(|_| Err(late())) {
        Err(error) if error.kind == CpiErrorKind::Fenced => Err(Lost { epoch: context.fence.epoch() }.into()),
        other => Ok(other),
    }
}
