//! What goes wrong when a stemcell is made.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no stemcell.
#[derive(Debug, thiserror::Error)]
pub enum StemcellError {
    /// The operating system refused something.
    #[error("failed to {doing} `{}`", path.display())]
    Os {
        /// The deed, as a verb ("open", "write").
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It can't be made of what there is.
    #[error("{0}")]
    Refused(String),
}

impl StemcellError {
    /// Returns a mapper for I/O errors that names the deed and its object.
    pub(crate) fn os<E: Into<io::Error>>(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Os { doing, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Returns a refusal.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }
}
