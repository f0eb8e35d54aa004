//! `config/blobs.yml` and the files under `blobs/` that it lists.

use std::path::Path;

use serde_json::Value;

use super::files::walk;
use super::{CreateError, read_yaml};
use crate::digest::MultiDigest;

/// Refuses unless `blobs/` holds exactly what `config/blobs.yml` lists.
///
/// The `bosh` CLI deletes files that are not listed and downloads missing ones. We have no business deleting somebody's
/// file and no blobstore to ask, so both are errors.
pub(super) fn check(root: &Path) -> Result<(), CreateError> {
    let (config_path, folder) = (root.join("config/blobs.yml"), root.join("blobs"));
    let listed = if config_path.exists() { read_yaml(&config_path)? } else { serde_json::Map::new() };
    let present = if folder.is_dir() { walk(&folder)? } else { Vec::new() };
    for path in &present {
        let file = folder.join(path);
        if file.is_symlink() {
            return Err(CreateError::invalid(&file, "is a symbolic link; blobs must be files"));
        }
        if !listed.contains_key(path) {
            return Err(CreateError::invalid(
                &file,
                "is not listed in config/blobs.yml: add it there or remove it",
            ));
        }
    }
    for (path, entry) in &listed {
        let file = folder.join(path);
        if !present.contains(path) {
            return Err(CreateError::invalid(&file, "is missing: config/blobs.yml lists it"));
        }
        check_content(&config_path, &file, path, entry)?;
    }
    Ok(())
}

fn check_content(config: &Path, file: &Path, path: &str, entry: &Value) -> Result<(), CreateError> {
    let wrong = |why: &str| CreateError::invalid(config, format!("has no {why} for '{path}'"));
    let size = entry.get("size").and_then(Value::as_u64).ok_or_else(|| wrong("size"))?;
    let digest = entry.get("sha").and_then(Value::as_str).ok_or_else(|| wrong("sha"))?;
    let digest =
        MultiDigest::parse(digest).map_err(|e| CreateError::invalid(config, format!("'{path}': {e}")))?;
    let actual_size = file.metadata().map_err(CreateError::file("look at", file))?.len();
    if actual_size != size {
        let why = format!("has {actual_size} bytes, config/blobs.yml says {size}");
        return Err(CreateError::invalid(file, why));
    }
    let matches = std::fs::File::open(file).and_then(|content| digest.matches_content(content));
    if matches.map_err(CreateError::file("read", file))? {
        return Ok(());
    }
    Err(CreateError::invalid(file, format!("does not have the digest that config/blobs.yml says: {digest}")))
}
