//! Stemcells as their upload filed them: one record per CPI.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::*;
use crate::instance::StemcellRef;

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
}
