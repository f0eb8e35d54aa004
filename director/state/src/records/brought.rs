//! What agents bring that know no addresses of blobs: those of BOSH's stemcells, which name what they bring.

use model::*;
use serde::{Deserialize, Serialize};

/// A blob that came from such an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroughtBlob {
    /// Its address.
    pub blob: BlobDigest,
    /// Its digests that such agents tell: SHA-1 and SHA-512, as BOSH writes several.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
}

/// What an agent has brought under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroughtByAgent {
    /// What.
    pub brought: BroughtBlob,
    /// When.
    pub at: Timestamp,
}
