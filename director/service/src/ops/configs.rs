//! Configs: cloud, runtime and any other type.

use std::cmp::Reverse;

use model::config::StoredConfig;
use model::{ConfigId, DeploymentName, ErrorCode, RequestId};
use state::State;
use state::command::{Command, Outcome};
use state::records::Deployment;

use crate::redact::redacted_text;
use crate::{Access, Caller, List, Mutation, Page, Read, Right, Service, ServiceError};

/// A config to store.
#[derive(Clone, Debug)]
pub struct PutConfig {
    /// `cloud`, `runtime` …
    pub kind: String,
    /// Its name; `default` if empty.
    pub name: String,
    /// The YAML.
    pub content: String,
    /// Refuse unless this is the newest.
    pub expected_latest: Option<ConfigId>,
}

impl Service {
    /// Stores a config; the same content again changes nothing. Returns its id and whether it was there already.
    pub async fn put_config(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        put: PutConfig,
    ) -> Result<(ConfigId, bool), ServiceError> {
        caller.needs(Right::TeamAdmin, "change configs")?;
        let bad = |message: String| ServiceError::told(ErrorCode::BadConfig, message);
        if put.kind.is_empty() {
            return Err(bad("a config needs a type".into()));
        }
        check(&put)?;
        let name = if put.name.is_empty() { "default".to_owned() } else { put.name };
        let command = Command::ConfigPut {
            kind: put.kind,
            name,
            content: put.content,
            expected_latest: put.expected_latest,
        };
        match self.propose_owned(caller, request_id, command).await? {
            Outcome::ConfigStored { id, unchanged } => Ok((id, unchanged)),
            other => Err(bad(format!("unexpected answer {other:?}"))),
        }
    }

    /// Fails unless the caller may look at the configs of a type by the paths of its own, which know no teams.
    pub fn may_read_typed(&self, caller: &Caller, kind: &str) -> Result<(), ServiceError> {
        // Those of CPIs hold the keys of clouds.
        let right = if kind == "cpi" { Right::Admin } else { Right::Read };
        caller.needs(right, "read configs")
    }

    /// Fails unless the caller may change the configs of a type by the paths of its own.
    pub fn may_change_typed(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "change configs")
    }

    /// Returns a version of a config that the caller owns, and whether it is the newest one.
    pub async fn own_config(
        &self,
        caller: &Caller,
        id: ConfigId,
    ) -> Result<(StoredConfig, bool), ServiceError> {
        caller.needs(Right::TeamAdmin, "read configs")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let config = existing(&state, id)?;
        caller.owns(&team_of(&config), Access::Admin, "read configs")?;
        let current = is_newest(&state, &config);
        Ok((config, current))
    }

    /// Returns a config by id, or the newest of a type and name; for those who may only read, without its secrets.
    pub async fn config(
        &self,
        caller: &Caller,
        id: Option<ConfigId>,
        kind: &str,
        name: &str,
    ) -> Result<(StoredConfig, bool), ServiceError> {
        caller.needs(Right::Read, "read configs")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let name = if name.is_empty() { "default" } else { name };
        let missing =
            || ServiceError::told(ErrorCode::ConfigNotFound, format!("Config {kind}/{name} not found"));
        let config = match id {
            Some(id) => existing(&state, id)?,
            None => state.latest_config(kind, name).ok_or_else(missing)?,
        };
        let current = is_newest(&state, &config);
        Ok((shown_to(caller, config), current))
    }

    /// Lists the newest version of each config, by type and name; or all versions, newest first: those that the caller may
    /// look at.
    pub async fn configs(
        &self,
        caller: &Caller,
        kind: String,
        name: String,
        history: bool,
        page: &Page,
    ) -> Result<List<(StoredConfig, bool)>, ServiceError> {
        caller.needs(Right::ReadOrTeam, "list configs")?;
        let caller = caller.clone();
        let reader = caller.clone();
        let wanted = move |c: &StoredConfig| {
            (kind.is_empty() || c.kind == kind)
                && (name.is_empty() || c.name == name)
                && reader.owns(&team_of(c), Access::Read, "").is_ok()
        };
        self.list(Read::Linearizable, page, move |state, page| {
            let shown = |config| shown_to(&caller, config);
            if !history {
                let latest = state.latest_configs().into_iter().filter(&wanted);
                let (configs, next) = page.cut(latest, |c| (c.kind.clone(), c.name.clone()))?;
                return Ok((configs.into_iter().map(|c| (shown(c), true)).collect(), next));
            }
            let before: Option<Reverse<ConfigId>> = page.after()?;
            let all = state.configs_before(before.map(|id| id.0));
            let (configs, next) = page.cut(all.filter(wanted), |c| Reverse(c.id))?;
            let with_current = |c| {
                let current = is_newest(state, &c);
                (shown(c), current)
            };
            Ok((configs.into_iter().map(with_current).collect(), next))
        })
        .await
    }

    /// Lists which configs deployments were last deployed with, of those that the caller may look at.
    pub async fn configs_in_use(
        &self,
        caller: &Caller,
        deployments: Vec<DeploymentName>,
    ) -> Result<Vec<(DeploymentName, StoredConfig)>, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "list deployments")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let theirs = |found: &Deployment| caller.owns(&found.teams, Access::Read, "").is_ok();
        let mut found = Vec::new();
        for name in deployments {
            let record = state.deployment(&name).filter(theirs).and_then(|deployment| deployment.record);
            let used = record.iter().flat_map(|record| &record.configs).filter_map(|id| state.config(*id));
            found.extend(used.map(|config| (name.clone(), shown_to(caller, config))));
        }
        Ok(found)
    }

    /// Deletes all versions of a config. One that is not there counts as deleted; returns whether it was there.
    pub async fn delete_config(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        kind: &str,
        name: &str,
    ) -> Result<bool, ServiceError> {
        caller.needs(Right::TeamAdmin, "delete configs")?;
        let name = if name.is_empty() { "default" } else { name };
        let command = Command::ConfigDelete { kind: kind.into(), name: name.into() };
        match self.propose_owned(caller, request_id, command).await {
            Err(ServiceError::Refused(state::command::Refusal::NotFound { .. })) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Deletes one version of a config; the newest of those that are left is the current one.
    pub async fn delete_config_version(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        id: ConfigId,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::TeamAdmin, "delete configs")?;
        if let Mutation::New(looked) = self.look_for(caller, request_id.as_ref()).await? {
            let config = existing(&State::new(&*looked.view), id)?;
            caller.owns(&team_of(&config), Access::Admin, "delete configs")?;
        }
        match self.propose_owned(caller, request_id, Command::ConfigVersionDelete { id }).await {
            Err(ServiceError::Refused(state::command::Refusal::NotFound { .. })) => Err(not_found(id)),
            other => other.map(drop),
        }
    }
}

fn existing(state: &State<'_>, id: ConfigId) -> Result<StoredConfig, ServiceError> {
    state.config(id).ok_or_else(|| not_found(id))
}

fn not_found(id: ConfigId) -> ServiceError {
    ServiceError::told(ErrorCode::ConfigNotFound, format!("Config {id} not found"))
}

fn is_newest(state: &State<'_>, config: &StoredConfig) -> bool {
    state.latest_config(&config.kind, &config.name).is_some_and(|latest| latest.id == config.id)
}

/// Returns the team that owns a config, if one does.
pub(super) fn team_of(config: &StoredConfig) -> Vec<String> {
    config.team.iter().cloned().collect()
}

/// Returns a config as a caller may see it.
fn shown_to(caller: &Caller, config: StoredConfig) -> StoredConfig {
    match caller.owns(&team_of(&config), Access::Admin, "see secrets") {
        Ok(()) => config,
        Err(_) => StoredConfig { content: redacted_text(&config.content), ..config },
    }
}

/// Refuses what no deploy could use, while the operator still has the file at hand.
fn check(put: &PutConfig) -> Result<(), ServiceError> {
    let bad = |message: String| ServiceError::told(ErrorCode::BadConfig, message);
    match model::yaml::parse(&put.content) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        Ok(_) => Err(bad("YAML hash expected".into())),
        Err(error) => Err(bad(format!("Config must be valid YAML: {error}"))),
    }
}
