//! Where the recordings are.

use std::path::PathBuf;

/// Returns a part of the recordings: from the folder that `RECORDED` names if it has that part, else our own.
pub fn recorded(part: &str) -> PathBuf {
    let other = std::env::var_os("RECORDED").map(|folder| PathBuf::from(folder).join(part));
    other.filter(|path| path.exists()).unwrap_or_else(|| our_own().join(part))
}

fn our_own() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}
