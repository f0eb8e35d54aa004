//! Release, job and stemcell archives: reading with bounds, writing reproducibly.
//!
//! Whatever is read here was uploaded by somebody. Nothing is unpacked into the file system, links are never followed
//! out of an archive, and [`Limits`] bound what a small file can expand to. A refusal carries BOSH's error number and
//! names the entry. Everything here blocks: call it on a blocking thread.

pub mod dependencies;
mod entries;
mod exported;
mod job;
mod manifest;
pub mod pack;
mod release;
mod stemcell;

use std::io;

use model::ErrorCode;
use model::task::TaskError;

pub use entries::Limits;
pub use exported::{ExportedPackage, exported_manifest};
pub use job::JobArchive;
pub use manifest::{JobRow, PackageRow, ReleaseManifest};
pub use release::{ImportedCompiledPackage, ImportedRelease, KnownParts, ReleaseArchive};
pub use stemcell::{ImportedStemcell, StemcellArchive, StemcellManifest};

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
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ArchiveError {
    /// Returns a refusal that is ours alone.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// Returns a refusal with its cause.
    pub fn caused(
        code: ErrorCode,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { code, message: message.into(), source: Some(source.into()) }
    }
}

impl From<TaskError> for ArchiveError {
    fn from(error: TaskError) -> Self {
        Self::new(ErrorCode::from_number(error.code).unwrap_or(ErrorCode::Unknown), error.message)
    }
}

impl From<ArchiveError> for TaskError {
    fn from(error: ArchiveError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// Copies at most what an entry announces into an anonymous file, so that it can be checked before it is stored.
fn spool(content: &mut dyn io::Read) -> io::Result<std::fs::File> {
    use io::Seek as _;
    let mut file = tempfile::tempfile()?;
    io::copy(content, &mut file)?;
    file.rewind()?;
    Ok(file)
}
