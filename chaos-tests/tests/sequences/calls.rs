//! Recordings, and calls: what was asked of whom.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// One command, and all calls that came of it, in the order of their sending.
#[derive(Deserialize)]
pub struct Recording {
    /// Its name.
    pub name: String,
    /// The command line.
    pub command: Vec<String>,
    /// The files that it, or what came before it, names.
    pub files: BTreeMap<String, String>,
    /// What was asked.
    pub events: Vec<Call>,
}

/// A call to the CPI or to an agent.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    /// The agent; none for the CPI.
    #[serde(default)]
    pub agent: Option<String>,
    /// The method; none for a message that is no call.
    #[serde(default)]
    pub method: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<Value>,
    /// Of a call to the CPI: who asks.
    #[serde(default)]
    pub context: Value,
    /// Of a call to the CPI: the contract.
    #[serde(default)]
    pub api_version: Value,
    /// What the CPI answered.
    #[serde(default)]
    pub result: Value,
    /// What the agent answered at once.
    #[serde(default)]
    pub reply: Value,
}

impl Call {
    /// Returns the method, with what makes it another one: which script, what kind of drain, whether a spec is one with jobs.
    pub fn what(&self) -> String {
        let first = self.arguments.first().unwrap_or(&Value::Null);
        let whom = if self.agent.is_some() { "agent" } else { "cpi" };
        match (self.method.as_str(), first.as_str()) {
            ("run_script" | "drain", Some(kind)) => format!("{whom} {} {kind}", self.method),
            ("apply", _) if first.get("packages").is_none() => format!("{whom} apply bare"),
            _ => format!("{whom} {}", self.method),
        }
    }

    /// Returns an argument that is a name.
    pub fn name(&self, at: usize) -> Option<&str> {
        self.arguments.get(at)?.as_str()
    }
}

/// Reads the recordings of a folder.
pub fn read(folder: &Path) -> Result<Vec<Recording>> {
    let mut recordings = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let text = std::fs::read(&path)?;
        let mut recording: Recording =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        recording.events.retain(|call| !call.method.is_empty());
        recordings.push(recording);
    }
    Ok(recordings)
}
