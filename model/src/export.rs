//! What an export of a release is asked for with.

use serde::{Deserialize, Serialize};

use crate::ids::*;
use crate::instance::ReleaseRef;
use crate::stemcell::StemcellVersion;

/// A release as it is to be exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseExport {
    /// Name and version.
    pub release: ReleaseRef,
    /// What it is compiled for.
    pub stemcell: StemcellVersion,
    /// Only these of its jobs, with the packages that they need; all if there are none.
    pub jobs: Vec<JobName>,
    /// What the archive's digest is told in.
    pub digest: DigestKind,
}

impl ReleaseExport {
    /// Returns the release as operators write it.
    pub fn slug(&self) -> String {
        format!("{}/{}", self.release.name, self.release.version)
    }

    /// Returns the stemcell as operators write it.
    pub fn stemcell_slug(&self) -> String {
        format!("{}/{}", self.stemcell.os, self.stemcell.version)
    }
}

/// Digests that clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestKind {
    /// What old clients know.
    Sha1,
    /// What all others want.
    Sha256,
}
