//! Errors of a request to an agent.

use std::time::Duration;

use model::AgentId;

/// Why a request to an agent gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No replica holds a stream of this agent, or it broke and did not come back in time.
    #[error("agent {agent} is not connected to any director")]
    Unreachable {
        /// The agent.
        agent: AgentId,
    },
    /// The agent did not answer in time; what it was asked may be done or not.
    #[error("timed out sending '{method}' to agent {agent} after {} seconds", timeout.as_secs())]
    TimedOut {
        /// The agent.
        agent: AgentId,
        /// What was asked.
        method: &'static str,
        /// How long we waited.
        timeout: Duration,
    },
    /// The agent tried and failed.
    #[error("Action Failed {method}: {message}")]
    Failed {
        /// What was asked.
        method: &'static str,
        /// The agent's words.
        message: String,
    },
    /// The agent does not know this method.
    #[error("unknown message {method}")]
    UnknownMethod {
        /// What was asked.
        method: String,
    },
    /// The agent has no record of the request that was to be attached to.
    #[error("agent {agent} has no record of request {request}: it was lost with an agent restart")]
    UnknownRequest {
        /// The agent.
        agent: AgentId,
        /// The request.
        request: model::RequestId,
    },
    /// The agent has already heard from a later leader.
    #[error("agent {agent} refused: its epoch is {current}")]
    StaleEpoch {
        /// The agent.
        agent: AgentId,
        /// The epoch it has seen.
        current: model::Epoch,
    },
    /// The request was cancelled.
    #[error("'{method}' was cancelled on agent {agent}")]
    Cancelled {
        /// The agent.
        agent: AgentId,
        /// What was asked.
        method: &'static str,
    },
}
