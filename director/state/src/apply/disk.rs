//! Persistent disks. Their rows come before the disks and stay after the instances: as orphans, for some days.

use model::instance::{Disk, DiskSpec};
use model::*;

use super::deed::Deed;
use super::tx::{Tx, invalid, not_found};
use super::variable;
use crate::command::Refusal;
use crate::records::OrphanedDisk;
use crate::tables::*;

/// `CreateDisk` is about to be done.
pub(super) fn begin_create(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    instance: &InstanceId,
    (id, name): (&DiskId, Option<&DiskName>),
) -> Result<(), Refusal> {
    let target = deed.target(tx, instance)?;
    match tx.get(&DISKS, id) {
        Some(disk) if disk.instance == *instance => return Ok(()),
        Some(_) => return Err(Refusal::Exists { what: "disk".into(), name: id.to_string() }),
        None if !tx.has(&INSTANCES, instance) => return Err(not_found("instance", instance.as_str())),
        None => {}
    }
    let Some(spec) = target.spec.disk(name).cloned() else {
        let none = name.map_or_else(|| "none".to_owned(), |name| format!("none with the name '{name}'"));
        return Err(invalid(format!("disk {id}"), format!("instance {instance} is to have {none}")));
    };
    let disk = Disk {
        id: id.clone(),
        cid: None,
        instance: instance.clone(),
        cpi: target.spec.cpi,
        spec,
        active: false,
        variable_set: variable::set_for(tx, deed, instance),
    };
    tx.put(&DISKS, id, &disk);
    tx.put(&DISKS_OF, &(instance.clone(), id.clone()), &());
    Ok(())
}

/// `CreateDisk` gave a disk.
pub(super) fn created(tx: &mut Tx<'_>, id: &DiskId, cid: &DiskCid) -> Result<(), Refusal> {
    let mut disk = tx.need(&DISKS, id, "disk")?;
    disk.cid = Some(cid.clone());
    tx.put(&DISKS, id, &disk);
    Ok(())
}

/// `CreateDisk` failed, and there is no disk.
pub(super) fn not_created(tx: &mut Tx<'_>, id: &DiskId) {
    if let Some(disk) = tx.get(&DISKS, id).filter(|disk| disk.cid.is_none()) {
        forget(tx, &disk);
    }
}

/// `AttachDisk`: one with a name is the active one of that name from here on. Nothing is copied to it, so nothing is waited
/// for.
pub(super) fn attached(tx: &mut Tx<'_>, id: &DiskId) -> Result<(), Refusal> {
    let disk = tx.need(&DISKS, id, "disk")?;
    if !disk.spec.is_mounted() && !disk.active {
        make_active(tx, disk);
    }
    Ok(())
}

/// `MountDisk`: the disk becomes the active one, unless there is one; then `MigrateDisk` follows.
pub(super) fn mounted(tx: &mut Tx<'_>, id: &DiskId) -> Result<(), Refusal> {
    let disk = tx.need(&DISKS, id, "disk")?;
    if active_like(tx, &disk.instance, &disk.spec).is_empty() {
        tx.put(&DISKS, id, &Disk { active: true, ..disk });
    }
    Ok(())
}

/// `MigrateDisk`: the content has moved, so the active disk moves with it, in one entry.
pub(super) fn migrated(tx: &mut Tx<'_>, to: &DiskId) -> Result<(), Refusal> {
    let new = tx.need(&DISKS, to, "disk")?;
    make_active(tx, new);
    Ok(())
}

/// Makes a disk the active one of its name.
fn make_active(tx: &mut Tx<'_>, new: Disk) {
    for old in active_like(tx, &new.instance, &new.spec) {
        tx.put(&DISKS, &old.id.clone(), &Disk { active: false, ..old });
    }
    tx.put(&DISKS, &new.id.clone(), &Disk { active: true, ..new });
}

/// Returns the instance's active disk of the same name, as far as there is one.
fn active_like(tx: &Tx<'_>, instance: &InstanceId, spec: &DiskSpec) -> Vec<Disk> {
    let all = tx.state().disks(instance).into_iter();
    all.filter(|disk| disk.active && disk.spec.name == spec.name).collect()
}

/// `OrphanDisk`; a disk that is no instance's any more is fine.
pub(super) fn give_up(tx: &mut Tx<'_>, id: &DiskId) {
    if let Some(disk) = tx.get(&DISKS, id) {
        orphan(tx, disk);
    }
}

/// A disk that is there and becomes an instance's.
pub(super) struct Adopted<'a> {
    pub id: &'a DiskId,
    pub cid: &'a DiskCid,
    /// What is known of it if nobody here has made it; none: it is an orphan.
    pub foreign: Option<&'a DiskSpec>,
    /// Whether it is the active one without being mounted: there is no VM.
    pub at_once: bool,
}

/// `AdoptDisk`. Refused if the disk has become somebody else's meanwhile, or is gone.
pub(super) fn adopt(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    instance: &InstanceId,
    adopted: Adopted<'_>,
) -> Result<(), Refusal> {
    let Adopted { id, cid, foreign, at_once } = adopted;
    let owner = tx.need(&INSTANCES, instance, "instance")?;
    if let Some(other) = tx.state().disk_by_cid(cid) {
        let by = format!("instance {}", other.instance);
        return Err(Refusal::InUse { what: "disk".into(), name: cid.to_string(), by });
    }
    if let Some(dynamic) = tx.state().dynamic_disk_by_cid(cid) {
        let by = format!("dynamic disk {}", dynamic.name);
        return Err(Refusal::InUse { what: "disk".into(), name: cid.to_string(), by });
    }
    let disk = match foreign {
        None => {
            let orphan = tx.need(&ORPHANED_DISKS, id, "orphaned disk")?;
            tx.delete(&ORPHANED_DISKS, id);
            Disk { instance: instance.clone(), ..orphan.disk }
        }
        Some(spec) => Disk {
            id: id.clone(),
            cid: Some(cid.clone()),
            instance: instance.clone(),
            cpi: owner.spec.cpi,
            spec: spec.clone(),
            active: false,
            variable_set: variable::set_for(tx, deed, instance),
        },
    };
    let active = at_once && active_like(tx, instance, &disk.spec).is_empty();
    let disk = Disk { active, ..disk };
    tx.put(&DISKS, id, &disk);
    tx.put(&DISKS_OF, &(instance.clone(), id.clone()), &());
    Ok(())
}

/// Moves a disk to the orphans. Also one without a cloud's id, whose creation was broken off: it may exist, and whoever
/// deletes the orphan looks for it.
pub(super) fn orphan(tx: &mut Tx<'_>, disk: Disk) {
    forget(tx, &disk);
    let orphan = as_orphan(tx, disk);
    tx.put(&ORPHANED_DISKS, &orphan.disk.id.clone(), &orphan);
}

/// Returns the disk as an orphan is filed.
pub(super) fn as_orphan(tx: &Tx<'_>, disk: Disk) -> OrphanedDisk {
    let owner = tx.get(&INSTANCES, &disk.instance);
    OrphanedDisk {
        deployment: owner.as_ref().map(|owner| owner.spec.deployment.clone()).unwrap_or_default(),
        slug: owner.as_ref().map_or_else(|| disk.instance.to_string(), |owner| owner.slug()),
        az: owner.and_then(|owner| owner.spec.az),
        orphaned_at: tx.at,
        disk: Disk { active: false, ..disk },
    }
}

fn forget(tx: &mut Tx<'_>, disk: &Disk) {
    tx.delete(&DISKS, &disk.id);
    tx.delete(&DISKS_OF, &(disk.instance.clone(), disk.id.clone()));
}
