//! The commit that a release is built from.

use std::path::Path;
use std::process::Command;

use super::{CreateError, Uncommitted};

/// What git says about a release directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// The short hash, `empty` without commits, `non-git` outside of a repository.
    pub hash: String,
    /// Whether there are changes that are not committed.
    pub is_dirty: bool,
}

/// Asks git. Without git, or outside of a repository, a tree is never dirty.
pub(super) fn commit(root: &Path, uncommitted: Uncommitted) -> Result<Commit, CreateError> {
    let Some(_) = ask(root, &["rev-parse", "--git-dir"]) else {
        return Ok(Commit { hash: "non-git".into(), is_dirty: false });
    };
    let status = ask(root, &["status", "--porcelain=1"]).unwrap_or_default();
    let is_dirty = !status.trim().is_empty();
    if is_dirty && uncommitted == Uncommitted::Refuse {
        return Err(CreateError::Uncommitted { status });
    }
    let hash = ask(root, &["rev-parse", "--short", "HEAD"]).map_or("empty".into(), |h| h.trim().to_owned());
    Ok(Commit { hash, is_dirty })
}

fn ask(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
