//! Persistent disks. They belong to the cloud, not to a VM: they outlive every VM and move between them.
//!
//! Order of locks: the VM's, then the disk's.

use std::fs;
use std::path::{Path, PathBuf};

use cpi_api::{CpiErrorKind, CreateDisk, DiskHint, Metadata};
use cpi_host::records::Durability;
use cpi_host::{HostError, Scope};
use model::{DiskCid, VmCid};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::record::{DiskKind, DiskRecord, VmRecord};
use crate::rung::Rung;
use crate::store::{create_for_all, disk_cid};
use crate::{image, rung, settings, vm};

/// Makes a disk; one that is there already is the answer too.
pub(crate) fn create(cloud: &Cloud, scope: &Scope, request: CreateDisk) -> Result<DiskCid, HostError> {
    let cid = disk_cid(&request.disk_id);
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if cloud.store.disk(&cid)?.is_some() {
        return Ok(cid);
    }
    let dir = cloud.store.disk_dir(&cid);
    // A maker that died left no record, and perhaps half a disk.
    cloud.store.discard(&dir)?;
    fs::create_dir_all(&dir).map_err(HostError::os("create", &dir))?;
    let kind = match cloud.rung {
        Rung::Namespaces | Rung::Qemu => DiskKind::Image,
        Rung::UserNamespaces | Rung::Process => DiskKind::Directory,
    };
    let disk = DiskRecord {
        cid: cid.clone(),
        id: request.disk_id,
        size_mib: request.size_mib,
        kind,
        attached_to: None,
        metadata: Metadata::new(),
    };
    let content = content(cloud, &disk);
    match kind {
        DiskKind::Directory => create_for_all(&content).map_err(HostError::os("create", &content))?,
        DiskKind::Image => image::create(&content, disk.size_mib)?,
    }
    // The record comes last: what has one is whole.
    cloud.store.put_disk(&disk)?;
    Ok(cid)
}

/// Returns whether the disk is there. Waits for whoever is working on it.
pub(crate) fn exists(cloud: &Cloud, scope: &Scope, cid: &DiskCid) -> Result<bool, HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let exists = cloud.store.disk(cid)?.is_some();
    if !exists {
        lock.retire();
    }
    Ok(exists)
}

/// Removes a disk and what is on it.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &DiskCid) -> Result<(), HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if let Some(vm) = cloud.store.disk(cid)?.and_then(|disk| disk.attached_to) {
        let message = format!("disk `{cid}` is attached to VM `{vm}`");
        return Err(HostError::refused(CpiErrorKind::Other, message));
    }
    cloud.store.discard(&cloud.store.disk_dir(cid))?;
    lock.retire();
    Ok(())
}

/// Attaches a disk and returns where the agent finds it.
pub(crate) fn attach(cloud: &Cloud, scope: &Scope, vm: &VmCid, cid: &DiskCid) -> Result<Value, HostError> {
    let _vm_lock = cloud.store.lock_object(vm.as_str(), scope)?;
    let mut vm = vm::existing(cloud, scope, vm)?;
    let _disk_lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let mut disk = existing(cloud, cid)?;
    match &disk.attached_to {
        Some(other) if *other != vm.cid => {
            let message = format!("disk `{cid}` is attached to VM `{other}`");
            return Err(HostError::refused(CpiErrorKind::Other, message));
        }
        // A repeat: everything below equals what is there, and mends what an interrupted call left undone.
        _ => {}
    }
    if !vm.disks.contains(cid) {
        vm.disks.push(cid.clone());
        // First the VM knows: then removing it frees the disk, also if we die on the next line.
        cloud.store.put_vm(&vm, Durability::Synced)?;
    }
    disk.attached_to = Some(vm.cid.clone());
    cloud.store.put_disk(&disk)?;
    let hint = offer(cloud, scope, &vm, &disk)?;
    settings::set_disk(&vm::base_dir(cloud, &vm), cid, Some(&hint))?;
    Ok(hint.0)
}

/// Detaches a disk; one that is not attached there is left alone.
pub(crate) fn detach(cloud: &Cloud, scope: &Scope, vm: &VmCid, cid: &DiskCid) -> Result<(), HostError> {
    let _vm_lock = cloud.store.lock_object(vm.as_str(), scope)?;
    let Some(mut vm) = cloud.store.vm(vm)? else { return Ok(()) };
    if !vm.disks.contains(cid) {
        return Ok(());
    }
    withdraw(cloud, scope, &vm, cid)?;
    settings::set_disk(&vm::base_dir(cloud, &vm), cid, None)?;
    release(cloud, scope, &vm.cid, cid)?;
    vm.disks.retain(|attached| attached != cid);
    cloud.store.put_vm(&vm, Durability::Synced)
}

/// Makes a disk free again whose VM is gone or has let go of it. The caller holds the VM's lock.
pub(crate) fn release(cloud: &Cloud, scope: &Scope, vm: &VmCid, cid: &DiskCid) -> Result<(), HostError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let Some(mut disk) = cloud.store.disk(cid)? else { return Ok(()) };
    if disk.attached_to.as_ref() != Some(vm) {
        return Ok(());
    }
    if disk.kind == DiskKind::Image {
        image::free(&content(cloud, &disk), scope)?;
    }
    disk.attached_to = None;
    cloud.store.put_disk(&disk)
}

/// Replaces a disk's metadata.
pub(crate) fn set_metadata(
    cloud: &Cloud,
    scope: &Scope,
    cid: &DiskCid,
    metadata: Metadata,
) -> Result<(), HostError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let disk = DiskRecord { metadata, ..existing(cloud, cid)? };
    cloud.store.put_disk(&disk)
}

/// Grows a detached disk.
pub(crate) fn resize(cloud: &Cloud, scope: &Scope, cid: &DiskCid, size_mib: u64) -> Result<(), HostError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let mut disk = existing(cloud, cid)?;
    let refuse = |message| Err(HostError::refused(CpiErrorKind::NotSupported, message));
    if let Some(vm) = &disk.attached_to {
        return refuse(format!("disk `{cid}` is attached to VM `{vm}`"));
    }
    if size_mib < disk.size_mib {
        return refuse(format!("disk `{cid}` has {} MiB and can't shrink to {size_mib}", disk.size_mib));
    }
    if disk.kind == DiskKind::Image {
        image::grow(&content(cloud, &disk), size_mib)?;
    }
    disk.size_mib = size_mib;
    cloud.store.put_disk(&disk)
}

/// Offers a VM that was started again the disks it had.
pub(crate) fn offer_again(cloud: &Cloud, scope: &Scope, vm: &VmRecord) -> Result<(), HostError> {
    for disk in attached(cloud, vm)? {
        let _lock = cloud.store.lock_object(disk.cid.as_str(), scope)?;
        offer(cloud, scope, vm, &disk)?;
    }
    Ok(())
}

/// Returns a VM's disks. The caller holds the VM's lock, so that none of them comes or goes.
///
/// An attachment or detachment that was broken off leaves a VM that names a disk which was never its own, or is no longer, and
/// may be another one's by now or gone.
pub(crate) fn attached(cloud: &Cloud, vm: &VmRecord) -> Result<Vec<DiskRecord>, HostError> {
    let found: Result<Vec<_>, _> = vm.disks.iter().map(|cid| cloud.store.disk(cid)).collect();
    let is_its_own = |disk: &DiskRecord| disk.attached_to.as_ref() == Some(&vm.cid);
    Ok(found?.into_iter().flatten().filter(is_its_own).collect())
}

pub(crate) fn existing(cloud: &Cloud, cid: &DiskCid) -> Result<DiskRecord, HostError> {
    let missing = || HostError::refused(CpiErrorKind::DiskNotFound, format!("disk `{cid}` does not exist"));
    cloud.store.disk(cid)?.ok_or_else(missing)
}

pub(crate) fn content(cloud: &Cloud, disk: &DiskRecord) -> PathBuf {
    cloud.store.disk_dir(&disk.cid).join(content_name(disk.kind))
}

/// Returns what the content of a disk, or of a copy of it, is called in its folder.
pub(crate) fn content_name(kind: DiskKind) -> &'static str {
    match kind {
        DiskKind::Directory => "data",
        DiskKind::Image => "image",
    }
}

/// Makes a disk visible in a VM and returns where. Idempotent.
fn offer(cloud: &Cloud, scope: &Scope, vm: &VmRecord, disk: &DiskRecord) -> Result<DiskHint, HostError> {
    let content = content(cloud, disk);
    match (disk.kind, vm.rung) {
        (DiskKind::Image, Rung::Qemu) => {
            rung::qemu::plug(cloud, vm, &disk.cid, &content).map(|path| DiskHint(json!(path)))
        }
        (DiskKind::Image, Rung::Namespaces) => {
            let number = image::offer(&content, scope)?;
            rung::show_device(vm, disk.cid.as_str(), number).map(|path| DiskHint(json!(path)))
        }
        (DiskKind::Directory, Rung::Process) => Ok(directory(&content)),
        (DiskKind::Directory, Rung::UserNamespaces) => {
            rung::user_namespaces::disk::show(cloud, vm, &disk.cid).map(|place| directory(&place))
        }
        (kind, rung) => {
            let message = format!("disk `{}` ({kind:?}) can't be used on the rung `{rung}`", disk.cid);
            Err(HostError::refused(CpiErrorKind::NotSupported, message))
        }
    }
}

fn directory(path: &Path) -> DiskHint {
    DiskHint(json!({ "path": path, "kind": "directory" }))
}

/// Takes a disk out of a VM's sight.
fn withdraw(cloud: &Cloud, scope: &Scope, vm: &VmRecord, cid: &DiskCid) -> Result<(), HostError> {
    cloud.store.check(scope)?;
    match cloud.store.disk(cid)? {
        Some(_) if vm.rung == Rung::Qemu => rung::qemu::unplug(cloud, scope, vm, cid),
        Some(_) if vm.rung == Rung::UserNamespaces => {
            rung::user_namespaces::disk::hide(cloud, scope, vm, cid)
        }
        Some(disk) if disk.kind == DiskKind::Image => rung::hide_device(vm, cid.as_str()),
        _ => Ok(()),
    }
}
