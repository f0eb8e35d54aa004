//! What an agent tells about itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A VM's jobs as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// All run.
    Running,
    /// Some are coming up.
    Starting,
    /// At least one does not run.
    Failing,
    /// Stopped on request.
    Stopped,
    /// The supervisor does not answer.
    Unknown,
}

impl JobState {
    /// Returns its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// One supervised process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Its name in the monit file.
    pub name: String,
    /// `running`, `starting`, `failing`, `unknown`.
    pub state: String,
}

/// Answer to `get_state`: the fields that the director acts on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentState {
    /// The jobs as a whole.
    pub job_state: JobState,
    /// Each process.
    #[serde(default)]
    pub processes: Vec<ProcessState>,
    /// Networks of the stored spec, with addresses the cloud chose filled in.
    #[serde(default)]
    pub networks: Value,
    /// Vitals, with `full` only.
    #[serde(default)]
    pub vitals: Option<Value>,
}

/// What an agent sends every few seconds to the replica that watches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent.
    pub agent: model::AgentId,
    /// The jobs as a whole.
    pub job_state: JobState,
    /// Vitals as BOSH's heartbeat has them.
    pub vitals: Value,
    /// Number of supervised processes.
    pub processes: u32,
}
