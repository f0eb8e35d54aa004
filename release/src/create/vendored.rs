//! A vendored package: `spec.lock` says which build of another release's package it is, and nothing is hashed.
//!
//! Its archive is where the CLI's `vendor-package` put it: in the blobstore of `config/final.yml`, under the id that the
//! index of builds gives. Deliberately *not* here: blobstores that are not a folder of this machine.

use std::fs::File;
use std::path::{Path, PathBuf};

use model::Fingerprint;
use serde_json::{Map, Value};

use super::manifest::{Built, Origin};
use super::{CreateError, index, read_yaml, text, text_list};
use crate::digest::MultiDigest;

/// Finds the package that `lock_path` names.
pub(super) fn find(root: &Path, lock_path: &Path) -> Result<Built, CreateError> {
    let lock = read_yaml(lock_path)?;
    let name = text(lock_path, &lock, "name")?;
    let fingerprint = Fingerprint::new(text(lock_path, &lock, "fingerprint")?);
    let build = index::blob_of(root, &Path::new("packages").join(&name), &fingerprint)?.ok_or_else(|| {
        let why = format!(
            "names build {fingerprint}, for which .final_builds/packages/{name}/index.yml has no blob"
        );
        CreateError::invalid(lock_path, why)
    })?;
    let archive = blobs(root)?.join(&build.blob_id);
    let invalid =
        |e| CreateError::invalid(&build.index, format!("has no usable digest of build {fingerprint}: {e}"));
    let digest = MultiDigest::parse(&build.digest).map_err(invalid)?;
    let content = File::open(&archive)
        .map_err(CreateError::file("open the archive of a vendored package,", &archive))?;
    if !digest.matches_content(content).map_err(CreateError::file("read", &archive))? {
        let why = format!("is not what {} says: it should have digest {digest}", build.index.display());
        return Err(CreateError::invalid(&archive, why));
    }
    Ok(Built {
        dependencies: text_list(lock_path, &lock, "dependencies")?,
        name,
        fingerprint,
        archive,
        digest: build.digest,
        sources: Vec::new(),
        origin: Origin::Vendored,
    })
}

/// Returns the folder of the release's blobstore.
fn blobs(root: &Path) -> Result<PathBuf, CreateError> {
    let [shared, private] = ["config/final.yml", "config/private.yml"].map(|file| root.join(file));
    let blobstore = |path: &Path| -> Result<Map<String, Value>, CreateError> {
        let config = if path.exists() { read_yaml(path)? } else { Map::new() };
        Ok(config.get("blobstore").and_then(Value::as_object).cloned().unwrap_or_default())
    };
    let (ours, secrets) = (blobstore(&shared)?, blobstore(&private)?);
    match ours.get("provider").and_then(Value::as_str) {
        Some("local") => {}
        Some(other) => {
            let why = format!(
                "has a blobstore of provider '{other}': vendored packages are read from 'local' ones only"
            );
            return Err(CreateError::invalid(&shared, why));
        }
        None => {
            return Err(CreateError::invalid(
                &shared,
                "names no blobstore, where vendored packages would be",
            ));
        }
    }
    let path =
        |of: &Map<String, Value>| of.get("options")?.get("blobstore_path")?.as_str().map(str::to_owned);
    let path = path(&secrets).or_else(|| path(&ours));
    let path =
        path.ok_or_else(|| CreateError::invalid(&shared, "gives its blobstore no 'blobstore_path'"))?;
    Ok(root.join(path))
}
