//! Deployments: their row, their generation, their last success.

use model::fields::canonical;
use model::manifest;
use model::plan::DeploymentRecord;
use model::*;
use serde_json::{Value, json};

use super::tx::{Tx, invalid};
use super::{dns, dynamic_disk, link, network};
use crate::command::{Refusal, SAME_LABEL};
use crate::records::{Deployment, VariableSet};
use crate::rows::{TaskClass, TaskRow};
use crate::tables::*;

/// Refuses a name that is none, or that is the name in DNS of another deployment: one that is there, or is about to be.
pub(super) fn check_name(tx: &Tx<'_>, name: &DeploymentName) -> Result<(), Refusal> {
    if let Err(error) = manifest::check_name(name) {
        return Err(invalid(format!("deployment {name}"), error.message));
    }
    let label = label(name);
    let open = tx.rows(&TASKS_OPEN).filter_map(|(id, ())| tx.get(&TASKS, &id));
    let open = open.filter(|task| task.class == TaskClass::Deploy).filter_map(|task| task.deployment);
    let mut others = tx.get(&DEPLOYMENT_LABELS, &label).into_iter().chain(open);
    match others.find(|other| other != name && self::label(other) == label) {
        Some(other) => Err(Refusal::Exists { what: SAME_LABEL.into(), name: other.to_string() }),
        None => Ok(()),
    }
}

/// The name in DNS.
fn label(name: &DeploymentName) -> String {
    // What has none was refused.
    canonical(name.as_str()).unwrap_or_default()
}

/// Returns the teams of a deployment that is there, or is about to be: those of the first deploy that waits to make it.
fn owners(tx: &Tx<'_>, name: &DeploymentName) -> Option<Vec<String>> {
    if let Some(row) = tx.get(&DEPLOYMENTS, name) {
        return Some(row.teams);
    }
    let open = tx.rows(&TASKS_OPEN).filter_map(|(id, ())| tx.get(&TASKS, &id));
    let mut deploys = open.filter(|task| task.class == TaskClass::Deploy);
    deploys.find(|task| task.deployment.as_ref() == Some(name)).map(|task| task.teams)
}

/// Returns the teams of a task of a deployment: the deployment's, which who asks must be of if they are no admin of the
/// director, and no more than look; or those of whoever makes it.
pub(super) fn teams_of_task(
    tx: &Tx<'_>,
    class: TaskClass,
    name: &DeploymentName,
) -> Result<Vec<String>, Refusal> {
    let Some(owners) = owners(tx, name) else { return Ok(tx.owner.teams.to_vec()) };
    if class != TaskClass::Inspect {
        tx.owner.check("deployment", name.as_str(), &owners)?;
    }
    Ok(owners)
}

/// Makes sure that a deployment has a row; a new one belongs to these teams.
pub(super) fn ensure(tx: &mut Tx<'_>, name: &DeploymentName, teams: &[String]) {
    tx.put(&DEPLOYMENT_LABELS, &label(name), name);
    if !tx.has(&DEPLOYMENTS, name) {
        let row = Deployment {
            name: name.clone(),
            generation: 0,
            record: None,
            created_at: tx.at,
            teams: teams.to_vec(),
        };
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
    let mut record = tx
        .get(&PLAN_RECORDS, &task.id)
        .ok_or_else(|| invalid("saving the deployment", "the plan has no record of it"))?;
    let mut row = tx.need(&DEPLOYMENTS, &record.name, "deployment")?;
    if let Some(set) = tx.get(&VARIABLE_SETS, &record.variable_set) {
        tx.put(&VARIABLE_SETS, &record.variable_set, &VariableSet { deployed: true, ..set });
    }
    // Plans of earlier versions say nothing about links.
    if let Some(planned) = record.planned_links.take() {
        link::save(tx, &record.name, &planned);
    }
    network::keep_only(tx, task, &record.name, &record.managed_networks);
    row.record = Some(record);
    tx.put(&DEPLOYMENTS, &row.name.clone(), &row);
    Ok(())
}

/// `DeleteDeployment`. Refused while it has instances or dynamic disks: they would be out of everybody's sight.
pub(super) fn delete(tx: &mut Tx<'_>, task: &TaskRow) -> Result<(), Refusal> {
    let Some(name) = &task.deployment else {
        return Err(invalid("deleting the deployment", "the task has none"));
    };
    let instance = tx.rows_of(&INSTANCES_OF, name).next().map(|((_, id), ())| id);
    if let Some(instance) = instance {
        let by = format!("instance {instance}");
        return Err(Refusal::InUse { what: "deployment".into(), name: name.to_string(), by });
    }
    dynamic_disk::check_none(tx, name)?;
    let sets: Vec<VariableSetId> = tx.rows_of(&VARIABLE_SETS_OF, name).map(|((_, id), ())| id).collect();
    for set in sets {
        tx.delete(&VARIABLE_SETS, &set);
    }
    tx.delete_of(&VARIABLE_SETS_OF, name);
    dns::forget(tx, name);
    link::forget(tx, name);
    network::keep_only(tx, task, name, &[]);
    tx.delete(&MELTDOWNS, name);
    tx.delete(&DEPLOYMENT_LABELS, &label(name));
    tx.delete_of(&ERRANDS, name);
    tx.delete_of(&PROBLEMS, name);
    tx.delete(&DEPLOYMENTS, name);
    Ok(())
}
