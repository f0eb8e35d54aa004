//! Release, job and stemcell archives: reading with bounds, writing reproducibly.
//!
//! Whatever is read here was uploaded by somebody. Nothing is unpacked into the file system, links are never followed
//! out of an archive, and [`Limits`] bound what a small file can expand to. A refusal carries BOSH's error number and
//! names the entry.

mod entries;
pub mod pack;

use std::io;

use model::ErrorCode;

pub use entries::Limits;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ArchiveError {
    /// BOSH's number for it.
    pub code: ErrorCode,
    /// What is wrong with what.
    pub message: String,
    /// What the system or a library said, if it did.
    #[source]
    pub source: Option<io::Error>,
}

impl ArchiveError {
    /// Returns a refusal that is ours alone.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// Returns a refusal with its cause.
    pub fn caused(code: ErrorCode, message: impl Into<String>, source: io::Error) -> Self {
        Self { code, message: message.into(), source: Some(source) }
    }
}
