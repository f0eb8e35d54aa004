//! What goes wrong on this machine; it becomes a [`CpiError`] at the edge.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cpi_api::{CpiError, CpiErrorKind};
use model::VmCid;

use crate::call::CallError;

/// Why a call to a cloud on this machine failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The operating system refused something.
    #[error("failed to {doing} `{}`", path.display())]
    Os {
        /// The deed, as a verb ("mount", "read").
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the cloud's state does not say what it should.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else works on the object and does not come to an end.
    #[error("{holder} has held the lock `{}` for too long: end it if it hangs, then try again", path.display())]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// Who has it, for people to look at.
        holder: String,
    },
    /// The agent's VM is there, but with another token.
    #[error("another call has made VM `{cid}` for this agent")]
    MadeByAnotherCall {
        /// The VM.
        cid: VmCid,
    },
    /// The call can't be carried out, for a reason that BOSH has a name for.
    #[error("{message}")]
    Refused {
        /// BOSH's name.
        kind: CpiErrorKind,
        /// The reason.
        message: String,
    },
}

impl HostError {
    /// Returns a mapper for I/O errors that names the deed and its object.
    pub fn os<E: Into<io::Error>>(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        move |source| Self::Os { doing, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Returns a refusal of `kind`.
    pub fn refused(kind: CpiErrorKind, message: impl Into<String>) -> Self {
        Self::Refused { kind, message: message.into() }
    }
}

impl CallError for HostError {
    fn into_cpi(self, method: &'static str, otherwise: CpiErrorKind) -> CpiError {
        let kind = match &self {
            Self::MadeByAnotherCall { cid } => return CpiError::made_by_another_call(method, cid),
            Self::Refused { kind, .. } => *kind,
            // The holder may be making what the caller asks for: a refusal would say that it is not there.
            Self::Busy { .. } => CpiErrorKind::TimedOut,
            Self::Os { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                CpiErrorKind::NoDiskSpace
            }
            Self::Os { .. } | Self::Damaged { .. } => otherwise,
        };
        let error = CpiError::new(kind, method, Chain(&self).to_string());
        if matches!(self, Self::Busy { .. }) { error.retryable() } else { error }
    }
}

/// An error and its sources in one line: a CPI error is text by contract, so the chain ends here.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
