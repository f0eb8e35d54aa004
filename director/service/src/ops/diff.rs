//! What a deploy would change, and what differs between two configs: which documents are compared.

use model::config::StoredConfig;
use model::instance::StemcellRef;
use model::{ConfigId, DeploymentName, ErrorCode, Version};
use serde_json::{Map, Value};
use state::State;
use state::records::Deployment;

use super::changeset::{Document, difference};
use super::configs::team_of;
use crate::{Access, Caller, Read, Right, Service, ServiceError};

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineChange {
    /// It stays.
    Same,
    /// It is new.
    Added,
    /// It goes.
    Removed,
}

impl LineChange {
    /// Returns the name that lists show: empty, `added`, `removed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// The YAML.
    pub text: String,
    /// What happens to it.
    pub change: LineChange,
}

/// What a deploy would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Changed lines, and the headings that they are under.
    pub lines: Vec<DiffLine>,
    /// The cloud configs that it would use.
    pub cloud_configs: Vec<ConfigId>,
    /// The runtime configs that it would use.
    pub runtime_configs: Vec<ConfigId>,
}

impl Service {
    /// Compares what a deploy would use with what the last one used: manifest and configs as one document, `latest`
    /// resolved. Only changed lines and the headings that they are under are returned. The deployment is the manifest's,
    /// if none is named.
    pub async fn diff(
        &self,
        caller: &Caller,
        deployment: Option<DeploymentName>,
        manifest: &str,
        no_redact: bool,
    ) -> Result<Difference, ServiceError> {
        caller.needs(Right::TeamAdmin, "compare manifests")?;
        let mut new = model::yaml::parse_mapping(manifest)?;
        let in_manifest = || DeploymentName::new(new.get("name").and_then(Value::as_str).unwrap_or_default());
        let name = deployment.unwrap_or_else(in_manifest);
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let newest = state.latest_configs();
        let deployment = state.deployment(&name);
        if let Some(deployment) = &deployment {
            caller.owns(&deployment.teams, Access::Admin, "compare manifests")?;
        }
        let old = match deployment {
            None => Map::new(),
            Some(Deployment { record: Some(record), .. }) => {
                let mut old = record.manifest.as_object().cloned().unwrap_or_default();
                let configs: Vec<_> = record.configs.iter().filter_map(|id| state.config(*id)).collect();
                merge_all(&mut old, &configs);
                old
            }
            // Never deployed well: what it would use is no news, what it is is.
            Some(_) => {
                let mut old = Map::new();
                merge_all(&mut old, &newest);
                old
            }
        };
        settle_versions(&state, &mut new);
        merge_all(&mut new, &newest);
        let ids = |kind: &str| -> Vec<ConfigId> {
            newest.iter().filter(|config| config.kind == kind).map(|config| config.id).collect()
        };
        Ok(Difference {
            lines: difference(&Document::new(old, no_redact), &Document::new(new, no_redact)),
            cloud_configs: ids("cloud"),
            runtime_configs: ids("runtime"),
        })
    }
}

/// Adds configs to a document. What a manifest says itself counts, not what the cloud config says of it.
fn merge_all(document: &mut Map<String, Value>, configs: &[StoredConfig]) {
    let mut cloud = Map::new();
    for config in configs.iter().filter(|config| config.kind == "cloud") {
        merge(&mut cloud, &config.content);
    }
    for (key, value) in cloud {
        document.entry(key).or_insert(value);
    }
    for config in configs.iter().filter(|config| config.kind == "runtime") {
        merge(document, &config.content);
    }
}

/// Adds a config to a document: lists of both, one behind the other.
fn merge(document: &mut Map<String, Value>, config: &str) {
    // It was checked when it was stored.
    let Ok(config) = model::yaml::parse_mapping(config) else { return };
    for (key, value) in config {
        match (document.get_mut(&key), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(Value::Object(map)), Value::Object(more)) => map.extend(more),
            (_, value) => drop(document.insert(key, value)),
        }
    }
}

/// Writes versions as they are stored: as texts, and the newest one for `latest`.
fn settle_versions(state: &State<'_>, manifest: &mut Map<String, Value>) {
    let newer = |a: &Version, b: &Version| model::version::compare(a.as_str(), b.as_str());
    for section in ["releases", "stemcells"] {
        let rows = manifest.get_mut(section).and_then(Value::as_array_mut);
        for row in rows.into_iter().flatten().filter_map(Value::as_object_mut) {
            let text =
                |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
            let newest = match (text(row, "name"), text(row, "os")) {
                _ if text(row, "version").as_deref() != Some("latest") => None,
                (Some(name), _) if section == "releases" => state
                    .release_versions(&name.into())
                    .into_iter()
                    .map(|found| found.release.version)
                    .max_by(newer),
                (name, os) => {
                    let found = state.stemcells().into_iter().map(|record| record.stemcell);
                    let is_it =
                        |s: &StemcellRef| Some(&s.name) == name.as_ref() || Some(&s.os) == os.as_ref();
                    found.filter(is_it).map(|stemcell| stemcell.version).max_by(newer)
                }
            };
            match (row.get("version"), newest) {
                (_, Some(newest)) => drop(row.insert("version".into(), newest.as_str().into())),
                (Some(Value::Number(number)), None) => {
                    drop(row.insert("version".into(), number.to_string().into()))
                }
                _ => {}
            }
        }
    }
}

/// One side of a comparison of configs.
#[derive(Clone, Debug)]
pub enum ConfigSide {
    /// A stored version.
    Id(ConfigId),
    /// The newest version, which need not be there.
    Latest {
        /// Its type.
        kind: String,
        /// Its name.
        name: String,
    },
    /// This text.
    Text(String),
}

impl ConfigSide {
    /// Returns the text, and which version it is of. A version that is stored must be the caller's own: both sides are
    /// shown with their secrets.
    fn read(self, state: &State<'_>, caller: &Caller) -> Result<(String, Option<ConfigId>), ServiceError> {
        let stored = match self {
            Self::Text(text) => return Ok((text, None)),
            Self::Latest { kind, name } => state.latest_config(&kind, &name),
            Self::Id(id) => Some(state.config(id).ok_or_else(|| {
                ServiceError::told(ErrorCode::ConfigNotFound, format!("Config {id} not found"))
            })?),
        };
        if let Some(config) = &stored {
            caller.owns(&team_of(config), Access::Admin, "compare configs")?;
        }
        Ok(stored.map_or_else(Default::default, |config| (config.content, Some(config.id))))
    }
}

impl Service {
    /// Compares two configs. Also returns which stored version the first side is.
    pub async fn diff_configs(
        &self,
        caller: &Caller,
        from: ConfigSide,
        to: ConfigSide,
    ) -> Result<(Vec<DiffLine>, Option<ConfigId>), ServiceError> {
        caller.needs(Right::ReadOrTeam, "compare configs")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let document = |text: &str| -> Result<Document, ServiceError> {
            Ok(match text.is_empty() {
                true => Document::new(Map::new(), true),
                false => Document::new(model::yaml::parse_mapping(text)?, true),
            })
        };
        let ((from, id), (to, _)) = (from.read(&state, caller)?, to.read(&state, caller)?);
        Ok((difference(&document(&from)?, &document(&to)?), id))
    }
}
