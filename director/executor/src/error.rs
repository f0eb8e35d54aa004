//! How steps and tasks fail.

use agent_api::AgentError;
use cpi_api::{CpiError, CpiErrorKind};
use model::task::TaskError;
use model::{Epoch, ErrorCode};
use state::command::Refusal;
use state::log::LogError;

use crate::lease::Lost;

/// Why a step gave no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It failed for good: the unit is over, the instance stays dirty.
    #[error(transparent)]
    Failed(TaskError),
    /// It failed in a way that another attempt may mend.
    #[error(transparent)]
    Again(TaskError),
    /// Somebody asked for the task to be cancelled, and this was a checkpoint.
    #[error("the task was cancelled")]
    Cancelled,
    /// This replica may no longer act. Nothing is recorded: the next leader goes on here.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The log gave no answer. Nothing is recorded: the task is taken up again.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl StepError {
    /// Makes a failure for which BOSH has no number.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::Failed(TaskError::plain(message))
    }

    /// Makes a failure with one of BOSH's numbers.
    pub fn coded(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Failed(TaskError::new(code, message))
    }

    /// Translates a cloud's failure.
    pub fn from_cpi(error: CpiError, epoch: Epoch) -> Self {
        let told = TaskError::plain(error.to_string());
        match error.kind {
            CpiErrorKind::Fenced => Self::Lost(Lost { epoch }),
            CpiErrorKind::VmCreationFailed if error.ok_to_retry => Self::Again(told),
            _ => Self::Failed(told),
        }
    }

    /// Translates an agent's failure; `slug` names the instance as operators write it.
    pub fn from_agent(error: AgentError, slug: &str, epoch: Epoch) -> Self {
        match error {
            AgentError::StaleEpoch { .. } => Self::Lost(Lost { epoch }),
            AgentError::Cancelled { .. } => Self::Cancelled,
            AgentError::TimedOut { agent, method, timeout } => Self::coded(
                ErrorCode::RpcTimeout,
                format!(
                    "Timed out sending '{method}' to instance: '{slug}', agent-id: '{agent}' after {} seconds",
                    timeout.as_secs()
                ),
            ),
            AgentError::Unreachable { agent } => Self::coded(
                ErrorCode::RpcTimeout,
                format!(
                    "instance '{slug}' can't be reached: its agent '{agent}' is not connected to any director"
                ),
            ),
            // Only what must not be done twice is attached to instead of being asked for again.
            AgentError::UnknownRequest { .. } => Self::coded(
                ErrorCode::RpcRemoteException,
                format!(
                    "{slug}: a director failed when it was about to ask for this, and the agent has no record of it. It \
                     was not repeated, since it may have been done: look at the instance, then run the command again"
                ),
            ),
            other @ (AgentError::Failed { .. } | AgentError::UnknownMethod { .. }) => {
                Self::coded(ErrorCode::RpcRemoteException, format!("{slug}: {other}"))
            }
        }
    }
}

impl From<Refusal> for StepError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StaleEpoch { given, .. } => Self::Lost(Lost { epoch: given }),
            other => Self::plain(format!("the state refused: {other}")),
        }
    }
}

/// Returns whether a failed call may have done its deed all the same.
pub fn leaves_open(error: &CpiError) -> bool {
    matches!(error.kind, CpiErrorKind::TimedOut | CpiErrorKind::InvalidResponse)
}

/// Why a task's driver stopped without having ended the task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// Another director leads, or may lead.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The log gave no answer; the task is taken up again.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state refused what only a bug or another leader explains.
    #[error("the state refused: {0}")]
    Refused(Refusal),
}

impl From<Refusal> for Interrupted {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StaleEpoch { given, .. } => Self::Lost(Lost { epoch: given }),
            other => Self::Refused(other),
        }
    }
}
