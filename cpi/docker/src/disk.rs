//! Persistent disks: volumes. They belong to the daemon, not to a VM: they outlive every VM and move between them.
//!
//! Order of locks: the VM's, then the disk's. A volume has no size: what was asked for is remembered, and nothing holds a
//! VM to it.

use cpi_api::{CpiErrorKind, CreateDisk, Metadata};
use cpi_host::Scope;
use model::{DiskCid, VmCid};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::errand::{self, Beside};
use crate::error::DockerError;
use crate::names::{ID, Kind, SIZE};
use crate::store::DiskRecord;
use crate::vm::{self, Vm};

/// A disk as it is now.
pub(crate) struct Disk {
    pub size_mib: u64,
    pub record: DiskRecord,
}

/// Makes a disk; one that is there already is the answer too.
pub(crate) fn create(cloud: &Cloud, scope: &Scope, request: &CreateDisk) -> Result<DiskCid, DockerError> {
    let cid = cloud.names.disk(&request.disk_id);
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let mut labels = cloud.names.labels(Kind::Disk);
    labels.insert(ID.to_owned(), request.disk_id.to_string());
    labels.insert(SIZE.to_owned(), request.size_mib.to_string());
    cloud.daemon.create_volume(cid.as_str(), labels)?;
    Ok(cid)
}

/// Returns whether the disk is there. Waits for whoever is working on it.
pub(crate) fn exists(cloud: &Cloud, scope: &Scope, cid: &DiskCid) -> Result<bool, DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let exists = look(cloud, cid)?.is_some();
    if !exists {
        lock.retire();
    }
    Ok(exists)
}

/// Removes a disk and what is on it.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &DiskCid) -> Result<(), DockerError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if let Some(disk) = look(cloud, cid)? {
        if let Some(vm) = holder(cloud, &disk)? {
            let message = format!("disk `{cid}` is attached to VM `{vm}`");
            return Err(DockerError::refused(CpiErrorKind::Other, message));
        }
        cloud.daemon.remove_volume(cid.as_str())?;
    }
    cloud.store.forget(cid.as_str())?;
    lock.retire();
    Ok(())
}

/// Attaches a disk and returns where the agent finds it.
pub(crate) fn attach(cloud: &Cloud, scope: &Scope, vm: &VmCid, cid: &DiskCid) -> Result<Value, DockerError> {
    let _vm_lock = cloud.store.lock_object(vm.as_str(), scope)?;
    let vm = vm::existing(cloud, vm)?;
    let _disk_lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let mut disk = existing(cloud, cid)?;
    match holder(cloud, &disk)? {
        Some(other) if other != vm.cid => {
            let message = format!("disk `{cid}` is attached to VM `{other}`");
            return Err(DockerError::refused(CpiErrorKind::Other, message));
        }
        // A repeat: what follows equals what is there, and mends what an interrupted call left undone.
        _ => {}
    }
    disk.record.attached_to = Some(vm.cid.clone());
    // Before the deed: whoever removes or restarts the VM must know of it.
    cloud.store.put_record(cid.as_str(), &disk.record)?;
    if vm.is_running {
        errand::show(cloud, scope, &beside(&vm), cid.as_str())?;
    }
    // A directory of the volume, not the volume itself: where that is not mounted, there is no such directory.
    Ok(json!({ "path": format!("{}/data", errand::place(cid.as_str())), "kind": "directory" }))
}

/// Detaches a disk; one that is not attached there is left alone.
pub(crate) fn detach(cloud: &Cloud, scope: &Scope, vm: &VmCid, cid: &DiskCid) -> Result<(), DockerError> {
    let _vm_lock = cloud.store.lock_object(vm.as_str(), scope)?;
    let there = vm::settled(cloud, vm)?;
    let _disk_lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let record: DiskRecord = cloud.store.record(cid.as_str())?;
    if record.attached_to.as_ref() != Some(vm) {
        return Ok(());
    }
    if let Some(vm) = there.filter(|vm| vm.is_running) {
        errand::hide(cloud, scope, &beside(&vm), cid.as_str())?;
    }
    cloud.store.put_record(cid.as_str(), &DiskRecord { attached_to: None, ..record })
}

/// Makes the disks of a VM free that is gone. The caller holds the VM's lock.
pub(crate) fn release(cloud: &Cloud, scope: &Scope, vm: &VmCid) -> Result<(), DockerError> {
    for cid in cloud.store.disks_of(vm, |cid| cloud.names.is_disk(cid))? {
        let _lock = cloud.store.lock_object(&cid, scope)?;
        let record: DiskRecord = cloud.store.record(&cid)?;
        if record.attached_to.as_ref() == Some(vm) {
            cloud.store.put_record(&cid, &DiskRecord { attached_to: None, ..record })?;
        }
    }
    Ok(())
}

/// Shows a VM that was started again the disks it had.
pub(crate) fn show_again(cloud: &Cloud, scope: &Scope, vm: &Vm) -> Result<(), DockerError> {
    for cid in cloud.store.disks_of(&vm.cid, |cid| cloud.names.is_disk(cid))? {
        let _lock = cloud.store.lock_object(&cid, scope)?;
        errand::show(cloud, scope, &beside(vm), &cid)?;
    }
    Ok(())
}

/// Replaces a disk's metadata.
pub(crate) fn set_metadata(
    cloud: &Cloud,
    scope: &Scope,
    cid: &DiskCid,
    metadata: Metadata,
) -> Result<(), DockerError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let record = DiskRecord { metadata, ..existing(cloud, cid)?.record };
    cloud.store.put_record(cid.as_str(), &record)
}

/// Grows a detached disk: volumes grow by themselves, so it is only remembered.
pub(crate) fn resize(cloud: &Cloud, scope: &Scope, cid: &DiskCid, size_mib: u64) -> Result<(), DockerError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let disk = existing(cloud, cid)?;
    let refuse = |message| Err(DockerError::refused(CpiErrorKind::NotSupported, message));
    if let Some(vm) = holder(cloud, &disk)? {
        return refuse(format!("disk `{cid}` is attached to VM `{vm}`"));
    }
    if size_mib < disk.size_mib {
        return refuse(format!("disk `{cid}` has {} MiB and can't shrink to {size_mib}", disk.size_mib));
    }
    let record = DiskRecord { size_mib: Some(size_mib), ..disk.record };
    cloud.store.put_record(cid.as_str(), &record)
}

/// Returns a disk that is there. The caller holds its lock.
pub(crate) fn existing(cloud: &Cloud, cid: &DiskCid) -> Result<Disk, DockerError> {
    let missing = || DockerError::refused(CpiErrorKind::DiskNotFound, format!("disk `{cid}` does not exist"));
    look(cloud, cid)?.ok_or_else(missing)
}

fn look(cloud: &Cloud, cid: &DiskCid) -> Result<Option<Disk>, DockerError> {
    let labels = cloud.daemon.volume(cid.as_str())?;
    let Some(labels) = labels.filter(|labels| cloud.names.is_ours(Some(labels), Kind::Disk)) else {
        return Ok(None);
    };
    let record: DiskRecord = cloud.store.record(cid.as_str())?;
    let made_with = labels.get(SIZE).and_then(|size| size.parse().ok()).unwrap_or_default();
    Ok(Some(Disk { size_mib: record.size_mib.unwrap_or(made_with), record }))
}

/// Returns the VM that has a disk, unless that one is gone: somebody may have removed it at the daemon.
fn holder(cloud: &Cloud, disk: &Disk) -> Result<Option<VmCid>, DockerError> {
    match &disk.record.attached_to {
        Some(vm) if cloud.daemon.container(vm.as_str())?.is_some() => Ok(Some(vm.clone())),
        _ => Ok(None),
    }
}

fn beside(vm: &Vm) -> Beside<'_> {
    Beside { object: vm.cid.as_str(), image: &vm.image }
}
