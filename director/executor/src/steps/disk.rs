//! Persistent disks: create, attach, mount, copy, detach.

use std::sync::Arc;

use agent_api::{Method, Reply};
use cpi_api::{Cpi, CpiErrorKind, CreateDisk, Found};
use model::instance::Disk;
use model::plan::OnFailure;
use model::step::StepOutcome;
use model::{AgentId, DiskCid, DiskId, DiskName, ErrorCode, InstanceId};
use state::State;
use state::records::Sought;

use super::calls::{INSTALL, QUICK, SCRIPT};
use super::once::{self, Search};
use super::snapshot;
use super::vm::{base_metadata, optional};
use crate::context::StepContext;
use crate::error::StepError;
use crate::rfc3339::rfc3339;
use crate::variables::Resolver;

fn row(cx: &StepContext, disk: &DiskId) -> Result<Disk, StepError> {
    let view = cx.task.view();
    State::new(&*view).disk(disk).ok_or_else(|| StepError::plain(format!("disk {disk} is not known")))
}

pub(super) fn row_with_cid(cx: &StepContext, disk: &DiskId) -> Result<(Disk, DiskCid), StepError> {
    let row = row(cx, disk)?;
    let cid = row.cid.clone().ok_or_else(|| StepError::plain(format!("disk {disk} was never created")))?;
    Ok((row, cid))
}

/// Creates the disk that the instance should have under a name, or adopts the one that an earlier leader's call made.
pub async fn create(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    (disk, name): (&DiskId, Option<&DiskName>),
) -> Result<StepOutcome, StepError> {
    let target = cx.task.target(instance)?;
    let wanted = target.spec.disk(name).cloned().ok_or_else(|| {
        StepError::plain(format!(
            "the plan of '{}' creates a disk that its spec does not have",
            cx.slug(instance)
        ))
    })?;
    let spec = &target.spec;
    let search = Search {
        cpi: &spec.cpi,
        sought: Sought::Disk(disk.clone()),
        what: format!(
            "a disk of {} MiB for '{}/{}' with disk id {disk}",
            wanted.size_mib, spec.group, spec.id
        ),
    };
    let making = async {
        let (_, vm_cid) = cx.vm_with_cid(agent, instance)?;
        let request = CreateDisk {
            disk_id: disk.clone(),
            size_mib: wanted.size_mib,
            cloud_properties: Resolver::for_instance(&cx.task, instance).resolve(&wanted.cloud_properties)?,
            vm: Some(vm_cid),
        };
        let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.create_disk(&call, request).await };
        cx.cloud_raw(&spec.cpi, "create-disk", None, call).await
    };
    let cid = once::make(cx, search, making).await?;
    Ok(StepOutcome::DiskCreated { cid: DiskCid::new(cid) })
}

/// Attaches the disk and tells the agent where it is.
pub async fn attach(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    disk: &DiskId,
) -> Result<StepOutcome, StepError> {
    let (vm, vm_cid) = cx.vm_with_cid(agent, instance)?;
    let (_, disk_cid) = row_with_cid(cx, disk)?;
    let version = Some(vm.stemcell.api_version);
    let wanted = disk_cid.clone();
    let hint = cx
        .cloud(&vm.cpi, "attach-disk", version, |cpi, call| async move {
            cpi.attach_disk(&call, &vm_cid, &wanted).await
        })
        .await?;
    let add = Method::AddPersistentDisk { disk: disk_cid, hint: hint.0 };
    cx.agent(agent, instance, "add-disk", add, QUICK).await?;
    Ok(StepOutcome::Done)
}

/// Writes whose disk it is into the cloud's metadata.
pub async fn set_metadata(
    cx: &StepContext,
    instance: &InstanceId,
    disk: &DiskId,
) -> Result<StepOutcome, StepError> {
    let target = cx.task.target(instance)?;
    let (row, cid) = row_with_cid(cx, disk)?;
    let mut metadata = base_metadata(cx, &target.spec);
    metadata.remove("id");
    metadata.insert("instance_id".into(), instance.to_string());
    metadata.insert("instance_index".into(), target.spec.index.to_string());
    metadata.insert("attached_at".into(), rfc3339(cx.task.task.updated_at.seconds()));
    let answer = cx
        .cloud_raw(&row.cpi, "set-disk-metadata", None, |cpi, call| async move {
            cpi.set_disk_metadata(&call, &cid, &metadata).await
        })
        .await?;
    optional(cx, answer)
}

/// Mounts an attached disk.
pub async fn mount(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    disk: &DiskId,
) -> Result<StepOutcome, StepError> {
    let (_, cid) = row_with_cid(cx, disk)?;
    cx.agent(agent, instance, "mount", Method::MountDisk { disk: cid }, INSTALL).await?;
    Ok(StepOutcome::Done)
}

/// Copies the old disk to the new one. A repeat first looks whether the agent has already moved over.
pub async fn migrate(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    from: &DiskId,
    to: &DiskId,
) -> Result<StepOutcome, StepError> {
    let (_, old) = row_with_cid(cx, from)?;
    let (_, new) = row_with_cid(cx, to)?;
    if cx.is_repeat() {
        let mounted = mounted(cx, instance, agent).await?;
        match (mounted.contains(&old), mounted.contains(&new)) {
            (false, true) => return Ok(StepOutcome::Done),
            (true, true) => {}
            _ => {
                return Err(StepError::coded(
                    ErrorCode::AgentDiskOutOfSync,
                    format!(
                        "the copy of disk '{old}' to '{new}' on '{}' was broken off and neither is in its place: look at \
                         both before you deploy again; nothing was deleted",
                        cx.slug(instance)
                    ),
                ));
            }
        }
    }
    cx.agent(agent, instance, "migrate", Method::MigrateDisk { from: old, to: new }, SCRIPT).await?;
    Ok(StepOutcome::Done)
}

async fn mounted(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<Vec<DiskCid>, StepError> {
    Ok(listed(cx.agent(agent, instance, "list-disk", Method::ListDisk, QUICK).await?))
}

/// Returns the disks that an agent says it has mounted.
pub(super) fn listed(reply: Reply) -> Vec<DiskCid> {
    serde_json::from_value(reply.0).unwrap_or_default()
}

/// Compares what the agent has mounted with the record, and puts a disk back that it has lost.
pub async fn check(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<StepOutcome, StepError> {
    let active = {
        let view = cx.task.view();
        State::new(&*view).disks(instance).into_iter().find(|d| d.active && d.spec.is_mounted())
    };
    let Some(active) = active else {
        return Ok(StepOutcome::Done);
    };
    let mounted = mounted(cx, instance, agent).await?;
    match (&active.cid, mounted.as_slice()) {
        (Some(cid), mounted) if mounted.contains(cid) => Ok(StepOutcome::Done),
        (Some(_), []) => {
            attach(cx, instance, agent, &active.id).await?;
            mount(cx, instance, agent, &active.id).await
        }
        (cid, mounted) => Err(StepError::coded(
            ErrorCode::AgentDiskOutOfSync,
            format!(
                "'{}' should have disk '{}' mounted, its agent has '{}'",
                cx.slug(instance),
                cid.as_ref().map_or("none", |c| c.as_str()),
                mounted.iter().map(|d| d.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// Unmounts the disk.
pub async fn unmount(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    disk: &DiskId,
) -> Result<StepOutcome, StepError> {
    let (row, cid) = row_with_cid(cx, disk)?;
    // A leftover may never have got so far as to be mounted; agents know nothing of disks that they were not given.
    if !row.active && !mounted(cx, instance, agent).await?.contains(&cid) {
        return Ok(StepOutcome::Done);
    }
    // Where the unit goes on without it, nobody waits long for an agent that is away.
    let patience = if cx.on_failure == OnFailure::GoOn { QUICK } else { INSTALL };
    cx.agent(agent, instance, "unmount", Method::UnmountDisk { disk: cid }, patience).await?;
    Ok(StepOutcome::Done)
}

/// Makes the agent forget the disk and detaches it.
pub async fn detach(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    disk: &DiskId,
) -> Result<StepOutcome, StepError> {
    let (row, disk_cid) = row_with_cid(cx, disk)?;
    let forget = Method::RemovePersistentDisk { disk: disk_cid.clone() };
    cx.agent(agent, instance, "remove-disk", forget, QUICK).await?;
    let (vm, vm_cid) = cx.vm_with_cid(agent, instance)?;
    let version = Some(vm.stemcell.api_version);
    let answer = cx
        .cloud_raw(&vm.cpi, "detach-disk", version, |cpi, call| async move {
            cpi.detach_disk(&call, &vm_cid, &disk_cid).await
        })
        .await?;
    match answer {
        Ok(()) => Ok(StepOutcome::Done),
        // Already detached, by an earlier leader's call; or it is a leftover that never got so far as to be attached.
        Err(error) if error.kind == CpiErrorKind::DiskNotAttached && (cx.is_repeat() || !row.active) => {
            Ok(StepOutcome::Done)
        }
        Err(error) => Err(StepError::from_cpi(error, cx.task.fence.epoch())),
    }
}

/// Deletes an orphaned disk for good, its snapshots first: they are kept as long as it is.
pub async fn delete_orphaned(cx: &StepContext, disk: &DiskId) -> Result<StepOutcome, StepError> {
    let orphan = {
        let view = cx.task.view();
        State::new(&*view).orphaned_disk(disk)
    };
    let Some(orphan) = orphan else {
        return Ok(StepOutcome::Done);
    };
    snapshot::delete_all_of(cx, disk).await?;
    let cids = match orphan.disk.cid {
        Some(cid) => vec![cid],
        // Its creation was broken off, and nobody could be asked what came of it.
        None => {
            let id = disk.clone();
            let call = |cpi: Arc<dyn Cpi>, call| async move { cpi.find_disk(&call, &id).await };
            match cx.cloud(&orphan.disk.cpi, "find-disk", None, call).await? {
                Found::These(cids) => cids,
                Found::CannotTell => {
                    let what = format!(
                        "disk of {} MiB with disk id {disk} of '{}', created by a call whose answer was lost",
                        orphan.disk.spec.size_mib, orphan.slug
                    );
                    return Ok(StepOutcome::MayHaveLeaked { what });
                }
            }
        }
    };
    if cids.is_empty() {
        once::may_appear(cx, &Sought::Disk(disk.clone())).await?;
    }
    for cid in cids {
        let answer = cx
            .cloud_raw(&orphan.disk.cpi, "delete-disk", None, |cpi, call| async move {
                cpi.delete_disk(&call, &cid).await
            })
            .await?;
        match answer {
            Ok(()) => {}
            Err(error) if error.kind == CpiErrorKind::DiskNotFound => {}
            Err(error) => return Err(StepError::from_cpi(error, cx.task.fence.epoch())),
        }
    }
    Ok(StepOutcome::Done)
}
