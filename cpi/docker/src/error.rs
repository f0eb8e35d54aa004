//! Errors inside this crate; they become a [`CpiError`] at the edge.

use std::io;
use std::path::Path;

use cpi_api::{CpiError, CpiErrorKind};
use cpi_host::{CallError, Chain, HostError};

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
    /// Something else that happens on this machine.
    #[error(transparent)]
    Host(#[from] HostError),
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
        let known = HostError::os(doing, path);
        move |source| Self::Host(known(source))
    }

    /// Returns a refusal of `kind`.
    pub(crate) fn refused(kind: CpiErrorKind, message: impl Into<String>) -> Self {
        HostError::refused(kind, message).into()
    }

    /// Returns the HTTP status that the daemon refused with.
    pub(crate) fn status(&self) -> Option<u16> {
        let Self::Daemon { source, .. } = self else { return None };
        match **source {
            bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(status_code),
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
}

impl CallError for DockerError {
    fn into_cpi(self, method: &'static str, otherwise: CpiErrorKind) -> CpiError {
        let text = Chain(&self).to_string();
        let kind = match self {
            Self::Host(error) => return error.into_cpi(method, otherwise),
            // The daemon has no code of its own for it, it passes on the system's words.
            Self::Daemon { .. } if text.contains("no space left on device") => CpiErrorKind::NoDiskSpace,
            // Nobody knows what the daemon still does.
            Self::Daemon { source, .. } if is_lost(&source) => CpiErrorKind::TimedOut,
            Self::Daemon { .. } => otherwise,
        };
        CpiError::new(kind, method, text)
    }
}

/// Returns whether the daemon's answer was lost: the deed may be done or not.
fn is_lost(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    matches!(error, Error::RequestTimeoutError | Error::HyperResponseError { .. } | Error::IOError { .. })
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
