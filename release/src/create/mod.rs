//! `create-release`: from a release directory to a tarball, with the fingerprints that the `bosh` CLI computes.
//!
//! Deliberately *not* here: final releases, and blobstores in the network. Unlike the CLI's, our archives are
//! reproducible, so none is kept: the same sources give the same bytes.
//!
//! Read next: `files` (fingerprints and archives), `package`, `job`, `index` (versions).

mod blobs;
mod files;
mod git;
pub mod glob;
mod index;
mod job;
mod manifest;
mod package;
mod vendored;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use model::instance::ReleaseRef;
use model::{Fingerprint, yaml};
use serde_json::{Map, Value};

use crate::archive::pack::TgzWriter;
use crate::archive::{ReleaseArchive, ReleaseManifest};
use manifest::{Built, ReleaseText};

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The release's name, instead of the one in `config/dev.yml` or `config/final.yml`.
    pub name: Option<String>,
    /// How the version is chosen.
    pub version: DevVersion,
    /// What to do about changes that are not committed.
    pub uncommitted: Uncommitted,
    /// Where to write the tarball; none writes only the manifest under `dev_releases/`.
    pub tarball: Option<PathBuf>,
}

/// How a dev release's version is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DevVersion {
    /// One after the last dev or final release.
    #[default]
    Next,
    /// `+dev.<seconds since 1970>`.
    Timestamp(i64),
    /// As given.
    Exact(String),
}

/// What to do about changes that git has not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncommitted {
    /// Fail.
    #[default]
    Refuse,
    /// Go on and say so in the manifest (`--force`).
    Allow,
}

/// A release that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedRelease {
    /// Name and version.
    pub release: ReleaseRef,
    /// The commit it was built from.
    pub commit_hash: String,
    /// Whether the tree had changes that were not committed.
    pub uncommitted_changes: bool,
    /// Jobs and their fingerprints, by name.
    pub jobs: Vec<(String, Fingerprint)>,
    /// Packages and their fingerprints, by name.
    pub packages: Vec<(String, Fingerprint)>,
    /// The fingerprint of the licence, if there is one.
    pub license: Option<Fingerprint>,
    /// The manifest under `dev_releases/`.
    pub manifest_path: PathBuf,
    /// The tarball, if one was asked for.
    pub tarball: Option<PathBuf>,
}

/// Why a release cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file cannot be read or written.
    #[error("failed to {operation} `{path}`")]
    File {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the release directory does not say what it should.
    #[error("`{path}` {why}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern of a package matches nothing.
    #[error("Missing files for pattern '{pattern}' of package '{package}'")]
    MissingFiles {
        /// The package.
        package: String,
        /// The pattern.
        pattern: String,
    },
    /// There are changes that are not committed.
    #[error("Git repository has local modifications:\n\n{status}")]
    Uncommitted {
        /// What git lists.
        status: String,
    },
    /// A `pre_packaging` script failed.
    #[error("pre_packaging of package '{package}' failed with {outcome}:\n{output}")]
    PrePackaging {
        /// The package.
        package: String,
        /// How it ended.
        outcome: String,
        /// The end of what it printed.
        output: String,
    },
    /// The jobs and packages do not fit together.
    #[error("the release is not sound")]
    Unsound(#[from] crate::archive::ArchiveError),
}

impl CreateError {
    fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }

    fn invalid(path: &Path, why: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), why: why.into() }
    }
}

/// Creates a dev release from the directory `root`. Blocks.
pub fn create_dev_release(root: &Path, options: &CreateOptions) -> Result<CreatedRelease, CreateError> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => configured_name(root)?,
    };
    let commit = git::commit(root, options.uncommitted)?;
    blobs::check(root)?;
    let scratch =
        tempfile::tempdir().map_err(CreateError::file("make a folder like", &std::env::temp_dir()))?;
    let packages = build_all(root, "packages", scratch.path(), package::build)?;
    let jobs = build_all(root, "jobs", scratch.path(), job::build)?;
    let license = job::build_license(root, scratch.path())?;
    let index = index::Releases::load(root, &name)?;
    let version = index.choose(&options.version);
    let release = ReleaseRef { name: name.as_str().into(), version: version.as_str().into() };
    let text = ReleaseText {
        release: &release,
        commit: &commit,
        jobs: &jobs,
        packages: &packages,
        license: license.as_ref(),
    }
    .to_text();
    // The director's own checks: what it would refuse should not be built.
    ReleaseManifest::parse(text.as_bytes())?;
    for (kind, built) in [("jobs", &jobs), ("packages", &packages)] {
        built.iter().try_for_each(|b| index::record_build(root, Path::new(kind).join(&b.name), b))?;
    }
    license.iter().try_for_each(|b| index::record_build(root, PathBuf::from("license"), b))?;
    let manifest_path = index.record(root, &version, &text)?;
    if let Some(path) = &options.tarball {
        write_tarball(path, &text, &jobs, &packages, license.as_ref())?;
        ReleaseArchive::open(path)?;
    }
    let summary = |built: Vec<Built>| built.into_iter().map(|b| (b.name, b.fingerprint)).collect();
    Ok(CreatedRelease {
        release,
        commit_hash: commit.hash,
        uncommitted_changes: commit.is_dirty,
        jobs: summary(jobs),
        packages: summary(packages),
        license: license.map(|l| l.fingerprint),
        manifest_path,
        tarball: options.tarball.clone(),
    })
}

fn configured_name(root: &Path) -> Result<String, CreateError> {
    for (file, keys) in
        [("config/dev.yml", ["name", "dev_name"]), ("config/final.yml", ["name", "final_name"])]
    {
        let path = root.join(file);
        if !path.exists() {
            continue;
        }
        let config = read_yaml(&path)?;
        if let Some(name) = keys.iter().find_map(|key| config.get(*key).and_then(Value::as_str)) {
            return Ok(name.to_owned());
        }
    }
    Err(CreateError::invalid(&root.join("config/final.yml"), "gives no name"))
}

/// Builds each folder of a section, sorted by the names that the folders' specs give.
fn build_all(
    root: &Path,
    section: &str,
    scratch: &Path,
    build: fn(&Path, &Path, &Path) -> Result<Built, CreateError>,
) -> Result<Vec<Built>, CreateError> {
    let folder = root.join(section);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let scratch = scratch.join(section);
    std::fs::create_dir_all(&scratch).map_err(CreateError::file("make", &scratch))?;
    let mut built = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(CreateError::file("list", &folder))? {
        let path = entry.map_err(CreateError::file("list", &folder))?.path();
        if path.is_dir() {
            built.push(build(root, &path, &scratch)?);
        }
    }
    built.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

fn write_tarball(
    path: &Path,
    manifest: &str,
    jobs: &[Built],
    packages: &[Built],
    license: Option<&Built>,
) -> Result<(), CreateError> {
    let write = || -> io::Result<()> {
        // A name of its own until it is whole: a tarball that is there can be uploaded.
        let unfinished = path.with_extension("unfinished");
        let mut tgz = TgzWriter::new(File::create(&unfinished)?);
        tgz.file("release.MF", 0o644, manifest.as_bytes())?;
        for (folder, built) in [("jobs", jobs), ("packages", packages)] {
            tgz.folder(&format!("{folder}/"))?;
            for part in built {
                let archive = File::open(&part.archive)?;
                tgz.stream(
                    &format!("{folder}/{}.tgz", part.name),
                    0o644,
                    archive.metadata()?.len(),
                    archive,
                )?;
            }
        }
        if let Some(license) = license {
            let archive = File::open(&license.archive)?;
            tgz.stream("license.tgz", 0o644, archive.metadata()?.len(), archive)?;
            for file in &license.sources {
                tgz.file(&file.label, 0o644, &std::fs::read(&file.path)?)?;
            }
        }
        tgz.finish()?.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(CreateError::file("write the release tarball", path))
}

/// Reads a YAML file that must be a mapping; an empty one counts as an empty mapping.
fn read_yaml(path: &Path) -> Result<Map<String, Value>, CreateError> {
    let text = std::fs::read_to_string(path).map_err(CreateError::file("read", path))?;
    match yaml::parse(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(CreateError::invalid(path, "is not a hash")),
        Err(e) => Err(CreateError::invalid(path, format!("is not YAML: {e}"))),
    }
}

/// Reads a list of texts, empty if the key is absent or null.
fn text_list(path: &Path, spec: &Map<String, Value>, key: &str) -> Result<Vec<String>, CreateError> {
    let wrong = || CreateError::invalid(path, format!("has no list of texts as '{key}'"));
    match spec.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|i| i.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

/// Reads a required text.
fn text(path: &Path, spec: &Map<String, Value>, key: &str) -> Result<String, CreateError> {
    let text = spec.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| CreateError::invalid(path, format!("has no '{key}'")))
}
