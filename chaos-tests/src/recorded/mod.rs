//! What was recorded of BOSH's director, for the tests that compare ours with it: the archives that it was given, and the
//! account of what is the same and what is different for a reason.

mod archives;
mod declared;

use std::path::PathBuf;

pub use self::archives::Archives;
pub use self::declared::{Difference, Entry, Ledger, Place, matches};

/// Returns the folder of the recordings: ours, or where `RECORDED` says.
pub fn folder() -> PathBuf {
    let ours = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/recorded"));
    std::env::var_os("RECORDED").map_or_else(ours, PathBuf::from)
}
