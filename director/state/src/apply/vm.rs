//! VMs and the agents in them. A row exists before the cloud is asked, so that no VM can come to be unknown, and its
//! agent may connect even while the cloud's call still runs.

use model::instance::{NetworkSettings, Vm};
use model::*;

use super::address;
use super::deed::Deed;
use super::tx::{Tx, not_found};
use super::variable;
use crate::command::Refusal;
use crate::records::{AgentHealth, AgentRecord, OrphanedVm};
use crate::tables::*;

/// `CreateVm` is about to be done: the VM's row and its agent's.
pub(super) fn begin_create(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    instance: &InstanceId,
    agent: &AgentId,
) -> Result<(), Refusal> {
    let spec = deed.target(tx, instance)?.spec;
    match tx.get(&VMS, agent) {
        // Another attempt for the same agent: the row is there.
        Some(vm) if vm.instance == *instance => return Ok(()),
        Some(_) => return Err(Refusal::Exists { what: "VM of agent".into(), name: agent.to_string() }),
        None if !tx.has(&INSTANCES, instance) => return Err(not_found("instance", instance.as_str())),
        None => {}
    }
    for other in tx.state().vms(instance).into_iter().filter(|vm| vm.active) {
        tx.put(&VMS, &other.agent.clone(), &Vm { active: false, ..other });
    }
    let variable_set = variable::set_for(tx, deed, instance);
    let vm = Vm {
        agent: agent.clone(),
        instance: instance.clone(),
        cid: None,
        cpi: spec.cpi,
        stemcell: spec.stemcell,
        cloud_properties: spec.cloud_properties,
        env: spec.env,
        networks: spec.networks,
        created_at: tx.at,
        active: true,
        bound: false,
        variable_set,
    };
    tx.put(&VMS, agent, &vm);
    tx.put(&VMS_OF, &(instance.clone(), agent.clone()), &());
    let record = AgentRecord {
        agent: agent.clone(),
        instance: instance.clone(),
        deployment: spec.deployment,
        authorised_at: tx.at,
        key_digest: None,
        health: AgentHealth::New,
        health_since: tx.at,
        token_generation: 0,
        bound: false,
    };
    tx.put(&AGENTS, agent, &record);
    Ok(())
}

/// `CreateVm` gave a VM.
pub(super) fn created(tx: &mut Tx<'_>, agent: &AgentId, cid: &VmCid) -> Result<(), Refusal> {
    let mut vm = tx.need(&VMS, agent, "VM of agent")?;
    vm.cid = Some(cid.clone());
    tx.put(&VMS, agent, &vm);
    Ok(())
}

/// `BindVm` learned addresses: they belong to the VM and to what the rest of the plan wants of the instance.
pub(super) fn bound(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    place: (&InstanceId, &AgentId),
    networks: &[NetworkSettings],
) -> Result<(), Refusal> {
    let (instance, agent) = place;
    let vm = tx.need(&VMS, agent, "VM of agent")?;
    tx.put(&VMS, agent, &Vm { networks: networks.to_vec(), ..vm });
    introduced(tx, agent);
    let mut target = deed.target(tx, instance)?;
    target.spec.networks = networks.to_vec();
    tx.put(&TARGETS, &(deed.task.id, instance.clone()), &target);
    Ok(())
}

/// `BindVm` is done: from here on the VM is the instance's.
pub(super) fn introduced(tx: &mut Tx<'_>, agent: &AgentId) {
    if let Some(vm) = tx.get(&VMS, agent) {
        tx.put(&VMS, agent, &Vm { bound: true, ..vm });
    }
    if let Some(record) = tx.get(&AGENTS, agent) {
        tx.put(&AGENTS, agent, &AgentRecord { bound: true, ..record });
    }
}

/// The VM does not exist (any more): its row goes, and its agent may not connect again.
pub(super) fn forget(tx: &mut Tx<'_>, vm: &Vm) {
    tx.delete(&VMS, &vm.agent);
    tx.delete(&VMS_OF, &(vm.instance.clone(), vm.agent.clone()));
    tx.delete(&AGENTS, &vm.agent);
}

/// `DeleteVm` is done; a row that is gone already is fine.
pub(super) fn deleted(tx: &mut Tx<'_>, agent: &AgentId) {
    if let Some(vm) = tx.get(&VMS, agent) {
        forget(tx, &vm);
    }
}

/// `OrphanVm`: the VM, or what may be one, stays for a while with its addresses, but without an instance.
pub(super) fn orphaned(tx: &mut Tx<'_>, agent: &AgentId) {
    let Some(vm) = tx.get(&VMS, agent) else { return };
    forget(tx, &vm);
    address::leave_to_orphan(tx, &vm);
    let orphan = as_orphan(tx, vm);
    tx.put(&ORPHANED_VMS, agent, &orphan);
}

/// Returns the VM as an orphan is filed.
pub(super) fn as_orphan(tx: &Tx<'_>, vm: Vm) -> OrphanedVm {
    let owner = tx.get(&INSTANCES, &vm.instance);
    OrphanedVm {
        deployment: owner.as_ref().map(|owner| owner.spec.deployment.clone()).unwrap_or_default(),
        slug: owner.as_ref().map_or_else(|| vm.instance.to_string(), |owner| owner.slug()),
        az: owner.and_then(|owner| owner.spec.az),
        orphaned_at: tx.at,
        vm: Vm { active: false, ..vm },
    }
}

/// `DeleteOrphanedVm` is done; a row that is gone already is fine.
pub(super) fn orphan_deleted(tx: &mut Tx<'_>, agent: &AgentId) {
    if let Some(orphan) = tx.get(&ORPHANED_VMS, agent) {
        address::release_orphan(tx, &orphan.vm);
        tx.delete(&ORPHANED_VMS, agent);
    }
}

/// `CreateVm` failed, and there is no VM, so there is no row either.
pub(super) fn not_created(tx: &mut Tx<'_>, agent: &AgentId) {
    if let Some(vm) = tx.get(&VMS, agent).filter(|vm| vm.cid.is_none()) {
        forget(tx, &vm);
    }
}
