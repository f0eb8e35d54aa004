//! `release.MF`: what a release says about itself.

use model::fields::{Fields, is_identifier};
use model::instance::ReleaseRef;
use model::version::is_version;
use model::{ErrorCode, Fingerprint, JobName, PackageName, Version, yaml};
use serde_json::Value;

use super::{ArchiveError, dependencies};
use crate::digest::MultiDigest;

/// A release manifest, checked: names are names, digests are digests, dependencies form no circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseManifest {
    /// Name and version.
    pub release: ReleaseRef,
    /// The commit it was built from.
    pub commit_hash: String,
    /// Whether the tree had changes that were not committed.
    pub uncommitted_changes: bool,
    /// Its jobs.
    pub jobs: Vec<JobRow>,
    /// Its packages: sources, or results of compilation.
    pub packages: Vec<PackageRow>,
    /// Whether it brings compiled packages instead of sources.
    pub is_compiled: bool,
}

/// A job as `release.MF` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Its name.
    pub name: JobName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The archive's digest.
    pub digest: String,
}

/// A package as `release.MF` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageRow {
    /// Its name.
    pub name: PackageName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The archive's digest.
    pub digest: String,
    /// Names of packages it needs directly.
    pub dependencies: Vec<PackageName>,
    /// For a compiled package, the stemcell's operating system and version.
    pub stemcell: Option<(String, Version)>,
}

impl ReleaseManifest {
    /// Reads a manifest's text.
    pub fn parse(text: &[u8]) -> Result<Self, ArchiveError> {
        let refuse =
            |why: String| ArchiveError::new(ErrorCode::ReleaseInvalidArchive, format!("release.MF {why}"));
        let text = std::str::from_utf8(text).map_err(|_| refuse("is not UTF-8".into()))?;
        let document = yaml::parse(text).map_err(|e| refuse(format!("is not YAML: {e}")))?;
        let fields = Fields::of(&document)?;
        let release =
            ReleaseRef { name: fields.text("name")?.into(), version: fields.text("version")?.into() };
        check_identifier("release name", release.name.as_str(), ErrorCode::ValidationInvalidValue)?;
        check_version("release version", release.version.as_str(), ErrorCode::ReleaseVersionInvalid)?;
        let is_compiled = fields.has("compiled_packages");
        let section = if is_compiled { "compiled_packages" } else { "packages" };
        let manifest = Self {
            commit_hash: optional_text(&fields, "commit_hash")?,
            uncommitted_changes: fields.boolean_opt("uncommitted_changes")?.unwrap_or_default(),
            jobs: rows(&fields, "jobs", job_row)?,
            packages: rows(&fields, section, |f| package_row(f, is_compiled))?,
            release,
            is_compiled,
        };
        unique("job", manifest.jobs.iter().map(|j| j.name.as_str()))?;
        unique("package", manifest.packages.iter().map(|p| p.name.as_str()))?;
        dependencies::check(&manifest.release.name, &manifest.packages)?;
        Ok(manifest)
    }
}

/// Refuses what could not be a stored name; it also becomes part of paths.
pub(super) fn check_identifier(what: &str, text: &str, code: ErrorCode) -> Result<(), ArchiveError> {
    if is_identifier(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(200).collect();
    let why = "only letters, digits and -_+. are allowed";
    Err(ArchiveError::new(code, format!("The {what} '{shown}' is invalid: {why}")))
}

/// Refuses what no client could read in a list of versions.
pub(super) fn check_version(what: &str, text: &str, code: ErrorCode) -> Result<(), ArchiveError> {
    check_identifier(what, text, code)?;
    match is_version(text) {
        true => Ok(()),
        false => {
            let why = "wanted is RELEASE, RELEASE-PRE, RELEASE+POST or RELEASE-PRE+POST";
            Err(ArchiveError::new(code, format!("The {what} '{text}' is invalid: {why}")))
        }
    }
}

fn rows<T>(
    fields: &Fields<'_>,
    section: &str,
    row: impl Fn(&Fields<'_>) -> Result<T, ArchiveError>,
) -> Result<Vec<T>, ArchiveError> {
    match fields.raw(section) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(_) => fields.list(section)?.iter().map(|item| row(&Fields::of(item)?)).collect(),
    }
}

fn job_row(fields: &Fields<'_>) -> Result<JobRow, ArchiveError> {
    let name = fields.text("name")?;
    check_identifier("job name", &name, ErrorCode::JobInvalidName)?;
    let (fingerprint, digest) = identity(&format!("job '{name}'"), fields)?;
    Ok(JobRow { name: name.into(), fingerprint, digest })
}

fn package_row(fields: &Fields<'_>, is_compiled: bool) -> Result<PackageRow, ArchiveError> {
    let name = fields.text("name")?;
    check_identifier("package name", &name, ErrorCode::ReleaseInvalidPackage)?;
    let (fingerprint, digest) = identity(&format!("package '{name}'"), fields)?;
    let dependencies = match fields.raw("dependencies") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => {
            fields.list("dependencies")?.iter().map(|d| dependency(&name, d)).collect::<Result<_, _>>()?
        }
    };
    let stemcell = if is_compiled { Some(stemcell(&name, &fields.text("stemcell")?)?) } else { None };
    Ok(PackageRow { name: name.into(), fingerprint, digest, dependencies, stemcell })
}

fn dependency(package: &str, value: &Value) -> Result<PackageName, ArchiveError> {
    let text = value.as_str().ok_or_else(|| {
        let message = format!("Package '{package}' has a dependency that is not a name");
        ArchiveError::new(ErrorCode::ReleaseInvalidPackage, message)
    })?;
    Ok(text.into())
}

fn stemcell(package: &str, text: &str) -> Result<(String, Version), ArchiveError> {
    let parts = text.split_once('/').filter(|(os, version)| !os.is_empty() && !version.is_empty());
    let (os, version) = parts.filter(|(_, version)| !version.contains('/')).ok_or_else(|| {
        let message =
            format!("Compiled package '{package}' has stemcell '{text}', expected '<os>/<version>'");
        ArchiveError::new(ErrorCode::ReleaseInvalidPackage, message)
    })?;
    Ok((os.to_owned(), version.into()))
}

/// Returns fingerprint and digest. Rows of old releases may have only a version, which then is the fingerprint.
fn identity(what: &str, fields: &Fields<'_>) -> Result<(Fingerprint, String), ArchiveError> {
    let key = if fields.has("fingerprint") { "fingerprint" } else { "version" };
    let fingerprint = fields.text(key)?;
    check_identifier(&format!("fingerprint of {what}"), &fingerprint, ErrorCode::ValidationInvalidValue)?;
    let digest = fields.text("sha1")?;
    MultiDigest::parse(&digest).map_err(|e| {
        ArchiveError::new(
            ErrorCode::ReleaseDigestMismatch,
            format!("The digest of {what} cannot be checked: {e}"),
        )
    })?;
    Ok((fingerprint.into(), digest))
}

fn optional_text(fields: &Fields<'_>, key: &str) -> Result<String, ArchiveError> {
    match fields.raw(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(_) => Ok(fields.text(key)?),
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ArchiveError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let message = format!("release.MF lists {what} '{name}' more than once");
            return Err(ArchiveError::new(ErrorCode::ReleaseInvalidArchive, message));
        }
    }
    Ok(())
}
