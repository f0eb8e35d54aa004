//! Deployments: their row, their generation, their last success.

use model::plan::DeploymentRecord;
use model::*;
use serde_json::{Value, json};

use super::dns;
use super::tx::{Tx, invalid};
use crate::command::Refusal;
use crate::records::{Deployment, VariableSet};
use crate::rows::TaskRow;
use crate::tables::*;

/// Makes sure that a deployment has a row.
pub(super) fn ensure(tx: &mut Tx<'_>, name: &DeploymentName) {
    if !tx.has(&DEPLOYMENTS, name) {
        let row = Deployment { name: name.clone(), generation: 0, record: None, created_at: tx.at };
        tx.put(&DEPLOYMENTS, name, &row);
    }
}

/// Moves a deployment's generation: plans that were made before are refused from here on.
pub(super) fn bump(tx: &mut Tx<'_>, name: &DeploymentName) {
    if let Some(mut row) = tx.get(&DEPLOYMENTS, name) {
        row.generation = row.generation.saturating_add(1);
        tx.put(&DEPLOYMENTS, name, &row);
    }
}

/// Moves the generation of every deployment that a task works on: what it planned with may be gone.
pub(super) fn bump_in_work(tx: &mut Tx<'_>) {
    for name in tx.state().deployments_in_work() {
        bump(tx, &name);
    }
}

/// Returns releases and stemcells as audit events show them.
pub(super) fn summary(record: Option<&DeploymentRecord>) -> Value {
    let Some(record) = record else { return json!({}) };
    let releases: Vec<String> =
        record.releases.iter().map(|used| format!("{}/{}", used.name, used.version)).collect();
    let stemcells: Vec<String> =
        record.stemcells.iter().map(|(name, version)| format!("{name}/{version}")).collect();
    json!({ "releases": releases, "stemcells": stemcells })
}

/// `SaveDeployment`: the plan's record becomes the last success, and its variable set a deployed one.
pub(super) fn save(tx: &mut Tx<'_>, task: &TaskRow) -> Result<(), Refusal> {
    let record = tx
        .get(&PLAN_RECORDS, &task.id)
        .ok_or_else(|| invalid("saving the deployment", "the plan has no record of it"))?;
    let mut row = tx.need(&DEPLOYMENTS, &record.name, "deployment")?;
    if let Some(set) = tx.get(&VARIABLE_SETS, &record.variable_set) {
        tx.put(&VARIABLE_SETS, &record.variable_set, &VariableSet { deployed: true, ..set });
    }
    row.record = Some(record);
    tx.put(&DEPLOYMENTS, &row.name.clone(), &row);
    Ok(())
}

/// `DeleteDeployment`. Refused while it has instances: their VMs and disks would be out of everybody's sight.
pub(super) fn delete(tx: &mut Tx<'_>, task: &TaskRow) -> Result<(), Refusal> {
    let Some(name) = &task.deployment else {
        return Err(invalid("deleting the deployment", "the task has none"));
    };
    let instance = tx.rows_of(&INSTANCES_OF, name).next().map(|((_, id), ())| id);
    if let Some(instance) = instance {
        let by = format!("instance {instance}");
        return Err(Refusal::InUse { what: "deployment".into(), name: name.to_string(), by });
    }
    let sets: Vec<VariableSetId> = tx.rows_of(&VARIABLE_SETS_OF, name).map(|((_, id), ())| id).collect();
    for set in sets {
        tx.delete(&VARIABLE_SETS, &set);
    }
    tx.delete_of(&VARIABLE_SETS_OF, name);
    dns::forget(tx, name);
    tx.delete(&MELTDOWNS, name);
    tx.delete(&DEPLOYMENTS, name);
    Ok(())
}
