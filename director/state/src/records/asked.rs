//! What was asked of agents that remember nothing themselves: those of BOSH's stemcells.

use model::*;
use serde::{Deserialize, Serialize};

/// How far a request to an agent has come, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedStage {
    /// It was about to be asked.
    Asked,
    /// The agent is at it, as this task of its own.
    Running {
        /// The agent's number for it.
        agent_task: String,
    },
    /// It ended well, with this result, JSON.
    Done {
        /// The result.
        json: String,
    },
    /// The agent failed, in its words.
    Failed {
        /// The words.
        words: String,
    },
    /// The agent has no such method.
    UnknownMethod,
    /// The agent was at it, was restarted, and knows nothing of it any more.
    Lost,
}

impl AskedStage {
    /// Returns whether nothing more comes of it.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Asked | Self::Running { .. })
    }
}

/// A request to such an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedOfAgent {
    /// How far it has come.
    pub stage: AskedStage,
    /// Since when.
    pub at: Timestamp,
}
