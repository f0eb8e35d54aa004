//! Release tarballs: found out what they hold, checked, and sent into a blobstore part by part.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};

use model::instance::ReleaseRef;
use model::release::{JobInfo, PackageInfo, ReleaseVersion};
use model::step::PackageRefKey;
use model::{ErrorCode, JobName, PackageName, Timestamp};

use super::entries::{Halt, Item, Kind, Limits, Next, for_each, read_small};
use super::{ArchiveError, JobArchive, JobRow, PackageRow, ReleaseManifest, dependencies, spool};
use crate::blobstore::{BlobSink, BlobStat};
use crate::digest::{DigestMismatch, MultiDigest, Verifying};

/// A release.MF of a thousand packages has half a megabyte.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// What the state files of a release, written as JSON. It travels in one log entry of at most 2 MiB; the largest release
/// in the field has a quarter of this.
const FILED_BYTES_MAX: usize = 3 << 19;

const EXTRACTING: &str = "Extracting release archive";

/// A release tarball whose manifest is known and sound. Its parts are only looked at by [`Self::import`].
#[derive(Debug)]
pub struct ReleaseArchive {
    path: PathBuf,
    manifest: ReleaseManifest,
}

/// Parts that the director has already: they may be missing in the tarball, and are neither checked nor stored again.
#[derive(Clone, Debug, Default)]
pub struct KnownParts {
    /// Jobs, found by name and fingerprint.
    pub jobs: Vec<JobInfo>,
    /// Packages with source, found by name and fingerprint.
    pub packages: Vec<PackageInfo>,
    /// Compiled packages, found by their whole key.
    pub compiled: BTreeSet<PackageRefKey>,
}

/// What a tarball brought.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedRelease {
    /// Name and version.
    pub release: ReleaseRef,
    /// The commit it was built from.
    pub commit_hash: String,
    /// Whether the tree had changes that were not committed.
    pub uncommitted_changes: bool,
    /// Its jobs, known ones included.
    pub jobs: Vec<JobInfo>,
    /// Its packages, known ones included; without source for a compiled release.
    pub packages: Vec<PackageInfo>,
    /// Whether it brings compiled packages instead of sources, known ones included.
    pub is_compiled: bool,
    /// Compiled packages that were not known.
    pub compiled: Vec<ImportedCompiledPackage>,
}

/// A compiled package that a tarball brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedCompiledPackage {
    /// Which package, on what.
    pub key: PackageRefKey,
    /// Where the archive is.
    pub blob: BlobStat,
    /// The archive's digest as release.MF gives it.
    pub digest: String,
}

impl ImportedRelease {
    /// Returns the release as the state files it.
    pub fn into_version(self, uploaded_at: Timestamp) -> ReleaseVersion {
        ReleaseVersion {
            release: self.release,
            commit_hash: self.commit_hash,
            uncommitted_changes: self.uncommitted_changes,
            jobs: self.jobs,
            packages: self.packages,
            uploaded_at,
        }
    }
}

impl ReleaseArchive {
    /// Finds and checks the manifest of the tarball at `path`. Reads no further than the manifest, which the CLI puts
    /// first.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ArchiveError> {
        let path = path.into();
        let mut text = None;
        let read = for_each(open(&path)?, Limits::TARBALL, |mut item| {
            if item.path != "release.MF" || item.kind != Kind::File {
                return Ok(Next::Continue);
            }
            text = Some(read_small(&mut item, MANIFEST_BYTES_MAX)?);
            Ok(Next::Stop)
        });
        read.map_err(|h| h.refuse(ErrorCode::ReleaseInvalidArchive, EXTRACTING))?;
        let missing = || ArchiveError::new(ErrorCode::ReleaseManifestNotFound, "Release manifest not found");
        let manifest = ReleaseManifest::parse(&text.ok_or_else(missing)?)?;
        Ok(Self { path, manifest })
    }

    /// Returns what the release says about itself.
    pub fn manifest(&self) -> &ReleaseManifest {
        &self.manifest
    }

    /// Checks every part that is not known, and stores it. Blobs that were stored before a refusal stay: nobody refers
    /// to them, and another upload may.
    pub fn import(
        &self,
        known: &KnownParts,
        sink: &mut dyn BlobSink,
    ) -> Result<ImportedRelease, ArchiveError> {
        let mut import = Import::new(&self.manifest, known, sink);
        let read = for_each(open(&self.path)?, Limits::TARBALL, |item| import.take(item));
        read.map_err(|h| h.refuse(ErrorCode::ReleaseInvalidArchive, EXTRACTING))?;
        import.finish()
    }
}

fn open(path: &Path) -> Result<File, ArchiveError> {
    File::open(path).map_err(|e| {
        let message = format!("failed to open the release archive `{}`", path.display());
        ArchiveError::caused(ErrorCode::ReleaseInvalidArchive, message, e)
    })
}

/// An import under way.
struct Import<'a> {
    manifest: &'a ReleaseManifest,
    sink: &'a mut dyn BlobSink,
    wanted: BTreeMap<String, Part<'a>>,
    jobs: BTreeMap<JobName, JobInfo>,
    packages: BTreeMap<PackageName, PackageInfo>,
    compiled: Vec<ImportedCompiledPackage>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Job(&'a JobRow),
    Package(&'a PackageRow),
}

impl<'a> Import<'a> {
    fn new(manifest: &'a ReleaseManifest, known: &KnownParts, sink: &'a mut dyn BlobSink) -> Self {
        let (compiled, wanted) = (Vec::new(), BTreeMap::new());
        let mut import =
            Self { manifest, sink, wanted, jobs: BTreeMap::new(), packages: BTreeMap::new(), compiled };
        for row in &manifest.jobs {
            match known.jobs.iter().find(|j| j.name == row.name && j.fingerprint == row.fingerprint) {
                Some(job) => drop(import.jobs.insert(row.name.clone(), job.clone())),
                None => drop(import.wanted.insert(format!("jobs/{}.tgz", row.name), Part::Job(row))),
            }
        }
        for row in &manifest.packages {
            let folder = if manifest.is_compiled { "compiled_packages" } else { "packages" };
            let package = |p: &&PackageInfo| p.name == row.name && p.fingerprint == row.fingerprint;
            let stored = known.packages.iter().find(package).filter(|p| p.source.is_some());
            let is_known = match row.stemcell {
                None => stored.is_some(),
                Some(_) => known.compiled.contains(&import.compiled_key(row)),
            };
            let info = stored.cloned().unwrap_or_else(|| without_source(row));
            import.packages.insert(row.name.clone(), info);
            if !is_known {
                import.wanted.insert(format!("{folder}/{}.tgz", row.name), Part::Package(row));
            }
        }
        import
    }

    fn take(&mut self, mut item: Item<'_>) -> Result<Next, Halt> {
        let Some(part) = self.wanted.get(&item.path).copied() else { return Ok(Next::Continue) };
        if item.kind != Kind::File {
            let message = format!("{EXTRACTING} failed: `{}` is not a file", item.path);
            return Err(ArchiveError::new(ErrorCode::ReleaseInvalidArchive, message).into());
        }
        self.wanted.remove(&item.path);
        let digest = match part {
            Part::Job(row) => &row.digest,
            Part::Package(row) => &row.digest,
        };
        let file = verified(&mut item, digest)?;
        match part {
            Part::Job(row) => self.job(row, file)?,
            Part::Package(row) => self.package(row, file)?,
        }
        Ok(Next::Continue)
    }

    fn job(&mut self, row: &JobRow, mut file: File) -> Result<(), ArchiveError> {
        let archive = JobArchive::read(&row.name, &file)?;
        archive.check_schema()?;
        let blob = self.store(&mut file, ErrorCode::JobInvalidArchive, &format!("job '{}'", row.name))?;
        let info = archive.info(row.fingerprint.clone(), row.digest.clone(), blob.digest);
        self.jobs.insert(row.name.clone(), info);
        Ok(())
    }

    fn package(&mut self, row: &PackageRow, mut file: File) -> Result<(), ArchiveError> {
        let what = format!("package '{}'", row.name);
        // Its entries are somebody else's to unpack; here they only have to be an archive within its bounds.
        let read = for_each(&file, Limits::PACKAGE, |_| Ok(Next::Continue));
        read.map_err(|h| h.refuse(ErrorCode::PackageInvalidArchive, &format!("Extracting {what}")))?;
        let blob = self.store(&mut file, ErrorCode::PackageInvalidArchive, &what)?;
        if row.stemcell.is_some() {
            let (key, digest) = (self.compiled_key(row), row.digest.clone());
            self.compiled.push(ImportedCompiledPackage { key, blob, digest });
        } else if let Some(package) = self.packages.get_mut(&row.name) {
            package.source = Some(blob.digest);
            package.digest = row.digest.clone();
        }
        Ok(())
    }

    fn store(&mut self, file: &mut File, code: ErrorCode, what: &str) -> Result<BlobStat, ArchiveError> {
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            ArchiveError::caused(code, format!("failed to store the archive of {what}"), e)
        };
        file.rewind().map_err(|e| failed(e.into()))?;
        self.sink.put(file).map_err(|e| failed(e.into()))
    }

    fn compiled_key(&self, row: &PackageRow) -> PackageRefKey {
        let (os, stemcell_version) = row.stemcell.clone().unwrap_or_else(|| (String::new(), "".into()));
        PackageRefKey {
            name: row.name.clone(),
            fingerprint: row.fingerprint.clone(),
            os,
            stemcell_version,
            dependency_key: dependencies::dependency_key(&self.manifest.packages, &row.name),
        }
    }

    fn finish(mut self) -> Result<ImportedRelease, ArchiveError> {
        if let Some((path, part)) = self.wanted.first_key_value() {
            let (code, what) = match part {
                Part::Job(row) => (ErrorCode::JobInvalidArchive, format!("job '{}'", row.name)),
                Part::Package(row) => (ErrorCode::PackageInvalidArchive, format!("package '{}'", row.name)),
            };
            let message = format!(
                "The release archive lacks `{path}`, and the director has no {what} of that fingerprint"
            );
            return Err(ArchiveError::new(code, message));
        }
        let manifest = self.manifest;
        let jobs: Vec<JobInfo> = manifest.jobs.iter().filter_map(|row| self.jobs.remove(&row.name)).collect();
        for job in &jobs {
            if let Some(missing) = job.packages.iter().find(|p| !self.packages.contains_key(*p)) {
                let message =
                    format!("Job '{}' requires package '{missing}' which is not in the release", job.name);
                return Err(ArchiveError::new(ErrorCode::JobMissingPackage, message));
            }
        }
        let imported = ImportedRelease {
            release: manifest.release.clone(),
            commit_hash: manifest.commit_hash.clone(),
            uncommitted_changes: manifest.uncommitted_changes,
            jobs,
            packages: manifest.packages.iter().filter_map(|row| self.packages.remove(&row.name)).collect(),
            is_compiled: manifest.is_compiled,
            compiled: self.compiled,
        };
        check_size(&imported)?;
        Ok(imported)
    }
}

/// Refuses what could be stored as blobs but not be filed.
fn check_size(imported: &ImportedRelease) -> Result<(), ArchiveError> {
    fn bytes(value: &impl serde::Serialize) -> usize {
        serde_json::to_vec(value).expect("it has no maps with odd keys").len()
    }
    let jobs: usize = imported.jobs.iter().map(bytes).sum();
    let packages: usize = imported.packages.iter().map(bytes).sum();
    let compiled: usize = imported.compiled.iter().map(|c| bytes(&c.key) + c.digest.len()).sum();
    let total = jobs + packages + compiled;
    if total <= FILED_BYTES_MAX {
        return Ok(());
    }
    let largest = imported.jobs.iter().max_by_key(bytes);
    let largest = largest.map(|job| format!(" (largest job: '{}')", job.name)).unwrap_or_default();
    let message = format!(
        "Release '{}/{}' is too large to be filed: the specs of its jobs{largest} and packages have {total} bytes, at most \
         {FILED_BYTES_MAX} are allowed",
        imported.release.name, imported.release.version
    );
    Err(ArchiveError::new(ErrorCode::ReleaseInvalidArchive, message))
}

fn without_source(row: &PackageRow) -> PackageInfo {
    PackageInfo {
        name: row.name.clone(),
        fingerprint: row.fingerprint.clone(),
        digest: String::new(),
        source: None,
        dependencies: row.dependencies.clone(),
    }
}

/// Copies an entry into an anonymous file, and refuses it unless it has its digest.
fn verified(item: &mut Item<'_>, digest: &str) -> Result<File, Halt> {
    let refuse = |message: String| ArchiveError::new(ErrorCode::ReleaseDigestMismatch, message);
    let expected = MultiDigest::parse(digest).map_err(|e| refuse(format!("`{}`: {e}", item.path)))?;
    spool(&mut Verifying::new(&mut *item.content, expected)).map_err(|e| {
        match e.get_ref().and_then(|inner| inner.downcast_ref::<DigestMismatch>()) {
            Some(mismatch) => refuse(format!("`{}` of the release archive: {mismatch}", item.path)).into(),
            None => Halt::Broken(e),
        }
    })
}
