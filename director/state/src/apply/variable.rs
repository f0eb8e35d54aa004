//! Variables: versions by name, and sets that pin which version a deploy sees.

use std::collections::BTreeSet;

use model::*;

use super::deed::Deed;
use super::task::working;
use super::tx::{Tx, invalid, not_found};
use crate::command::{NewVariable, Outcome, Refusal, VariablePin};
use crate::records::{Variable, VariableSet};
use crate::tables::*;

/// The newest sets of a deployment that are kept whatever refers to them.
const SETS_KEPT: usize = 10;

/// From so many sets on the old ones are looked through. More than are kept: the search reads all instances.
const SETS_BEFORE_PRUNING: usize = 20;

/// `VariableSetOpen`. A task has one set: a new leader that plans again gets the same.
pub(super) fn open_set(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    deployment: &DeploymentName,
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let opened = tx.get(&VARIABLE_SET_BY_TASK, &task.id);
    if let Some(id) = opened.filter(|id| tx.has(&VARIABLE_SETS, id)) {
        return Ok(Outcome::VariableSet(id));
    }
    prune_sets(tx, deployment);
    let id = VariableSetId(tx.next_number("variable_sets"));
    let set = VariableSet { id, deployment: deployment.clone(), task: task.id, ..VariableSet::default() };
    tx.put(&VARIABLE_SETS, &id, &set);
    tx.put(&VARIABLE_SETS_OF, &(deployment.clone(), id), &());
    tx.put(&VARIABLE_SET_BY_TASK, &task.id, &id);
    Ok(Outcome::VariableSet(id))
}

/// `VariablesPut`.
pub(super) fn put(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    set: VariableSetId,
    values: &[NewVariable],
) -> Result<Outcome, Refusal> {
    let mut row = own_set(tx, by, set)?;
    for value in values {
        if !row.pins.contains_key(&value.name) {
            let version = store(tx, value)?;
            row.pins.insert(value.name.clone(), version);
        }
    }
    tx.put(&VARIABLE_SETS, &set, &row);
    Ok(Outcome::Done)
}

/// `VariablesPin`. What was seen first counts.
pub(super) fn pin(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    set: VariableSetId,
    pins: &[VariablePin],
) -> Result<Outcome, Refusal> {
    let mut row = own_set(tx, by, set)?;
    for pin in pins {
        if !tx.has(&VARIABLES, &(pin.name.clone(), pin.version)) {
            return Err(not_found("variable", format!("{} (version {})", pin.name, pin.version)));
        }
        let pinned = match &pin.provider {
            None => &mut row.pins,
            Some(provider) => row.linked.entry(provider.clone()).or_default(),
        };
        pinned.entry(pin.name.clone()).or_insert(pin.version);
    }
    tx.put(&VARIABLE_SETS, &set, &row);
    Ok(Outcome::Done)
}

/// Returns the set that a task opened, which nobody else may change.
fn own_set(tx: &mut Tx<'_>, by: (TaskId, Epoch), set: VariableSetId) -> Result<VariableSet, Refusal> {
    let task = working(tx, by)?;
    let row = tx.need(&VARIABLE_SETS, &set, "variable set")?;
    if row.task != task.id {
        return Err(invalid(format!("variable set {set}"), format!("task {} opened it", row.task)));
    }
    Ok(row)
}

/// Returns the set whose versions a deed on an instance uses; zero, which is nobody's, if there is none.
pub(super) fn set_for(tx: &Tx<'_>, deed: &Deed<'_>, instance: &InstanceId) -> VariableSetId {
    let sets = tx.state().variable_sets_for(deed.task.id, instance);
    sets.first().map(|set| set.id).unwrap_or_default()
}

/// Stores a value as the newest version, or finds the newest one where there is no value; returns its version.
fn store(tx: &mut Tx<'_>, value: &NewVariable) -> Result<u64, Refusal> {
    let latest = tx.state().latest_variable(&value.name).map(|variable| variable.version);
    let Some(sealed) = &value.sealed else {
        return latest.ok_or_else(|| not_found("variable", value.name.as_str()));
    };
    let version = latest.unwrap_or(0).saturating_add(1);
    let variable = Variable {
        name: value.name.clone(),
        version,
        kind: value.kind.clone(),
        options_digest: value.options_digest.clone(),
        sealed: sealed.clone(),
        created_at: tx.at,
    };
    tx.put(&VARIABLES, &(value.name.clone(), version), &variable);
    Ok(version)
}

/// Drops sets that nothing refers to any more.
fn prune_sets(tx: &mut Tx<'_>, deployment: &DeploymentName) {
    let sets: Vec<VariableSetId> =
        tx.rows_of(&VARIABLE_SETS_OF, deployment).map(|((_, id), ())| id).collect();
    if sets.len() < SETS_BEFORE_PRUNING {
        return;
    }
    let state = tx.state();
    let mut used = BTreeSet::new();
    for instance in state.instances(deployment) {
        used.insert(instance.variable_set);
        used.extend(state.vms(&instance.spec.id).iter().map(|vm| vm.variable_set));
        used.extend(state.disks(&instance.spec.id).iter().map(|disk| disk.variable_set));
    }
    let record = tx.get(&DEPLOYMENTS, deployment).and_then(|row| row.record);
    used.extend(record.map(|record| record.variable_set));
    for id in &sets[..sets.len() - SETS_KEPT] {
        if !used.contains(id) {
            tx.delete(&VARIABLE_SETS, id);
            tx.delete(&VARIABLE_SETS_OF, &(deployment.clone(), *id));
        }
    }
}
