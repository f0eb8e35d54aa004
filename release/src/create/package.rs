//! A package of a release directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::files::{Links, ModeCounts, Source, archive, fingerprint, walk};
use super::glob::Glob;
use super::manifest::Built;
use super::{CreateError, read_yaml, text, text_list, vendored};
use crate::archive::pack::Packing;

/// Bytes of a failed script's output that are worth showing.
const OUTPUT_BYTES_MAX: usize = 4096;

/// Builds the package in `folder`.
pub(super) fn build(root: &Path, folder: &Path, scratch: &Path) -> Result<Built, CreateError> {
    let lock = folder.join("spec.lock");
    if lock.exists() {
        return vendored::find(root, &lock);
    }
    let spec_path = folder.join("spec");
    let spec = read_yaml(&spec_path)?;
    let name = text(&spec_path, &spec, "name")?;
    let dependencies = text_list(&spec_path, &spec, "dependencies")?;
    let mut sources = listed_files(root, &spec_path, &name, &spec)?;
    let packaging = folder.join("packaging");
    if !packaging.exists() {
        return Err(CreateError::invalid(&packaging, format!("is missing: package '{name}' needs it")));
    }
    sources.push(script("packaging", packaging));
    let pre_packaging = folder.join("pre_packaging");
    if pre_packaging.exists() {
        sources.push(script("pre_packaging", pre_packaging));
    }
    let fingerprint = fingerprint(&sources, &dependencies)?;
    let packing = packing(&spec_path, &spec)?;
    let to = scratch.join(format!("{name}.tgz"));
    if sources.iter().any(|s| s.label == "pre_packaging") {
        let staged = stage(root, &name, &sources)?;
        let files = walk(staged.path())?.into_iter();
        let files: Vec<_> = files.map(|label| plain(staged.path().join(&label), label)).collect();
        archive(&files, packing, &to)?;
    } else {
        archive(&sources, packing, &to)?;
    }
    Built::new(name, fingerprint, to, sources).map(|built| Built { dependencies, ..built })
}

/// Returns how the package wants to be packed. That is no part of its fingerprint.
fn packing(
    spec_path: &Path,
    spec: &serde_json::Map<String, serde_json::Value>,
) -> Result<Packing, CreateError> {
    match spec.get("no_compression") {
        None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)) => Ok(Packing::Compressed),
        Some(serde_json::Value::Bool(true)) => Ok(Packing::Stored),
        Some(_) => {
            Err(CreateError::invalid(spec_path, "has a 'no_compression' that is neither true nor false"))
        }
    }
}

/// Finds the files of a package: each pattern under `src` first, then under `blobs`; the first hit for a path counts.
fn listed_files(
    root: &Path,
    spec_path: &Path,
    package: &str,
    spec: &serde_json::Map<String, serde_json::Value>,
) -> Result<Vec<Source>, CreateError> {
    let patterns = text_list(spec_path, spec, "files")?;
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let mut trees = Vec::new();
    for tree in ["src", "blobs"].map(|tree| root.join(tree)) {
        if tree.is_dir() {
            trees.push((walk(&tree)?, tree));
        }
    }
    let mut found = BTreeMap::new();
    for pattern in &patterns {
        let (glob, mut hits) = (Glob::new(pattern), 0);
        for (paths, tree) in &trees {
            for path in paths.iter().filter(|p| glob.matches(p)) {
                hits += 1;
                found.entry(path.clone()).or_insert_with(|| plain(tree.join(path), path.clone()));
            }
        }
        if hits == 0 {
            return Err(CreateError::MissingFiles { package: package.to_owned(), pattern: pattern.clone() });
        }
    }
    for pattern in text_list(spec_path, spec, "excluded_files")? {
        let glob = Glob::new(&pattern);
        found.retain(|path, _| !glob.matches(path));
    }
    if let Some(taken) = ["packaging", "pre_packaging"].iter().find(|name| found.contains_key(**name)) {
        let why = format!("lists a file '{taken}', which is the name of a script of the package");
        return Err(CreateError::invalid(spec_path, why));
    }
    Ok(found.into_values().collect())
}

fn script(label: &str, path: std::path::PathBuf) -> Source {
    Source { label: label.to_owned(), path, mode: ModeCounts::No, links: Links::Kept }
}

fn plain(path: std::path::PathBuf, label: String) -> Source {
    Source { label, path, mode: ModeCounts::Yes, links: Links::Kept }
}

/// Copies the files into a folder of their own and lets `pre_packaging` work on them.
fn stage(root: &Path, package: &str, sources: &[Source]) -> Result<tempfile::TempDir, CreateError> {
    let staged =
        tempfile::tempdir().map_err(CreateError::file("make a folder like", &std::env::temp_dir()))?;
    for source in sources {
        let to = staged.path().join(&source.label);
        let copy = || {
            fs::create_dir_all(to.parent().unwrap_or(staged.path()))?;
            match fs::symlink_metadata(&source.path)?.is_symlink() {
                true => std::os::unix::fs::symlink(fs::read_link(&source.path)?, &to),
                false => fs::copy(&source.path, &to).map(drop),
            }
        };
        copy().map_err(CreateError::file("copy", &source.path))?;
    }
    let script = staged.path().join("pre_packaging");
    let output = Command::new("bash")
        .args(["-x", "pre_packaging"])
        .current_dir(staged.path())
        .env("BUILD_DIR", staged.path())
        .env("RELEASE_DIR", fs::canonicalize(root).map_err(CreateError::file("look at", root))?)
        .output()
        .map_err(CreateError::file("run", &script))?;
    if !output.status.success() {
        let printed = [output.stdout, output.stderr].concat();
        let end = &printed[printed.len().saturating_sub(OUTPUT_BYTES_MAX)..];
        return Err(CreateError::PrePackaging {
            package: package.to_owned(),
            outcome: output.status.to_string(),
            output: String::from_utf8_lossy(end).into_owned(),
        });
    }
    fs::remove_file(&script).map_err(CreateError::file("remove", &script))?;
    Ok(staged)
}
