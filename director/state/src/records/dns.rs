//! What agents were given of DNS.

use model::*;
use serde::{Deserialize, Serialize};

/// A document of DNS records that agents may fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsBlob {
    /// Its version: one more than the one before it.
    pub version: u64,
    /// A digest of what it says, whatever its version: the next one says something else.
    pub content: String,
    /// The document.
    pub blob: BlobDigest,
    /// Since when.
    pub at: Timestamp,
}
