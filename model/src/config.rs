//! Configs as they were uploaded: cloud, runtime, CPI, resurrection and any other type.

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// One version of a named config. The newest version that is not deleted counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConfig {
    /// Its number; a new one for every change.
    pub id: ConfigId,
    /// `cloud`, `runtime`, `cpi`, `resurrection`, `deploy` or any other.
    pub kind: String,
    /// Its name; `default` unless said otherwise.
    pub name: String,
    /// The text as uploaded; placeholders unresolved.
    pub content: String,
    /// The team that owns it, if any.
    #[serde(default)]
    pub team: Option<String>,
    /// When it was uploaded.
    pub created_at: Timestamp,
    /// Whether it was deleted since.
    #[serde(default)]
    pub deleted: bool,
}
