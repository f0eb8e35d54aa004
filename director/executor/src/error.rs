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
    /// It was asked for, nobody knows whether it was done, and nobody could be asked just now. Another attempt asks first.
    #[error(transparent)]
    Unclear(TaskError),
    /// Somebody asked for the task to be cancelled, and this was a checkpoint.
    #[error("the task was cancelled")]
    Cancelled,
    /// It failed, and has something to tell all the same.
    #[error("{why}")]
    Telling {
        /// The line for the task's result.
        result_line: String,
        /// How it failed.
        why: Box<StepError>,
    },
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

impl From<Interrupted> for StepError {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Lost(lost) => Self::Lost(lost),
            Interrupted::Log(error) => Self::Log(error),
            Interrupted::Refused(refusal) => refusal.into(),
            Interrupted::Panicked => Self::plain(interrupted.to_string()),
        }
    }
}

/// The longest error text that is recorded. It goes into an entry, the journal, an event line, an audit event and the
/// task's row, which every list of tasks reads; agents and templates may have much more to say.
const ERROR_BYTES_MAX: usize = 32 << 10;

/// Cuts the middle out of an error's text that is too long to be recorded: its beginning says what failed, its end why.
pub fn recordable(mut error: TaskError) -> TaskError {
    let text = &mut error.message;
    if let Some(beyond) = text.len().checked_sub(ERROR_BYTES_MAX).filter(|beyond| *beyond > 0) {
        let head = (0..=ERROR_BYTES_MAX / 2).rfind(|at| text.is_char_boundary(*at)).unwrap_or_default();
        let tail = (head + beyond..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        text.replace_range(head..tail, &format!("\n[{} bytes left out]\n", tail - head));
    }
    error
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
    #[error("the state refuses its records: {0}")]
    Refused(Refusal),
    /// The code that drives tasks has a defect, which the director's own log shows.
    #[error("the director met a defect of its own, see its log")]
    Panicked,
}

/// Times that what may be chance is met before a task is given up. The state may refuse a record once because the task
/// was changed at the same moment; more is a defect that no repetition mends.
const CHANCES_MAX: u32 = 3;

impl Interrupted {
    /// Returns how often it may be met before the task is given up; none if time alone may mend it.
    pub fn times_max(&self) -> Option<u32> {
        match self {
            // The same words are not shorter the next time, and an upgrade of the fleet is not a matter of seconds.
            Self::Log(LogError::TooLarge { .. } | LogError::TooOld { .. }) => Some(1),
            Self::Refused(_) | Self::Panicked => Some(CHANCES_MAX),
            Self::Lost(_) | Self::Log(_) => None,
        }
    }
}
impl From<Refusal> for Interrupted {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StaleEpoch { given, .. } => Self::Lost(Lost { epoch: given }),
            other => Self::Refused(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_repetition_mends_ends_the_task_at_once() {
        let met = |error: LogError| Interrupted::Log(error).times_max();
        assert_eq!(met(LogError::TooLarge { bytes: 2, max: 1 }), Some(1));
        assert_eq!(met(LogError::TooOld { level: 1, needed: 2 }), Some(1));
        assert_eq!(met(LogError::NoLeader("nobody leads".into())), None);
        assert_eq!(Interrupted::Panicked.times_max(), Some(CHANCES_MAX));
    }

    #[test]
    fn a_long_error_keeps_its_beginning_and_its_end() {
        let short = TaskError::plain("disk full");
        assert_eq!(recordable(short.clone()), short);
        // Characters of three bytes: no cut may fall inside one.
        let text = format!("begin {} end", "\u{20ac}".repeat(40_000));
        let cut = recordable(TaskError::plain(text.clone())).message;
        assert!(cut.len() < ERROR_BYTES_MAX + 64, "{}", cut.len());
        assert!(cut.starts_with("begin \u{20ac}") && cut.ends_with("\u{20ac} end"));
        let left_out: usize = cut.split(['[', ' ']).find_map(|word| word.parse().ok()).unwrap();
        assert_eq!(cut.len() - format!("\n[{left_out} bytes left out]\n").len() + left_out, text.len());
    }
}
