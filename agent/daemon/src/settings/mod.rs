//! Where a new machine learns who it is: from the file that our CPI writes, or from wherever a CPI of BOSH's leaves it.
//!
//! BOSH's stemcells say where in `agent.json` (`Infrastructure.Settings.Sources`); the first source that has something gives the
//! whole document. What was found last is kept below the base directory: clouds take their metadata away, and machines are
//! restarted without them.
//!
//! Deliberately *not* here: what the document asks of the machine itself (partitions, passwords). The image sees to these, or the
//! cloud; to networks, too, unless it leaves them to us ([`crate::configure_networks`]).
//!
//! Read next: [`Sources`], then [`read`].

mod drive;
mod http;
mod source;

use std::path::{Path, PathBuf};

use model::agent_settings::{AgentDisks, AgentSettings, AgentVm};
use serde::Deserialize;
use serde_json::Value;
use tracing::{info, warn};

use self::source::Source;
use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::layout::Layout;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file of the agent's own can't be read.
    #[error("cannot read `{path}`")]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// It can be read, and says nothing that can be understood.
    #[error("cannot understand `{path}`: {why}")]
    Unclear {
        /// Which one.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// No source has settings, and none are kept from before.
    #[error("no source of settings has any: {0}")]
    Nowhere(String),
}

/// Where settings may be, as a stemcell says it.
#[derive(Debug, Deserialize)]
pub struct Sources {
    #[serde(rename = "Infrastructure")]
    infrastructure: Infrastructure,
}

#[derive(Debug, Deserialize)]
struct Infrastructure {
    #[serde(rename = "Settings")]
    settings: Listed,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Sources")]
    sources: Vec<Source>,
}

impl Sources {
    /// Reads them from an `agent.json`.
    ///
    /// # Errors
    /// If there is none, or it names no source, or one of a type that is not known.
    pub fn open(path: &Path) -> Result<Self, SettingsError> {
        let file = |source| SettingsError::File { path: path.to_owned(), source };
        let unclear = |why: String| SettingsError::Unclear { path: path.to_owned(), why };
        let sources: Self = serde_json::from_slice(&std::fs::read(path).map_err(file)?)
            .map_err(|error| unclear(error.to_string()))?;
        match sources.infrastructure.settings.sources.is_empty() {
            true => Err(unclear("`Infrastructure.Settings.Sources` is empty".into())),
            false => Ok(sources),
        }
    }

    /// Returns the settings of the first source that has any, and keeps them; or those that were kept.
    ///
    /// # Errors
    /// If there are none anywhere.
    pub async fn settings(&self, layout: &Layout) -> Result<AgentSettings, SettingsError> {
        let mut whys = Vec::new();
        for source in &self.infrastructure.settings.sources {
            let found = async { understand(&source.document().await?) };
            match found.await {
                Ok(settings) => {
                    info!(source = source.name(), "settings were found");
                    keep(layout, &settings);
                    return Ok(settings);
                }
                Err(error) => {
                    warn!(source = source.name(), error = error.chain(), "a source has no settings");
                    whys.push(format!("{}: {}", source.name(), error.chain()));
                }
            }
        }
        match durable::read_json(&layout.settings()) {
            Ok(Some(kept)) => Ok(kept),
            Ok(None) => Err(SettingsError::Nowhere(whys.join("; "))),
            Err(source) => Err(SettingsError::File { path: layout.settings(), source }),
        }
    }
}

/// Reads a file of settings, in our words or in BOSH's.
///
/// # Errors
/// If there is none, or it names no agent or no director.
pub fn read(path: &Path) -> Result<AgentSettings, SettingsError> {
    let file = |source| SettingsError::File { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(file)?;
    understand(&text).map_err(|error| SettingsError::Unclear { path: path.to_owned(), why: error.chain() })
}

fn keep(layout: &Layout, settings: &AgentSettings) {
    if let Err(error) = durable::write_json(&layout.settings(), settings, Readers::Owner) {
        warn!(%error, "the settings are not kept for a start without their source");
    }
}

/// A document as a CPI of BOSH's hands it on: what our agent needs is where our director has put it, below `env`.
#[derive(Deserialize)]
struct OfBosh {
    agent_id: String,
    #[serde(default)]
    vm: AgentVm,
    #[serde(default)]
    networks: std::collections::BTreeMap<String, Value>,
    #[serde(default)]
    disks: Value,
    #[serde(default)]
    env: Value,
}

/// Where a director is and what is shown to it, in an env.
#[derive(Deserialize)]
struct Directorate {
    endpoints: Vec<String>,
    authorities_pem: String,
    token: String,
}

/// Reads a document. What went wrong is said without quoting it: it holds secrets.
fn understand(document: &[u8]) -> Result<AgentSettings, ActionError> {
    let value: Value =
        serde_json::from_slice(document).map_err(|_| ActionError::failed("the settings are no JSON"))?;
    if value.get("endpoints").is_some() {
        return serde_json::from_value(value).map_err(|_| {
            ActionError::failed("`agent_id`, `endpoints`, `authorities_pem` or `token` is missing")
        });
    }
    let OfBosh { agent_id, vm, networks, disks, env } = serde_json::from_value(value)
        .map_err(|_| ActionError::failed("`agent_id` is missing, or something is not what it should be"))?;
    let Directorate { endpoints, authorities_pem, token } =
        Deserialize::deserialize(&env["bosh"]["directorate"]).map_err(|_| {
            ActionError::failed("`env.bosh.directorate` is missing: the VM is of another director's")
        })?;
    let path = |disk: &Value| disk.as_str().or(disk["path"].as_str()).map(str::to_owned);
    let persistent = disks["persistent"].as_object().into_iter().flatten();
    let disks = AgentDisks {
        system: path(&disks["system"]),
        ephemeral: path(&disks["ephemeral"]),
        persistent: persistent.map(|(cid, hint)| (cid.as_str().into(), hint.clone())).collect(),
    };
    let agent_id = agent_id.into();
    Ok(AgentSettings {
        agent_id,
        vm,
        endpoints,
        authorities_pem,
        token,
        networks,
        disks,
        env,
        ..AgentSettings::default()
    })
}

#[cfg(test)]
mod tests;
