//! What was created before: `dev_releases/`, `releases/`, `.dev_builds/`.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use model::{Fingerprint, version};
use serde_json::{Map, Value, json};

use super::manifest::{Built, Origin};
use super::{CreateError, DevVersion, read_yaml};
use crate::yaml::quoted;

/// The releases of one name that a directory has made.
pub(super) struct Releases {
    name: String,
    dev: Vec<String>,
    last_final: Option<String>,
}

impl Releases {
    pub(super) fn load(root: &Path, name: &str) -> Result<Self, CreateError> {
        let dev = versions(&root.join("dev_releases").join(name).join("index.yml"))?;
        let finals = versions(&root.join("releases").join(name).join("index.yml"))?;
        Ok(Self { name: name.to_owned(), dev, last_final: greatest(finals.iter()).cloned() })
    }

    /// Returns the version of the release to create.
    pub(super) fn choose(&self, wanted: &DevVersion) -> String {
        let last = greatest(self.dev.iter().chain(&self.last_final)).map_or("0", String::as_str);
        let (base, number) = match last.split_once("+dev.") {
            Some((base, number)) => (base, number.parse().unwrap_or(0)),
            None => (last, 0u64),
        };
        match wanted {
            DevVersion::Exact(version) => version.clone(),
            DevVersion::Timestamp(seconds) => format!("{base}+dev.{seconds}"),
            DevVersion::Next => format!("{base}+dev.{}", number + 1),
        }
    }

    /// Files the manifest of a created release and returns where it is.
    pub(super) fn record(&self, root: &Path, version: &str, text: &str) -> Result<PathBuf, CreateError> {
        let folder = root.join("dev_releases").join(&self.name);
        let path = folder.join(format!("{}-{version}.yml", self.name));
        write(&path, text)?;
        let index = folder.join("index.yml");
        let mut builds = builds(&index)?;
        if !builds.values().any(|b| b["version"] == version) {
            builds.insert(uuid::Uuid::new_v4().to_string(), json!({ "version": version }));
            write(&index, &index_text(&builds))?;
        }
        Ok(path)
    }
}

/// Files the archive of a job, package or licence under `.dev_builds/`; a vendored one is filed where it was found.
pub(super) fn record_build(root: &Path, place: PathBuf, built: &Built) -> Result<(), CreateError> {
    if built.origin == Origin::Vendored {
        return Ok(());
    }
    let index = root.join(".dev_builds").join(place).join("index.yml");
    let mut builds = builds(&index)?;
    let entry = json!({ "version": built.fingerprint, "sha1": built.digest });
    if builds.insert(built.fingerprint.to_string(), entry.clone()) == Some(entry) {
        return Ok(());
    }
    write(&index, &index_text(&builds))
}

/// A build whose archive is in the release's blobstore.
pub(super) struct Blob {
    /// The index that knows it.
    pub index: PathBuf,
    /// Its name in the blobstore.
    pub blob_id: String,
    /// The archive's digest.
    pub digest: String,
}

/// Finds a build by its fingerprint, among dev builds first. One that no blobstore has is passed over: it was an archive
/// on the machine that made it.
pub(super) fn blob_of(
    root: &Path,
    place: &Path,
    fingerprint: &Fingerprint,
) -> Result<Option<Blob>, CreateError> {
    for folder in [".dev_builds", ".final_builds"] {
        let index = root.join(folder).join(place).join("index.yml");
        let builds = builds(&index)?;
        let named = builds.get(fingerprint.as_str());
        let text = |key| named.and_then(|build| build.get(key)?.as_str().map(str::to_owned));
        if let (Some(blob_id), Some(digest)) = (text("blobstore_id"), text("sha1")) {
            return Ok(Some(Blob { index, blob_id, digest }));
        }
    }
    Ok(None)
}

fn versions(index: &Path) -> Result<Vec<String>, CreateError> {
    let builds = builds(index)?;
    Ok(builds.values().filter_map(|b| b["version"].as_str().map(str::to_owned)).collect())
}

fn greatest<'a>(versions: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    // The first of equals: a dev version comes after its final one, so there are none.
    versions.reduce(|a, b| if version::compare(a, b) == Ordering::Less { b } else { a })
}

fn builds(index: &Path) -> Result<Map<String, Value>, CreateError> {
    if !index.exists() {
        return Ok(Map::new());
    }
    match read_yaml(index)?.remove("builds") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(builds)) => Ok(builds),
        Some(_) => Err(CreateError::invalid(index, "has builds that are not a hash")),
    }
}

fn index_text(builds: &Map<String, Value>) -> String {
    let mut text = "builds:\n".to_owned();
    for (key, fields) in builds {
        text.push_str(&format!("  {}:\n", quoted(key)));
        for (name, value) in fields.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), quoted);
            text.push_str(&format!("    {name}: {value}\n"));
        }
    }
    text.push_str("format-version: \"2\"\n");
    text
}

fn write(path: &Path, text: &str) -> Result<(), CreateError> {
    let folder = path.parent().expect("an index is in a folder");
    fs::create_dir_all(folder).map_err(CreateError::file("make", folder))?;
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text).map_err(CreateError::file("write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(CreateError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dev: &[&str], last_final: Option<&str>, next: &str) {
        let texts = |t: &[&str]| t.iter().map(|s| (*s).to_owned()).collect();
        let index = Releases { name: "r".into(), dev: texts(dev), last_final: last_final.map(str::to_owned) };
        assert_eq!(index.choose(&DevVersion::Next), next);
    }

    #[test]
    fn the_next_dev_version_follows_the_greatest() {
        check(&[], None, "0+dev.1");
        check(&["0+dev.9", "0+dev.10"], None, "0+dev.11");
        check(&["0+dev.4"], Some("3"), "3+dev.1");
        check(&["3+dev.1"], Some("3"), "3+dev.2");
        check(&["3+dev.1", "2+dev.7"], Some("4"), "4+dev.1");
    }
}
