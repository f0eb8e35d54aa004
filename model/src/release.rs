//! Releases: the jobs and packages that an uploaded archive brought, and compiled packages.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error_code::ErrorCode;
use crate::fields::Checked;
use crate::ids::*;
use crate::instance::{PackageRef, ReleaseRef};
use crate::step::PackageRefKey;
use crate::task::TaskError;

/// One version of a release as its upload filed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseVersion {
    /// Name and exact version.
    pub release: ReleaseRef,
    /// The commit it was built from, as release.MF says.
    pub commit_hash: String,
    /// Whether the tree had changes that were not committed.
    pub uncommitted_changes: bool,
    /// Its jobs, as release.MF orders them.
    pub jobs: Vec<JobInfo>,
    /// Its packages, as release.MF orders them.
    pub packages: Vec<PackageInfo>,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

impl ReleaseVersion {
    /// Returns the job of this name.
    pub fn job(&self, name: &str) -> Option<&JobInfo> {
        self.jobs.iter().find(|j| j.name.as_str() == name)
    }

    /// Returns the package of this name.
    pub fn package(&self, name: &str) -> Option<&PackageInfo> {
        self.packages.iter().find(|p| p.name.as_str() == name)
    }
}

/// What may be done with the parts of a release that are stored already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// They stay; only what was missing is added.
    Keep,
    /// They give way to those of the upload (`--fix`).
    Replace,
}

impl ReleaseVersion {
    /// Checks that `given` is this release, as its name and version say: another build of the same sources may have
    /// other bytes, and a compiled one has no sources (30012, 30013, 30014, 30016).
    pub fn check_same(&self, given: &Self) -> Checked<()> {
        self.check_common(given)?;
        let own = self.packages.iter().map(|package| (&package.name, &package.dependencies));
        let of_given = given.packages.iter().map(|package| (&package.name, &package.dependencies));
        if let Some(name) = differing(own, of_given) {
            return self.refuse(ErrorCode::ReleaseInvalidPackage, "package", name.as_str());
        }
        let own = self.jobs.iter().map(|job| (&job.name, ()));
        let of_given = given.jobs.iter().map(|job| (&job.name, ()));
        match differing(own, of_given) {
            Some(name) => self.refuse(ErrorCode::ReleaseExistingJobFingerprintMismatch, "job", name.as_str()),
            None => Ok(()),
        }
    }

    /// Checks that nothing in `given` is something else here: an export of some jobs brings those alone (30012, 30013, 30014,
    /// 30016).
    pub fn check_common(&self, given: &Self) -> Checked<()> {
        if (&self.commit_hash, self.uncommitted_changes) != (&given.commit_hash, given.uncommitted_changes) {
            let text = format!(
                "commit {}{} is not that of previously uploaded release '{}/{}'",
                given.commit_hash,
                if given.uncommitted_changes { " with uncommitted changes" } else { "" },
                self.release.name,
                self.release.version
            );
            return Err(TaskError::new(ErrorCode::ReleaseVersionCommitHashMismatch, text));
        }
        for package in &given.packages {
            let Some(own) = self.package(package.name.as_str()) else { continue };
            let name = package.name.as_str();
            if own.fingerprint != package.fingerprint {
                return self.refuse(ErrorCode::ReleaseInvalidPackage, "package", name);
            }
            // Their order means nothing.
            if sorted(&own.dependencies) == sorted(&package.dependencies) {
                continue;
            }
            if package.source.is_some() {
                return self.refuse(ErrorCode::ReleaseInvalidPackage, "package", name);
            }
            let text = format!(
                "The uploaded release contains package dependencies in '{name}' that do not match database records."
            );
            return Err(TaskError::new(ErrorCode::ReleasePackageDependencyKeyMismatch, text));
        }
        for job in &given.jobs {
            if self.job(job.name.as_str()).is_some_and(|own| own.fingerprint != job.fingerprint) {
                let code = ErrorCode::ReleaseExistingJobFingerprintMismatch;
                return self.refuse(code, "job", job.name.as_str());
            }
        }
        Ok(())
    }

    fn refuse(&self, code: ErrorCode, what: &str, name: &str) -> Checked<()> {
        let ReleaseRef { name: release, version } = &self.release;
        let text = format!(
            "{what} '{name}' had different fingerprint in previously uploaded release '{release}/{version}'"
        );
        Err(TaskError::new(code, text))
    }

    /// Returns this release with what `given`, which is the same one or some of it, brings.
    #[must_use]
    pub fn joined(mut self, given: &Self, parts: Parts) -> Self {
        for job in &mut self.jobs {
            if let (Some(new), Parts::Replace) = (given.job(job.name.as_str()), parts) {
                *job = new.clone();
            }
        }
        for package in &mut self.packages {
            let Some(new) = given.package(package.name.as_str()) else { continue };
            let wanted = package.source.is_none() || parts == Parts::Replace;
            if wanted && new.source.is_some() {
                *package = new.clone();
            }
        }
        let new_jobs: Vec<JobInfo> =
            given.jobs.iter().filter(|job| self.job(job.name.as_str()).is_none()).cloned().collect();
        let is_new = |package: &&PackageInfo| self.package(package.name.as_str()).is_none();
        let new_packages: Vec<PackageInfo> = given.packages.iter().filter(is_new).cloned().collect();
        self.jobs.extend(new_jobs);
        self.packages.extend(new_packages);
        self
    }
}

fn sorted(names: &[PackageName]) -> BTreeSet<&PackageName> {
    names.iter().collect()
}

/// Returns a name that only one side has, or with which the two have something else.
fn differing<N: Ord, T: PartialEq>(
    one: impl Iterator<Item = (N, T)>,
    other: impl Iterator<Item = (N, T)>,
) -> Option<N> {
    let mut one: BTreeMap<N, T> = one.collect();
    for (name, value) in other {
        if one.remove(&name) != Some(value) {
            return Some(name);
        }
    }
    one.into_keys().next()
}

/// What job.MF says about a job, and where its archive is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobInfo {
    /// The job's name.
    pub name: JobName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The archive's digest as release.MF gives it.
    pub digest: String,
    /// Where the archive is.
    pub blob: BlobDigest,
    /// Packages it lists directly, in its order.
    pub packages: Vec<PackageName>,
    /// Properties it declares, in its order.
    pub properties: Vec<PropertyDefinition>,
    /// Links it offers.
    pub provides: Vec<ProvidedLink>,
    /// Links it needs.
    pub consumes: Vec<ConsumedLink>,
    /// Templates as (source, destination), in its order.
    pub templates: Vec<(String, String)>,
    /// Its `logs` mapping, null if absent.
    #[serde(default)]
    pub logs: Value,
}

impl JobInfo {
    /// Returns whether the job can run as an errand: it has a template that becomes `bin/run`.
    pub fn is_errand(&self) -> bool {
        self.templates.iter().any(|(_, to)| to == "bin/run" || to == "bin/run.ps1")
    }
}

/// A property that a job declares. Its description and example stay in the job's archive: they are for people, and would
/// be the largest part of what a release takes in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PropertyDefinition {
    /// The dotted path.
    pub name: String,
    /// Its value where nobody gives one; absent if there is no `default` key or it is null.
    #[serde(default)]
    pub default: Option<Value>,
}

/// A link that a job offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvidedLink {
    /// The link's name.
    pub name: String,
    /// Its type; only links of one type match.
    pub kind: String,
    /// Dotted paths of the job's properties that travel with the link.
    #[serde(default)]
    pub properties: Vec<String>,
}

/// A link that a job needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumedLink {
    /// The link's name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Whether the job does without.
    #[serde(default)]
    pub optional: bool,
}

/// A package of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageInfo {
    /// The package's name.
    pub name: PackageName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The source archive's digest as release.MF gives it; empty without source.
    pub digest: String,
    /// Where the source archive is; none in a compiled release.
    pub source: Option<BlobDigest>,
    /// Names of packages it needs directly, in its order.
    pub dependencies: Vec<PackageName>,
}

impl PackageInfo {
    /// Returns the package as instances refer to it.
    pub fn reference(&self, dependency_key: impl Into<String>) -> PackageRef {
        PackageRef {
            name: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            dependency_key: dependency_key.into(),
            compiled_on: None,
        }
    }
}

/// The result of compiling a package on a stemcell, or a package of a compiled release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledPackage {
    /// Which package, on what.
    pub key: PackageRefKey,
    /// Counts the results for this package and stemcell, from 1.
    pub build: u32,
    /// Where the archive is.
    pub blob: BlobDigest,
    /// The archive's digest.
    pub digest: String,
    /// The archive's size.
    pub size_bytes: u64,
}
