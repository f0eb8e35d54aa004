//! What agents were told to do, written down for whoever compares it afterwards.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use model::AgentId;
use serde_json::{Value, json};
use tracing::warn;

/// A file that gets a line of JSON for each call, when the agent begins with it. `sim-cpi` may append to the same file:
/// then its order is that of all that was done.
#[derive(Debug)]
pub struct AgentCalls(File);

impl AgentCalls {
    /// Opens a file, to append to it.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    pub(crate) fn note(&self, agent: &AgentId, method: &str, arguments: &[Value]) {
        let line = json!({ "agent": agent, "method": method, "arguments": arguments });
        // One write: several processes append side by side.
        if let Err(error) = (&self.0).write_all(format!("{line}\n").as_bytes()) {
            warn!(%agent, method, %error, "a call can't be written down");
        }
    }
}
