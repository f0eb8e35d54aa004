//! VMs and the agents in them. A row exists before the cloud is asked, so that no VM can come to be unknown, and its
//! agent may connect even while the cloud's call still runs.

use model::instance::{Instance, InstanceSpec, NetworkSettings, Vm};
use model::step::VmRole;
use model::*;

use super::address;
use super::asked;
use super::brought;
use super::deed::Deed;
use super::dynamic_disk;
use super::tx::{Tx, not_found};
use super::variable;
use crate::command::Refusal;
use crate::records::{AgentHealth, AgentRecord, OrphanedVm};
use crate::tables::*;

/// `CreateVm` is about to be done: the VM's row and its agent's. `place` is where it belongs, and as what.
pub(super) fn begin_create(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    place: (&InstanceId, VmRole),
    agent: &AgentId,
) -> Result<(), Refusal> {
    let (instance, role) = place;
    let spec = deed.target(tx, instance)?.spec;
    match tx.get(&VMS, agent) {
        // Another attempt for the same agent: the row is there.
        Some(vm) if vm.instance == *instance => return Ok(()),
        Some(_) => return Err(Refusal::Exists { what: "VM of agent".into(), name: agent.to_string() }),
        None if !tx.has(&INSTANCES, instance) => return Err(not_found("instance", instance.as_str())),
        None => {}
    }
    if role == VmRole::Current {
        stand_down(tx, instance);
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
        active: role == VmRole::Current,
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
        jobs_run: None,
        certificate: None,
        offered: None,
    };
    tx.put(&AGENTS, agent, &record);
    Ok(())
}

/// Whatever VM is the instance's current one is so no longer.
fn stand_down(tx: &mut Tx<'_>, instance: &InstanceId) {
    for other in tx.state().vms(instance).into_iter().filter(|vm| vm.active) {
        tx.put(&VMS, &other.agent.clone(), &Vm { active: false, ..other });
    }
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

/// `BindVm` is done: from here on the VM is the instance's. One that was made ahead is so only once it is elected: until
/// then its agent does not answer for the instance.
pub(super) fn introduced(tx: &mut Tx<'_>, agent: &AgentId) {
    let Some(vm) = tx.get(&VMS, agent) else { return };
    let answers = vm.active;
    tx.put(&VMS, agent, &Vm { bound: true, ..vm });
    if answers {
        answers_for_instance(tx, agent);
    }
}

fn answers_for_instance(tx: &mut Tx<'_>, agent: &AgentId) {
    if let Some(record) = tx.get(&AGENTS, agent) {
        tx.put(&AGENTS, agent, &AgentRecord { bound: true, ..record });
    }
}

/// `ElectVm`: the VM that was made ahead is the instance's, and with it its addresses; the one before stays as an orphan
/// with its own, if it is still there. Whoever makes the next VM from the instance's spec must not take those.
pub(super) fn elected(
    tx: &mut Tx<'_>,
    place: (&InstanceId, &AgentId),
    instead_of: Option<&AgentId>,
) -> Result<(), Refusal> {
    let (id, agent) = place;
    let vm = tx.need(&VMS, agent, "VM of agent")?;
    let instance = tx.need(&INSTANCES, id, "instance")?;
    if let Some(old) = instead_of.filter(|old| *old != agent) {
        orphaned(tx, old);
    }
    stand_down(tx, &vm.instance);
    let networks = vm.networks.clone();
    tx.put(&VMS, agent, &Vm { active: true, ..vm });
    answers_for_instance(tx, agent);
    let spec = InstanceSpec { networks, ..instance.spec };
    tx.put(&INSTANCES, id, &Instance { spec, ..instance });
    Ok(())
}

/// The VM does not exist (any more): its row goes, and its agent may not connect again.
pub(super) fn forget(tx: &mut Tx<'_>, vm: &Vm) {
    tx.delete(&VMS, &vm.agent);
    tx.delete(&VMS_OF, &(vm.instance.clone(), vm.agent.clone()));
    tx.delete(&AGENTS, &vm.agent);
    asked::forget(tx, &vm.agent);
    brought::forget(tx, &vm.agent);
    dynamic_disk::vm_gone(tx, vm);
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
