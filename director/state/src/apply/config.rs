//! Configs: every upload is a version of its own; what is deleted is marked: all of them, or one.

use model::config::StoredConfig;
use model::*;

use super::event::{Audit, audit};
use super::tx::{Tx, not_found};
use crate::command::{Outcome, Refusal};
use crate::tables::*;

/// `ConfigPut`; `which` is the type and the name.
pub(super) fn put(
    tx: &mut Tx<'_>,
    which: (&String, &String),
    content: &str,
    expected_latest: Option<ConfigId>,
) -> Result<Outcome, Refusal> {
    let (kind, name) = which;
    let latest = tx.state().latest_config(kind, name);
    check_owner(tx, which, latest.as_ref())?;
    let latest_id = latest.as_ref().map_or(ConfigId(0), |config| config.id);
    if let Some(expected) = expected_latest.filter(|expected| *expected != latest_id) {
        return Err(Refusal::ConfigMoved { expected, latest: latest_id });
    }
    if let Some(same) = latest.as_ref().filter(|config| config.content == content) {
        return Ok(Outcome::ConfigStored { id: same.id, unchanged: true });
    }
    // A new version of what is there stays with whom it belongs to.
    let team = match latest {
        Some(latest) => latest.team,
        None => tx.owner.teams.first().cloned(),
    };
    let id = ConfigId(tx.next_number("configs"));
    let config = StoredConfig {
        id,
        kind: kind.clone(),
        name: name.clone(),
        content: content.to_owned(),
        team,
        created_at: tx.at,
        deleted: false,
    };
    tx.put(&CONFIGS, &id, &config);
    tx.put(&CONFIGS_BY_NAME, &(kind.clone(), name.clone(), id), &());
    tx.put(&CONFIGS_LATEST, &(kind.clone(), name.clone()), &id);
    audit_config(tx, Deed::Put, kind, name);
    Ok(Outcome::ConfigStored { id, unchanged: false })
}

/// Refuses to change what is another team's.
fn check_owner(tx: &Tx<'_>, which: (&String, &String), latest: Option<&StoredConfig>) -> Result<(), Refusal> {
    let Some(latest) = latest else { return Ok(()) };
    let owners: Vec<String> = latest.team.iter().cloned().collect();
    tx.owner.check("config", &format!("{}/{}", which.0, which.1), &owners)
}

/// `ConfigDelete`.
pub(super) fn delete(tx: &mut Tx<'_>, which: (&String, &String)) -> Result<Outcome, Refusal> {
    let (kind, name) = which;
    check_owner(tx, which, tx.state().latest_config(kind, name).as_ref())?;
    let numbers = tx.rows_of(&CONFIGS_BY_NAME, &(kind.clone(), name.clone()));
    let numbers: Vec<ConfigId> = numbers.map(|((_, _, id), ())| id).collect();
    let configs = numbers.iter().filter_map(|id| tx.get(&CONFIGS, id));
    let live: Vec<StoredConfig> = configs.filter(|config| !config.deleted).collect();
    if live.is_empty() {
        return Err(not_found("config", format!("{kind}/{name}")));
    }
    for config in live {
        tx.put(&CONFIGS, &config.id, &StoredConfig { deleted: true, ..config.clone() });
    }
    tx.delete(&CONFIGS_LATEST, &(kind.clone(), name.clone()));
    audit_config(tx, Deed::Delete, kind, name);
    Ok(Outcome::Done)
}

/// `ConfigVersionDelete`. What deployments were deployed with is read on by its number.
pub(super) fn delete_version(tx: &mut Tx<'_>, id: ConfigId) -> Result<Outcome, Refusal> {
    let config = tx.get(&CONFIGS, &id).filter(|config| !config.deleted);
    let config = config.ok_or_else(|| not_found("config", id.to_string()))?;
    let name = (config.kind.clone(), config.name.clone());
    let latest = tx.state().latest_config(&name.0, &name.1);
    check_owner(tx, (&name.0, &name.1), Some(&config))?;
    tx.put(&CONFIGS, &id, &StoredConfig { deleted: true, ..config });
    if latest.is_some_and(|latest| latest.id == id) {
        let numbers: Vec<ConfigId> = tx.rows_of(&CONFIGS_BY_NAME, &name).map(|((_, _, id), ())| id).collect();
        let is_left = |id: &&ConfigId| tx.get(&CONFIGS, id).is_some_and(|config| !config.deleted);
        match numbers.iter().rev().find(is_left) {
            Some(newest) => tx.put(&CONFIGS_LATEST, &name, newest),
            None => tx.delete(&CONFIGS_LATEST, &name),
        }
    }
    audit_config(tx, Deed::Delete, &name.0, &name.1);
    Ok(Outcome::Done)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Put,
    Delete,
}

/// Writes the event as BOSH does: the three old types have names of their own.
fn audit_config(tx: &mut Tx<'_>, deed: Deed, kind: &str, name: &str) {
    let (object_type, put) = match kind {
        "cloud" | "runtime" | "cpi" => (format!("{kind}-config"), "update"),
        other => (format!("config/{other}"), "create"),
    };
    let action = if deed == Deed::Put { put } else { "delete" };
    let object_name = Some(name.to_owned());
    audit(tx, Audit { action, object_type: &object_type, object_name, ..Audit::default() });
}
