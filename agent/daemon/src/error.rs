//! Why an action failed.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

/// A failed action. Its text goes to the director and from there to an operator: it must hold no secret.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The action says why.
    #[error("{0}")]
    Failed(String),
    /// A file stands in the way.
    #[error("cannot {operation} `{path}`")]
    File {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The request has too few arguments.
    #[error("Not enough arguments, expected {expected}, got {got}")]
    NotEnoughArguments {
        /// How many are needed.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// An argument is not what it should be.
    #[error("argument {position} is not {expected}")]
    BadArgument {
        /// Which, from 0.
        position: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// The action does not exist on this machine.
    #[error("unknown message {0}")]
    UnknownMethod(String),
    /// The director asked to give it up.
    #[error("cancelled")]
    Cancelled,
}

impl ActionError {
    /// Returns a closure for `map_err` on file operations.
    pub fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }

    /// Returns a failure that says `message`.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Returns the text with all its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Runs blocking file work on the threads that are meant for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ActionError> + Send + 'static,
) -> Result<T, ActionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ActionError::failed("the agent's file work panicked")),
    }
}
