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

/// Returns whether a text is a UUID.
pub fn is_uuid(text: &str) -> bool {
    let form = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(form)
}
