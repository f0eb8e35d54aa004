//! Errors inside this crate; they become a [`CpiError`] at the edge.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cpi_api::{CpiError, CpiErrorKind};
use model::VmCid;

/// Why a call to the Docker cloud failed.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The daemon refused something, or can't be reached.
    #[error("Docker failed to {doing} `{object}`")]
    Daemon {
        /// The deed, as a verb ("create", "start").
        doing: &'static str,
        /// What it was done to.
        object: String,
        /// The daemon's answer.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// The operating system refused something.
    #[error("failed to {doing} `{}`", path.display())]
    Os {
        /// The deed, as a verb.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of ours does not say what it should.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else works on the object and does not come to an end.
    #[error("process {holder} has held the lock `{}` for too long: end it if it hangs, then try again", path.display())]
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

impl DockerError {
    /// Returns a mapper for the daemon's answers that names the deed and its object.
    pub(crate) fn daemon(doing: &'static str, object: &str) -> impl FnOnce(bollard::errors::Error) -> Self {
        let object = object.to_owned();
        move |source| Self::Daemon { doing, object, source: Box::new(source) }
    }

    /// Returns a mapper for I/O errors that names the deed and its object.
    pub(crate) fn os<E: Into<io::Error>>(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Os { doing, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Returns a refusal of `kind`.
    pub(crate) fn refused(kind: CpiErrorKind, message: impl Into<String>) -> Self {
        Self::Refused { kind, message: message.into() }
    }

    /// Returns the HTTP status that the daemon refused with.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Daemon { source, .. } => match **source {
                bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(status_code),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns whether the daemon does not have what was asked for.
    pub(crate) fn is_absent(&self) -> bool {
        self.status() == Some(404)
    }

    /// Returns whether what is there is in the way: a name that is taken, an object in use.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Turns into what callers of `method` get; `otherwise` is the kind of errors that have none of their own.
    pub(crate) fn into_cpi(self, method: &'static str, otherwise: CpiErrorKind) -> CpiError {
        let text = Chain(&self).to_string();
        let kind = match &self {
            Self::MadeByAnotherCall { cid } => return CpiError::made_by_another_call(method, cid),
            Self::Refused { kind, .. } => *kind,
            // The holder may be making what the caller asks for: a refusal would say that it is not there.
            Self::Busy { .. } => CpiErrorKind::TimedOut,
            Self::Os { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                CpiErrorKind::NoDiskSpace
            }
            // The daemon has no code of its own for it, it passes on the system's words.
            Self::Daemon { .. } if text.contains("no space left on device") => CpiErrorKind::NoDiskSpace,
            // Nobody knows what the daemon still does.
            Self::Daemon { source, .. } if is_lost(source) => CpiErrorKind::TimedOut,
            Self::Daemon { .. } | Self::Os { .. } | Self::Damaged { .. } => otherwise,
        };
        let error = CpiError::new(kind, method, text);
        if matches!(self, Self::Busy { .. }) { error.retryable() } else { error }
    }
}

/// Returns whether the daemon's answer was lost: the deed may be done or not.
fn is_lost(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    matches!(error, Error::RequestTimeoutError | Error::HyperResponseError { .. } | Error::IOError { .. })
}

/// An error and its sources in one line: a CPI error is text by contract, so the chain ends here.
pub(crate) struct Chain<'a>(pub &'a dyn std::error::Error);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> DockerError {
        let source =
            bollard::errors::Error::DockerResponseServerError { status_code, message: message.into() };
        DockerError::daemon("start", "d-vm-a")(source)
    }

    #[test]
    fn a_refusal_names_the_deed_the_object_and_the_daemon_s_words() {
        let error =
            answer(403, "Address already in use").into_cpi("create_vm", CpiErrorKind::VmCreationFailed);
        assert_eq!(error.kind, CpiErrorKind::VmCreationFailed);
        assert_eq!(
            error.message,
            "Docker failed to start `d-vm-a`: Docker responded with status code 403: Address already in use"
        );
    }

    #[test]
    fn a_full_disk_and_a_lost_answer_are_told_apart_from_refusals() {
        let full =
            answer(500, "write /x: no space left on device").into_cpi("create_vm", CpiErrorKind::Other);
        assert_eq!(full.kind, CpiErrorKind::NoDiskSpace);
        let lost = DockerError::daemon("create", "x")(bollard::errors::Error::RequestTimeoutError);
        assert_eq!(lost.into_cpi("create_vm", CpiErrorKind::VmCreationFailed).kind, CpiErrorKind::TimedOut);
        assert!(answer(404, "no").is_absent() && answer(409, "in use").is_conflict());
    }
}
