//! Why an operation was not done. The doors know the status codes; here are only reasons.

use model::task::TaskError;
use model::{ErrorCode, UserName};
use state::command::Refusal;
use state::log::LogError;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Name and password, or token, are missing or wrong. Does not say which.
    #[error("not authorized: log in with a user of this fleet")]
    Unauthenticated,
    /// Known, but not allowed.
    #[error("user '{user}' may not {operation}. Require one of the scopes: {}", scopes.join(", "))]
    Forbidden {
        /// Who.
        user: UserName,
        /// What.
        operation: &'static str,
        /// Each of which would do.
        scopes: Vec<String>,
    },
    /// What was given makes no sense, or what was named is not there; with BOSH's number.
    #[error(transparent)]
    Told(#[from] TaskError),
    /// The state said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log gave no answer: the operation may have happened. Ask again with the same request id.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state of the fleet has not arrived at this replica yet, or not in time.
    #[error("the fleet's state has not arrived at this director yet: ask another one, or again")]
    NoState,
    /// Too many ask for the same thing at once.
    #[error("too many {0} already: ask again in a moment")]
    Busy(&'static str),
    /// Changes before this revision are not kept any more.
    #[error("changes up to revision {oldest} are compacted: list again and watch from there")]
    Compacted {
        /// The oldest revision that can be watched from.
        oldest: u64,
    },
}

impl ServiceError {
    /// Makes an error with one of BOSH's numbers.
    pub fn told(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Told(TaskError::new(code, message))
    }
}
