//! Stemcells as their upload filed them: one record per CPI.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::*;
use crate::instance::StemcellRef;
use crate::version;

/// A stemcell whatever cloud it is in: what a compiled package is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StemcellVersion {
    /// Its operating system.
    pub os: String,
    /// Its exact version.
    pub version: Version,
}

impl StemcellVersion {
    /// Returns whether the two are of one line: what is compiled for one runs on the other.
    pub fn is_in_line_with(&self, other: &Self) -> bool {
        self.os == other.os && version::line(self.version.as_str()) == version::line(other.version.as_str())
    }
}

/// How the names of all of BOSH's stemcells begin, and with them those of what takes their place.
const BOSH: &str = "bosh-";

/// How the names of ours begin.
const OURS: &str = "bosh-directorate-";

impl StemcellRef {
    /// Returns whether the agent inside is BOSH's own: it is in what BOSH's makers publish, and our stemcells have ours.
    pub fn has_bosh_s_agent(&self) -> bool {
        self.name.starts_with(BOSH) && !self.name.starts_with(OURS)
    }
}

/// A stemcell in one CPI's cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StemcellRecord {
    /// Name, version, CPI and cloud id.
    pub stemcell: StemcellRef,
    /// The image's digest as stemcell.MF gives it.
    pub digest: String,
    /// What stemcell.MF tells the CPI.
    pub cloud_properties: Value,
    /// Formats of the image (`stemcell_formats`).
    pub formats: Vec<String>,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
    /// Whether it is being deleted: its image may be gone, so nothing new is made from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retired: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}
