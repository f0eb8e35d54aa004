//! Configs: cloud, runtime and any other type.

use std::cmp::Reverse;

use model::config::StoredConfig;
use model::{ConfigId, DeploymentName, ErrorCode, RequestId};
use state::State;
use state::command::{Command, Outcome};

use crate::redact::redacted_text;
use crate::{Caller, List, Page, Read, Right, Service, ServiceError};

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
        caller.needs(Right::Admin, "change configs")?;
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
        match self.propose(caller, request_id, command).await? {
            Outcome::ConfigStored { id, unchanged } => Ok((id, unchanged)),
            other => Err(bad(format!("unexpected answer {other:?}"))),
        }
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
        let config = match id {
            Some(id) => state.config(id),
            None => state.latest_config(kind, name),
        };
        let config = config.ok_or_else(|| {
            let which = id.map_or_else(|| format!("{kind}/{name}"), |id| id.to_string());
            ServiceError::told(ErrorCode::ConfigNotFound, format!("Config {which} not found"))
        })?;
        let current =
            state.latest_config(&config.kind, &config.name).is_some_and(|latest| latest.id == config.id);
        Ok((shown_to(caller, config), current))
    }

    /// Lists the newest version of each config, by type and name; or all versions, newest first.
    pub async fn configs(
        &self,
        caller: &Caller,
        kind: String,
        name: String,
        history: bool,
        page: &Page,
    ) -> Result<List<(StoredConfig, bool)>, ServiceError> {
        caller.needs(Right::Read, "read configs")?;
        let wanted = move |c: &StoredConfig| {
            (kind.is_empty() || c.kind == kind) && (name.is_empty() || c.name == name)
        };
        let caller = caller.clone();
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
            let current = |c: &StoredConfig| {
                state.latest_config(&c.kind, &c.name).is_some_and(|latest| latest.id == c.id)
            };
            let with_current = |c| {
                let current = current(&c);
                (shown(c), current)
            };
            Ok((configs.into_iter().map(with_current).collect(), next))
        })
        .await
    }

    /// Lists which configs deployments were last deployed with.
    pub async fn configs_in_use(
        &self,
        caller: &Caller,
        deployments: Vec<DeploymentName>,
    ) -> Result<Vec<(DeploymentName, StoredConfig)>, ServiceError> {
        caller.needs(Right::Read, "list deployments")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let mut found = Vec::new();
        for name in deployments {
            let record = state.deployment(&name).and_then(|deployment| deployment.record);
            let used = record.iter().flat_map(|record| &record.configs).filter_map(|id| state.config(*id));
            found.extend(used.map(|config| (name.clone(), shown_to(caller, config))));
        }
        Ok(found)
    }

    /// Deletes all versions of a config. One that is not there counts as deleted.
    pub async fn delete_config(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        kind: &str,
        name: &str,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "delete configs")?;
        let name = if name.is_empty() { "default" } else { name };
        let command = Command::ConfigDelete { kind: kind.into(), name: name.into() };
        match self.propose(caller, request_id, command).await {
            Err(ServiceError::Refused(state::command::Refusal::NotFound { .. })) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Returns a config as a caller may see it.
fn shown_to(caller: &Caller, config: StoredConfig) -> StoredConfig {
    match caller.needs(Right::Admin, "see secrets") {
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
