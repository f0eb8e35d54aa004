//! The life of a VM, whatever it is made of.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use cpi_api::{CpiErrorKind, CreateVm, Metadata};
use cpi_host::records::Durability;
use cpi_host::{HostError, NamedLock, Scope};
use model::VmCid;
use sha2::{Digest as _, Sha256};

use crate::cloud::Cloud;
use crate::limits::VmProperties;
use crate::network::{links, out_of_reach};
use crate::record::{Link, VmRecord, VmState};
use crate::rung::{self, Rung};
use crate::store::{create_for_all, vm_cid};
use crate::{disk, power, settings};

/// Where machines' agents have their connections opened, at their gateways.
const PROXY_PORTS: RangeInclusive<u16> = 20_000..=59_999;

/// Makes the VM of an agent; one that is there already is the answer too, if its agent has the same token.
pub(crate) fn create(cloud: &Cloud, scope: &Scope, request: CreateVm) -> Result<VmCid, HostError> {
    let cid = vm_cid(&request.agent_id);
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    if let Some(vm) = settled(cloud, scope, &cid)? {
        let is_anothers = vm.token_digest.is_some_and(|known| known != token_digest(&request));
        return if is_anothers { Err(HostError::MadeByAnotherCall { cid }) } else { Ok(cid) };
    }
    let claimed = understand(cloud, &request).and_then(|(properties, rung)| {
        cloud.announce(&request.bootstrap.endpoints)?;
        Ok((claim(cloud, scope, &request, &properties, rung)?, properties))
    });
    let (mut vm, properties) = match claimed {
        Ok(claimed) => claimed,
        Err(error) => {
            lock.retire();
            return Err(error);
        }
    };
    match build(cloud, scope, &mut vm, &request, &properties) {
        Ok(()) => Ok(cid),
        Err(error) => {
            // What can't be removed now is marked as half-made: whoever touches this VM next removes it.
            if let Err(left) = remove(cloud, scope, vm, lock) {
                tracing::warn!(vm = %cid, error = %left, "a VM that failed to start left something behind");
            }
            Err(error)
        }
    }
}

/// Returns what the VM is to be, if it can be.
fn understand(cloud: &Cloud, request: &CreateVm) -> Result<(VmProperties, Rung), HostError> {
    let properties = VmProperties::parse(&request.cloud_properties)?;
    let rung = properties.rung(cloud.rung)?;
    if let [endpoint, ..] = out_of_reach(&request.bootstrap.endpoints, rung)[..] {
        let message = format!(
            "the VM's agent could not reach the director `{endpoint}`: a VM on the rung `{rung}` knows no names and no \
             IPv6, have it advertise an IPv4 address"
        );
        return Err(HostError::refused(CpiErrorKind::VmCreationFailed, message));
    }
    Ok((properties, rung))
}

fn token_digest(request: &CreateVm) -> String {
    let digest = Sha256::digest(request.bootstrap.token.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns whether the VM is there. Waits for whoever is working on it; removes what a dead one left half-made.
pub(crate) fn exists(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<bool, HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let exists = settled(cloud, scope, cid)?.is_some();
    if !exists {
        lock.retire();
    }
    Ok(exists)
}

/// Removes a VM. Its disks are detached and stay.
pub(crate) fn delete(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<(), HostError> {
    let lock = cloud.store.lock_object(cid.as_str(), scope)?;
    match cloud.store.vm(cid)? {
        Some(vm) => remove(cloud, scope, vm, lock),
        None => {
            lock.retire();
            Ok(())
        }
    }
}

/// Ends everything in a VM and starts it again, with what is on its disks.
pub(crate) fn reboot(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<(), HostError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let mut vm = existing(cloud, scope, cid)?;
    power::down(cloud, &mut vm, scope)?;
    cloud.store.put_vm(&vm, Durability::UntilReboot)?;
    power::up(cloud, &mut vm, scope)?;
    cloud.store.put_vm(&vm, Durability::UntilReboot)?;
    disk::offer_again(cloud, scope, &vm)
}

/// Replaces a VM's metadata.
pub(crate) fn set_metadata(
    cloud: &Cloud,
    scope: &Scope,
    cid: &VmCid,
    metadata: Metadata,
) -> Result<(), HostError> {
    let _lock = cloud.store.lock_object(cid.as_str(), scope)?;
    let vm = VmRecord { metadata, ..existing(cloud, scope, cid)? };
    cloud.store.put_vm(&vm, Durability::Synced)
}

/// Returns a VM that is there; the caller holds its lock.
pub(crate) fn existing(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<VmRecord, HostError> {
    let missing = || HostError::refused(CpiErrorKind::VmNotFound, format!("VM `{cid}` does not exist"));
    settled(cloud, scope, cid)?.ok_or_else(missing)
}

/// Returns the host's path of a VM's `/var/vcap`.
pub(crate) fn base_dir(cloud: &Cloud, vm: &VmRecord) -> PathBuf {
    cloud.store.vm_dir(&vm.cid).join("vcap")
}

/// Returns the VM if it is whole. One that is not has lost its maker or remover, since we hold the lock: it goes.
fn settled(cloud: &Cloud, scope: &Scope, cid: &VmCid) -> Result<Option<VmRecord>, HostError> {
    match cloud.store.vm(cid)? {
        Some(vm) if vm.state == VmState::Running => Ok(Some(vm)),
        Some(half) => dismantle(cloud, scope, half).map(|()| None),
        None => Ok(None),
    }
}

/// Removes half-made VMs that have an address which is wanted now, unless somebody is at work on them.
///
/// A VM that could not be removed when its creation failed is asked for by its own agent id no more: the next attempt has
/// another one, and the same address.
fn settle_former_owners(cloud: &Cloud, scope: &Scope, request: &CreateVm) -> Result<(), HostError> {
    let wanted: BTreeSet<IpAddr> = request.networks.iter().filter_map(|network| network.ip).collect();
    for half in cloud.store.vms()?.into_iter().filter(|vm| vm.state != VmState::Running) {
        if half.addresses.iter().all(|address| !wanted.contains(address)) {
            continue;
        }
        let Some(lock) = cloud.store.try_lock_object(half.cid.as_str(), scope)? else { continue };
        match settled(cloud, scope, &half.cid) {
            Ok(Some(_)) => {}
            Ok(None) => lock.retire(),
            Err(error) => {
                tracing::warn!(vm = %half.cid, %error, "a half-made VM can't be removed and keeps its addresses");
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Writes down that the VM is being made, with addresses that no other VM has.
fn claim(
    cloud: &Cloud,
    scope: &Scope,
    request: &CreateVm,
    properties: &VmProperties,
    rung: Rung,
) -> Result<VmRecord, HostError> {
    // Before the locks that all creations share: an end takes its time.
    settle_former_owners(cloud, scope, request)?;
    let stemcell = &request.stemcell;
    let refuse = |message| HostError::refused(CpiErrorKind::VmCreationFailed, message);
    // Held until the record names it: whoever deletes the stemcell looks for such records.
    let _stemcell = cloud.store.lock_object(stemcell.as_str(), scope)?;
    if cloud.store.stemcell(stemcell)?.is_none() {
        return Err(refuse(format!("stemcell `{stemcell}` does not exist")));
    }
    let _addresses = cloud.store.lock("addresses.lock", scope)?;
    let others = cloud.store.vms()?;
    let used: BTreeSet<IpAddr> = others.iter().flat_map(|vm| vm.addresses.iter().copied()).collect();
    let links = links(&request.networks, rung, &request.agent_id, &used)?;
    let proxy = if rung == Rung::Qemu { Some(proxy(&links, &others)?) } else { None };
    let vm = VmRecord {
        cid: vm_cid(&request.agent_id),
        agent: request.agent_id.clone(),
        token_digest: Some(token_digest(request)),
        state: VmState::Creating,
        rung,
        stemcell: stemcell.clone(),
        addresses: links.iter().map(|link| link.ip).collect(),
        links,
        limits: properties.limits(),
        publish: properties.publish.clone(),
        metadata: Metadata::new(),
        disks: Vec::new(),
        proxy,
        processes: None,
    };
    cloud.store.put_vm(&vm, Durability::Synced)?;
    Ok(vm)
}

/// Picks where a machine's keeper opens connections for its agent: at a gateway that the machine has beside it.
fn proxy(links: &[Link], others: &[VmRecord]) -> Result<SocketAddr, HostError> {
    let gateway = links.iter().find_map(|link| link.gateway);
    let refuse = |message| HostError::refused(CpiErrorKind::VmCreationFailed, message);
    let gateway = gateway.ok_or_else(|| refuse("a VM of isolation `qemu` needs a network with a gateway"))?;
    let used: BTreeSet<SocketAddr> = others.iter().filter_map(|vm| vm.proxy).collect();
    PROXY_PORTS
        .map(|port| SocketAddr::new(gateway, port))
        .find(|place| !used.contains(place))
        .ok_or_else(|| refuse("no port is free for the agent's way to the directors"))
}

fn build(
    cloud: &Cloud,
    scope: &Scope,
    vm: &mut VmRecord,
    request: &CreateVm,
    properties: &VmProperties,
) -> Result<(), HostError> {
    let base = base_dir(cloud, vm);
    create_for_all(&base).map_err(HostError::os("create", &base))?;
    settings::write(&base, &vm.cid, vm.rung, request, (&vm.links, vm.proxy))?;
    match vm.rung {
        Rung::Qemu => rung::qemu::furnish(cloud, scope, vm, properties.ephemeral_disk_mib)?,
        Rung::UserNamespaces => rung::user_namespaces::furnish(cloud, scope, vm)?,
        Rung::Namespaces | Rung::Process => {}
    }
    power::up(cloud, vm, scope)?;
    vm.state = VmState::Running;
    cloud.store.put_vm(vm, Durability::Synced)
}

fn remove(cloud: &Cloud, scope: &Scope, vm: VmRecord, lock: NamedLock) -> Result<(), HostError> {
    dismantle(cloud, scope, vm)?;
    lock.retire();
    Ok(())
}

/// Ends and removes whatever there is of a VM.
fn dismantle(cloud: &Cloud, scope: &Scope, mut vm: VmRecord) -> Result<(), HostError> {
    vm.state = VmState::Deleting;
    cloud.store.put_vm(&vm, Durability::UntilReboot)?;
    power::down(cloud, &mut vm, scope)?;
    for cid in std::mem::take(&mut vm.disks) {
        disk::release(cloud, scope, &vm.cid, &cid)?;
    }
    cloud.store.discard(&cloud.store.vm_dir(&vm.cid))
}
