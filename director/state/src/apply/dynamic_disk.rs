//! Dynamic disks: filed before a cloud is asked, attached only to VMs that stay, and gone with their deployment.
//!
//! A task holds the lock of a disk's name while it works on it. Who takes a VM away does not: what it detaches is on record,
//! and from the moment on in which the state knows that the VM goes, nothing else is attached to it.

use model::dynamic_disk::{DynamicAttachment, DynamicDisk};
use model::instance::{Disk, DiskSpec, Vm};
use model::*;

use super::event::{Audit, audit};
use super::task::working;
use super::tx::{Tx, invalid, not_found};
use crate::command::{Outcome, Refusal, THIRD_LEVEL};
use crate::records::{DynamicDeed, OrphanedDisk};
use crate::rows::TaskRow;
use crate::tables::*;

const DISK: &str = "dynamic disk";

/// `DynamicDisk`.
pub(super) fn deed(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    name: &DynamicDiskName,
    deed: &DynamicDeed,
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    match deed {
        DynamicDeed::Make { disk, beside } => make(tx, &task, name, disk, beside)?,
        DynamicDeed::Made { id, cid } => made(tx, &task, name, (id, cid))?,
        DynamicDeed::Gone { id } => {
            if let Some(gone) = remove(tx, name, id).filter(|gone| gone.cid.is_some()) {
                tell(tx, &task, "delete", &gone, None);
            }
        }
        DynamicDeed::Orphaned { id } => {
            if let Some(gone) = remove(tx, name, id) {
                tell(tx, &task, "orphan", &gone, None);
                let orphan = as_orphan(tx, gone);
                tx.put(&ORPHANED_DISKS, id, &orphan);
            }
        }
        DynamicDeed::Told { metadata } => {
            let disk = tx.need(&DYNAMIC_DISKS, name, DISK)?;
            tx.put(&DYNAMIC_DISKS, name, &DynamicDisk { metadata: metadata.clone(), ..disk });
        }
        DynamicDeed::Attach { agent } => attach(tx, &task, name, agent)?,
        DynamicDeed::Attached { agent, hint } => attached(tx, &task, name, (agent, hint))?,
        DynamicDeed::Detached { agent } => {
            let disk = tx.get(&DYNAMIC_DISKS, name);
            let has_it = |disk: &DynamicDisk| disk.attached.as_ref().is_some_and(|at| at.agent == *agent);
            if let Some(disk) = disk.filter(has_it) {
                detach(tx, Some(&task), disk);
            }
        }
    }
    Ok(Outcome::Done)
}

fn make(
    tx: &mut Tx<'_>,
    task: &TaskRow,
    name: &DynamicDiskName,
    wanted: &DynamicDisk,
    beside: &AgentId,
) -> Result<(), Refusal> {
    match tx.get(&DYNAMIC_DISKS, name) {
        Some(known) if known.id == wanted.id && known.task == task.id => return Ok(()),
        Some(_) => return Err(Refusal::Exists { what: DISK.into(), name: name.to_string() }),
        None => {}
    }
    let vm = tx.need(&VMS, beside, "VM of agent")?;
    let of = tx.get(&INSTANCES, &vm.instance).map(|instance| instance.spec.deployment);
    if !vm.active || of.as_ref() != Some(&wanted.deployment) || !tx.has(&DEPLOYMENTS, &wanted.deployment) {
        let reason = format!("no instance of deployment {} works with VM {beside}", wanted.deployment);
        return Err(invalid(format!("{DISK} {name}"), reason));
    }
    let (name, task, created_at) = (name.clone(), task.id, tx.at);
    let disk = DynamicDisk { name, task, created_at, cid: None, attached: None, ..wanted.clone() };
    tx.put(&DYNAMIC_DISKS, &disk.name, &disk);
    Ok(())
}

fn made(
    tx: &mut Tx<'_>,
    task: &TaskRow,
    name: &DynamicDiskName,
    (id, cid): (&DiskId, &DiskCid),
) -> Result<(), Refusal> {
    let disk = tx.need(&DYNAMIC_DISKS, name, DISK)?;
    if disk.id != *id {
        return Err(not_found(DISK, id.as_str()));
    }
    if disk.cid.as_ref() != Some(cid) {
        let disk = DynamicDisk { cid: Some(cid.clone()), ..disk };
        tx.put(&DYNAMIC_DISKS, name, &disk);
        tell(tx, task, "create", &disk, None);
    }
    Ok(())
}

/// Takes the row away, unless it is another one by now.
fn remove(tx: &mut Tx<'_>, name: &DynamicDiskName, id: &DiskId) -> Option<DynamicDisk> {
    let disk = tx.get(&DYNAMIC_DISKS, name).filter(|disk| disk.id == *id)?;
    if let Some(at) = &disk.attached {
        tx.delete(&DYNAMIC_DISKS_ON, &(at.agent.clone(), name.clone()));
    }
    tx.delete(&DYNAMIC_DISKS, name);
    Some(disk)
}

fn attach(tx: &mut Tx<'_>, task: &TaskRow, name: &DynamicDiskName, agent: &AgentId) -> Result<(), Refusal> {
    let disk = tx.need(&DYNAMIC_DISKS, name, DISK)?;
    let hint = match &disk.attached {
        Some(at) if at.agent != *agent => {
            let by = format!("instance {}", at.instance);
            return Err(Refusal::InUse { what: DISK.into(), name: name.to_string(), by });
        }
        Some(at) => at.hint.clone(),
        None => None,
    };
    if disk.cid.is_none() {
        return Err(invalid(format!("{DISK} {name}"), "it has not been made"));
    }
    let vm = tx.need(&VMS, agent, "VM of agent")?;
    if !vm.active || vm.cid.is_none() {
        return Err(invalid(format!("{DISK} {name}"), format!("no instance works with VM {agent}")));
    }
    let is_there = hint.is_some();
    if let Some(by) = tx.state().leaving(agent).filter(|_| !is_there) {
        return Err(Refusal::InUse {
            what: "VM of agent".into(),
            name: agent.to_string(),
            by: format!("task {by}"),
        });
    }
    let attached = DynamicAttachment { instance: vm.instance, agent: agent.clone(), task: task.id, hint };
    tx.put(&DYNAMIC_DISKS, name, &DynamicDisk { attached: Some(attached), ..disk });
    tx.put(&DYNAMIC_DISKS_ON, &(agent.clone(), name.clone()), &());
    Ok(())
}

fn attached(
    tx: &mut Tx<'_>,
    task: &TaskRow,
    name: &DynamicDiskName,
    (agent, hint): (&AgentId, &serde_json::Value),
) -> Result<(), Refusal> {
    let disk = tx.need(&DYNAMIC_DISKS, name, DISK)?;
    let Some(at) = disk.attached.clone().filter(|at| at.agent == *agent) else {
        return Err(invalid(format!("{DISK} {name}"), format!("VM {agent} has lost it meanwhile")));
    };
    if at.hint.as_ref() == Some(hint) {
        return Ok(());
    }
    let instance = at.instance.clone();
    let attached = Some(DynamicAttachment { hint: Some(hint.clone()), ..at });
    let disk = DynamicDisk { attached, ..disk };
    tx.put(&DYNAMIC_DISKS, name, &disk);
    tell(tx, task, "attach", &disk, Some(&instance));
    Ok(())
}

fn detach(tx: &mut Tx<'_>, task: Option<&TaskRow>, disk: DynamicDisk) {
    let Some(at) = disk.attached.clone() else { return };
    tx.delete(&DYNAMIC_DISKS_ON, &(at.agent, disk.name.clone()));
    let disk = DynamicDisk { attached: None, ..disk };
    tx.put(&DYNAMIC_DISKS, &disk.name.clone(), &disk);
    if let Some(task) = task.filter(|_| at.hint.is_some()) {
        tell(tx, task, "detach", &disk, Some(&at.instance));
    }
}

/// `VmLeaves`: a task is about to take a VM away from its instance.
pub(super) fn vm_leaves(tx: &mut Tx<'_>, by: (TaskId, Epoch), agent: &AgentId) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    mark_leaving(tx, task.id, agent);
    Ok(Outcome::Done)
}

/// Nothing is attached to the VM from here on, as long as the task is open that takes it away. Members that know no dynamic
/// disks know no such marks.
pub(super) fn mark_leaving(tx: &mut Tx<'_>, task: TaskId, agent: &AgentId) {
    let is_known = tx.state().feature_level().is_none_or(|level| level >= THIRD_LEVEL);
    if is_known && tx.has(&VMS, agent) {
        tx.put(&VMS_LEAVING, agent, &task);
    }
}

/// A VM's row goes: nothing is attached to it any more, as far as anybody knows.
pub(super) fn vm_gone(tx: &mut Tx<'_>, vm: &Vm) {
    tx.delete(&VMS_LEAVING, &vm.agent);
    let names: Vec<DynamicDiskName> =
        tx.rows_of(&DYNAMIC_DISKS_ON, &vm.agent).map(|((_, name), ())| name).collect();
    for disk in names.iter().filter_map(|name| tx.get(&DYNAMIC_DISKS, name)).collect::<Vec<_>>() {
        detach(tx, None, disk);
    }
}

/// Returns the refusal to delete a deployment that has dynamic disks.
pub(super) fn check_none(tx: &Tx<'_>, deployment: &DeploymentName) -> Result<(), Refusal> {
    match tx.state().dynamic_disks_of(deployment).first() {
        Some(disk) => Err(Refusal::InUse {
            what: "deployment".into(),
            name: deployment.to_string(),
            by: format!("{DISK} {}", disk.name),
        }),
        None => Ok(()),
    }
}

/// Returns the dynamic disk with this id of ours.
pub(super) fn with_id(tx: &Tx<'_>, id: &DiskId) -> Option<DynamicDisk> {
    tx.rows(&DYNAMIC_DISKS).map(|(_, disk)| disk).find(|disk| disk.id == *id)
}

/// Returns the disk as an orphan is filed: nobody's instance had it.
pub(super) fn as_orphan(tx: &Tx<'_>, disk: DynamicDisk) -> OrphanedDisk {
    let spec = DiskSpec {
        size_mib: disk.size_mib,
        disk_type: Some(disk.disk_type),
        cloud_properties: disk.cloud_properties,
        name: None,
    };
    OrphanedDisk {
        deployment: disk.deployment,
        slug: disk.name.to_string(),
        az: disk.az,
        orphaned_at: tx.at,
        disk: Disk {
            id: disk.id,
            cid: disk.cid,
            instance: InstanceId::default(),
            cpi: disk.cpi,
            spec,
            active: false,
            variable_set: VariableSetId::default(),
        },
    }
}

fn tell(tx: &mut Tx<'_>, task: &TaskRow, action: &str, disk: &DynamicDisk, instance: Option<&InstanceId>) {
    let instance = instance.map(|id| tx.get(&INSTANCES, id).map_or_else(|| id.to_string(), |one| one.slug()));
    let named = serde_json::Value::from(disk.name.as_str());
    let event = Audit {
        task: Some(task),
        action,
        object_type: "disk",
        object_name: disk.cid.as_ref().map(|cid| cid.to_string()),
        deployment: Some(disk.deployment.clone()),
        instance,
        context: [("dynamic_disk".to_owned(), named)].into(),
        ..Audit::default()
    };
    audit(tx, event);
}
