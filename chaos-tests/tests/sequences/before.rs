//! What leads up to each recording: `before.toml`.

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A recording, and what comes before it. The deployments of earlier ones are gone then.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The recording's name.
    pub sequence: String,
    /// Commands of `dctl`, in which `NAME/FILE.yml` is a file of the recording NAME; and what happens behind the director's
    /// back: `crash INSTANCE`, `lose INSTANCE`; `fresh release` or `fix release` has packages compiled again.
    #[serde(default)]
    pub steps: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    story: Vec<Before>,
}

/// Reads the list.
pub fn read(text: &str) -> Result<Vec<Before>> {
    Ok(toml::from_str::<List>(text).context("before.toml")?.story)
}
