//! Instances: created by a plan, changed by the record-only steps of their unit.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{Instance, InstanceSpec};
use model::plan::{Fate, Target};
use model::*;
use serde_json::json;

use super::deed::Deed;
use super::event::{Audit, audit};
use super::tx::Tx;
use super::{address, deployment, disk, dns, variable, vm};
use crate::command::{Outcome, Refusal};
use crate::tables::*;

/// `InstanceIgnore`. Plans depend on it, so the deployment's generation moves.
pub(super) fn ignore(tx: &mut Tx<'_>, id: &InstanceId, ignore: bool) -> Result<Outcome, Refusal> {
    let mut instance = tx.need(&INSTANCES, id, "instance")?;
    if instance.ignore == ignore {
        return Ok(Outcome::Done);
    }
    instance.ignore = ignore;
    tx.put(&INSTANCES, id, &instance);
    deployment::bump(tx, &instance.spec.deployment);
    let slug = instance.slug();
    let event = Audit {
        action: if ignore { "ignore" } else { "unignore" },
        object_type: "instance",
        object_name: Some(slug.clone()),
        deployment: Some(instance.spec.deployment),
        instance: Some(slug),
        ..Audit::default()
    };
    audit(tx, event);
    Ok(Outcome::Done)
}

/// Gives a planned instance its row. One that exists already (left by a failed deploy) stays as it is.
pub(super) fn create(tx: &mut Tx<'_>, target: &Target, variable_set: VariableSetId) {
    let id = &target.spec.id;
    if tx.has(&INSTANCES, id) {
        return;
    }
    let instance = Instance {
        spec: target.spec.clone(),
        state: target.state,
        update_completed: false,
        ignore: false,
        compilation: target.compilation,
        variable_set,
    };
    tx.put(&INSTANCES, id, &instance);
    tx.put(&INSTANCES_OF, &(target.spec.deployment.clone(), id.clone()), &());
}

/// `BeginUpdate`: dirty from here on.
pub(super) fn begin_update(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId) -> Result<(), Refusal> {
    let target = deed.target(tx, id)?;
    let mut instance = tx.need(&INSTANCES, id, "instance")?;
    instance.update_completed = false;
    instance.state = target.state;
    tx.put(&INSTANCES, id, &instance);
    let key = (deed.task.id, id.clone());
    if !tx.has(&TARGET_AUDITS, &key) {
        let event = audit_update(tx, deed, &instance, &target, Phase::Begin);
        tx.put(&TARGET_AUDITS, &key, &event);
    }
    Ok(())
}

/// `CompleteUpdate`.
pub(super) fn complete_update(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId) -> Result<(), Refusal> {
    let mut instance = tx.need(&INSTANCES, id, "instance")?;
    instance.update_completed = true;
    tx.put(&INSTANCES, id, &instance);
    close_audit(tx, deed, id, None);
    Ok(())
}

/// A unit that updated this instance has failed: its open audit event is closed with the error.
pub(super) fn failed(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId, error: &str) {
    close_audit(tx, deed, id, Some(error.to_owned()));
}

/// `Apply`: what the agent now has.
pub(super) fn applied(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    id: &InstanceId,
    hashes: (&String, &BTreeMap<JobName, String>),
) -> Result<(), Refusal> {
    let target = deed.target(tx, id)?;
    let mut instance = tx.need(&INSTANCES, id, "instance")?;
    let (configuration, templates) = hashes;
    instance.variable_set = variable::set_for(tx, deed, id);
    instance.spec = InstanceSpec {
        configuration_hash: Some(configuration.clone()),
        template_hashes: templates.clone(),
        ..target.spec
    };
    tx.put(&INSTANCES, id, &instance);
    Ok(())
}

/// `SaveInstance`: spec and state without touching the VM, so what was rendered stays what was rendered.
pub(super) fn save(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId) -> Result<(), Refusal> {
    let target = deed.target(tx, id)?;
    let mut instance = tx.need(&INSTANCES, id, "instance")?;
    instance.state = target.state;
    instance.variable_set = variable::set_for(tx, deed, id);
    instance.spec = InstanceSpec {
        configuration_hash: instance.spec.configuration_hash,
        template_hashes: instance.spec.template_hashes,
        ..target.spec
    };
    tx.put(&INSTANCES, id, &instance);
    Ok(())
}

/// `ReleaseAddresses`.
pub(super) fn release_addresses(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId) -> Result<(), Refusal> {
    let target = deed.target(tx, id)?;
    let kept: BTreeSet<_> = target.spec.networks.iter().filter_map(|network| network.ip).collect();
    address::release(tx, id, &kept);
    Ok(())
}

/// `DeleteInstance`. Refused while it has a VM that the cloud knows: nobody would ever delete that. Disks that are
/// left are orphaned, never lost.
pub(super) fn delete(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId) -> Result<(), Refusal> {
    let instance = tx.need(&INSTANCES, id, "instance")?;
    for left in tx.state().vms(id) {
        if left.cid.is_some() {
            let by = format!("VM of agent {}", left.agent);
            return Err(Refusal::InUse { what: "instance".into(), name: instance.slug(), by });
        }
        vm::forget(tx, &left);
    }
    for left in tx.state().disks(id) {
        disk::orphan(tx, left);
    }
    if !close_audit(tx, deed, id, None) {
        let slug = instance.slug();
        let event = Audit {
            task: Some(deed.task),
            action: "delete",
            object_type: "instance",
            object_name: Some(slug.clone()),
            instance: Some(slug),
            ..Audit::default()
        };
        audit(tx, event);
    }
    address::release(tx, id, &BTreeSet::new());
    dns::forget_instance(tx, &instance.spec.deployment, id);
    tx.delete(&INSTANCES_OF, &(instance.spec.deployment, id.clone()));
    tx.delete(&INSTANCES, id);
    Ok(())
}

enum Phase {
    Begin,
    End { parent: EventId, error: Option<String> },
}

fn audit_update(
    tx: &mut Tx<'_>,
    deed: &Deed<'_>,
    instance: &Instance,
    target: &Target,
    phase: Phase,
) -> EventId {
    let action = match target.fate {
        Fate::New => "create",
        Fate::Untouched | Fate::Updated => "update",
        Fate::Recreated => "recreate",
        Fate::Deleted => "delete",
    };
    let (parent, error, context) = match phase {
        Phase::Begin => (None, None, context(target)),
        Phase::End { parent, error } => (Some(parent), error, BTreeMap::new()),
    };
    let slug = instance.slug();
    let event = Audit {
        task: Some(deed.task),
        parent,
        action,
        object_type: "instance",
        object_name: Some(slug.clone()),
        instance: Some(slug),
        context,
        error,
        ..Audit::default()
    };
    audit(tx, event)
}

/// Returns the facts that BOSH gives with the beginning of an update: the zone, and why an existing one is touched.
fn context(target: &Target) -> BTreeMap<String, serde_json::Value> {
    let mut context = BTreeMap::new();
    if let Some(az) = &target.spec.az {
        context.insert("az".to_owned(), json!(az));
    }
    if target.fate != Fate::New && !target.changes.is_empty() {
        context.insert("changes".to_owned(), json!(target.changes));
    }
    context
}

/// Closes the event that `BeginUpdate` opened; returns whether there was one.
fn close_audit(tx: &mut Tx<'_>, deed: &Deed<'_>, id: &InstanceId, error: Option<String>) -> bool {
    let key = (deed.task.id, id.clone());
    let Some(parent) = tx.get(&TARGET_AUDITS, &key) else { return false };
    tx.delete(&TARGET_AUDITS, &key);
    let (Some(instance), Some(target)) = (tx.get(&INSTANCES, id), tx.get(&TARGETS, &key)) else {
        return false;
    };
    audit_update(tx, deed, &instance, &target, Phase::End { parent, error });
    true
}
