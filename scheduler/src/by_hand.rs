//! What operators do to single disks and VMs: giving a disk up, giving an instance another one, deleting a VM.
//!
//! Invariant: a disk that jobs may be writing to is never taken from under them.

use std::collections::BTreeSet;

use model::instance::{DiskSpec, InstanceState};
use model::plan::{Fate, Plan};
use model::step::Action;
use model::task::{InstanceFilter, TaskError};
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::desired::matches;
use crate::facts::{Facts, Known};
use crate::input::DeploymentFacts;
use crate::steps::{Steps, Units};
use crate::stored;

/// The size of a disk of which nobody here knows anything, as in BOSH: the next deploy copies it to one of the right size.
const UNKNOWN_SIZE_MIB: u64 = 1;

/// A disk that an instance is to get.
#[derive(Clone, Debug)]
pub struct AttachRequest<'a> {
    /// The instance.
    pub instance: &'a InstanceFilter,
    /// The disk.
    pub cid: &'a DiskCid,
    /// It, if it is an orphan, and the name that it had.
    pub orphan: Option<(&'a DiskId, Option<&'a DiskName>)>,
    /// If it is not: whether it is taken to be as the instance's own one.
    pub copy_properties: bool,
}

/// Plans that an instance gives up a disk; none if no instance of the deployment has it.
pub fn plan_orphan_disk(deployment: &DeploymentFacts<'_>, cid: &DiskCid) -> Result<Option<Plan>, TaskError> {
    let facts = Facts::of(deployment);
    let Some(disk) = deployment.disks.iter().find(|disk| disk.cid.as_ref() == Some(cid)) else {
        return Ok(None);
    };
    let Some(known) = facts.get(&disk.instance) else { return Ok(None) };
    let slug = known.instance.slug();
    if disk.active && known.vm.is_some() && known.instance.state == InstanceState::Started {
        let held = if disk.spec.is_mounted() { "mounted by" } else { "attached to" };
        return Err(TaskError::plain(format!(
            "Disk '{cid}' is {held} instance '{slug}', which is started: stop it first, or its jobs would go on writing to a \
             disk that is deleted after some days"
        )));
    }
    must_not_be_ignored(deployment, known)?;
    let id = &known.instance.spec.id;
    let mut steps = Steps::default();
    if let Some(agent) = reachable(known)? {
        steps.take_all(id, agent, [disk]);
    }
    steps.push(Action::OrphanDisk { instance: id.clone(), disk: disk.id.clone() });
    tell_names(&mut steps, known, disk.spec.name.as_ref());
    Ok(Some(of_one(deployment, known, Some("Orphan disk"), cid.to_string(), steps)))
}

/// Plans nothing but to tell something.
pub fn plan_warning(text: String) -> Plan {
    Plan {
        deployment: None,
        generation: 0,
        targets: Vec::new(),
        reservations: Vec::new(),
        phases: Vec::new(),
        record: None,
        warnings: vec![text],
        dns_subjects: Vec::new(),
    }
}

/// Plans that an instance gets a disk, and gives up the one that it has; none if it is that one.
pub fn plan_attach_disk(
    deployment: &DeploymentFacts<'_>,
    request: &AttachRequest<'_>,
) -> Result<Option<Plan>, TaskError> {
    let facts = Facts::of(deployment);
    let mut all = facts.values().filter(|known| !known.instance.compilation);
    let known = all.find(|known| matches(request.instance, &known.instance.spec)).ok_or_else(|| {
        let (slug, deployment) = (request.instance.slug(), deployment.name);
        let text = format!("Instance '{slug}' in deployment '{deployment}' was not found");
        TaskError::new(ErrorCode::AttachDiskUnknownInstance, text)
    })?;
    must_not_be_ignored(deployment, known)?;
    if known.instance.state == InstanceState::Started {
        let (slug, deployment) = (known.instance.slug(), deployment.name);
        let text = format!("Instance '{slug}' in deployment '{deployment}' must be in 'bosh stopped' state");
        return Err(TaskError::new(ErrorCode::AttachDiskInvalidInstanceState, text));
    }
    if known.disks.iter().any(|disk| disk.cid.as_ref() == Some(request.cid)) {
        return Ok(None);
    }
    let name = place(known, request)?;
    let id = &known.instance.spec.id;
    let agent = reachable(known)?;
    let mut steps = Steps::default();
    if let Some(old) = known.disks.iter().find(|disk| disk.spec.name.as_ref() == name) {
        if let Some(agent) = agent {
            steps.take_all(id, agent, [*old]);
        }
        steps.push(Action::OrphanDisk { instance: id.clone(), disk: old.id.clone() });
    }
    let mut ids = SeededIds::new(deployment.seed, "disks");
    let disk = request.orphan.map(|(id, _)| id.clone()).unwrap_or_else(|| DiskId::new(ids.next()));
    let foreign = request.orphan.is_none().then(|| foreign(known, request.copy_properties));
    let (instance, cid, at_once) = (id.clone(), request.cid.clone(), agent.is_none());
    steps.push(Action::AdoptDisk { instance, disk: disk.clone(), cid, foreign, at_once });
    if let Some(agent) = agent {
        steps.give(id, agent, (&disk, name));
    }
    tell_names(&mut steps, known, name);
    Ok(Some(of_one(deployment, known, None, known.instance.slug(), steps)))
}

/// Plans the deletion of an instance's VM; none if no instance of the deployment has it.
pub fn plan_delete_vm(deployment: &DeploymentFacts<'_>, cid: &VmCid) -> Option<Plan> {
    let facts = Facts::of(deployment);
    let vm = deployment.vms.iter().find(|vm| vm.cid.as_ref() == Some(cid))?;
    let known = facts.get(&vm.instance)?;
    let mut steps = Steps::default();
    steps.push(Action::DeleteVm { instance: vm.instance.clone(), agent: vm.agent.clone() });
    Some(of_one(deployment, known, Some("Delete VM"), cid.to_string(), steps))
}

/// Plans the deletion of a VM that nobody here knows.
pub fn plan_delete_foreign_vm(cid: &VmCid, cpi: &CpiName) -> Plan {
    let mut steps = Steps::default();
    steps.push(Action::DeleteForeignVm { cid: cid.clone(), cpi: cpi.clone() });
    let unit = Units::default().unit(cid.to_string(), BTreeSet::new(), steps);
    Plan {
        deployment: None,
        generation: 0,
        targets: Vec::new(),
        reservations: Vec::new(),
        phases: vec![stored::phase(Some("Delete VM"), 1, vec![unit])],
        record: None,
        warnings: vec![format!("VM '{cid}' is not known here; its cloud is asked to delete it")],
        dns_subjects: Vec::new(),
    }
}

/// Returns the agent through which disks can be moved; none where there is no VM.
fn reachable<'a>(known: &Known<'a>) -> Result<Option<&'a AgentId>, TaskError> {
    let Some(vm) = known.vm else { return Ok(None) };
    if known.is_unresponsive() {
        let slug = known.instance.slug();
        let text =
            format!("the agent of '{slug}' does not answer, so no disk can be moved: recreate its VM first");
        return Err(TaskError::new(ErrorCode::RpcTimeout, text));
    }
    Ok(Some(&vm.agent))
}

fn must_not_be_ignored(deployment: &DeploymentFacts<'_>, known: &Known<'_>) -> Result<(), TaskError> {
    if !known.instance.ignore {
        return Ok(());
    }
    let (slug, deployment) = (known.instance.slug(), deployment.name);
    let text = format!("Instance '{slug}' in deployment '{deployment}' is ignored: unignore it first");
    Err(TaskError::new(ErrorCode::AttachDiskInvalidInstanceState, text))
}

/// Has the agent, if there is one, know which disks have which names now that one of this name has changed.
fn tell_names(steps: &mut Steps, known: &Known<'_>, name: Option<&DiskName>) {
    if let (Some(vm), Some(_)) = (known.vm, name) {
        let instance = known.instance.spec.id.clone();
        steps.push(Action::UpdateSettings { instance, agent: vm.agent.clone() });
    }
}

/// Returns the name under which the instance gets the disk. One that had a name is never mounted, and one that had none is
/// never given to jobs as it is: neither would find on it what it expects.
fn place<'a>(known: &Known<'_>, request: &AttachRequest<'a>) -> Result<Option<&'a DiskName>, TaskError> {
    let name = request.orphan.and_then(|(_, name)| name);
    let (spec, slug, cid) = (&known.instance.spec, known.instance.slug(), request.cid);
    let fits = match name {
        None => spec.named_disks.is_empty(),
        Some(name) => spec.disk(Some(name)).is_some(),
    };
    if fits {
        return Ok(name);
    }
    let called = name.map_or_else(|| "no name".to_owned(), |name| format!("the name '{name}'"));
    let wanted: Vec<String> =
        spec.named_disks.iter().filter_map(|disk| disk.name.as_ref()).map(|n| format!("'{n}'")).collect();
    let wanted = match wanted.as_slice() {
        [] => "a disk without a name".to_owned(),
        names => format!("disks with the names {}", names.join(", ")),
    };
    Err(TaskError::plain(format!("Disk '{cid}' has {called}, and instance '{slug}' is to have {wanted}")))
}

/// Returns what is taken to be known of a disk that nobody here has made.
fn foreign(known: &Known<'_>, copy_properties: bool) -> DiskSpec {
    let own = known.mounted_disk().map(|disk| &disk.spec).or(known.instance.spec.persistent_disk.as_ref());
    match own.filter(|_| copy_properties) {
        Some(own) => own.clone(),
        None => DiskSpec {
            size_mib: UNKNOWN_SIZE_MIB,
            disk_type: None,
            cloud_properties: serde_json::Value::Object(serde_json::Map::new()),
            name: None,
        },
    }
}

fn of_one(
    deployment: &DeploymentFacts<'_>,
    known: &Known<'_>,
    title: Option<&str>,
    label: String,
    steps: Steps,
) -> Plan {
    let instance = known.instance;
    let target = stored::target(instance, instance.state, Fate::Untouched, Vec::new());
    let unit = Units::default().unit(label, BTreeSet::new(), steps);
    stored::plan(deployment, vec![target], vec![stored::phase(title, 1, vec![unit])], Vec::new())
}
