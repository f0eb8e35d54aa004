//! Releases and stemcells that a manifest names, and how names become exact versions.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::{ReleaseRef, StemcellRef};
use crate::release::ReleaseVersion;
use crate::stemcell::StemcellRecord;
use crate::task::TaskError;
use crate::version;

/// What was uploaded to the director.
#[derive(Clone, Copy, Debug)]
pub struct Stock<'a> {
    /// All release versions.
    pub releases: &'a [ReleaseVersion],
    /// All stemcells.
    pub stemcells: &'a [StemcellRecord],
}

/// A release as the manifest names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ManifestRelease {
    /// Name and exact version.
    pub release: ReleaseRef,
    /// Stemcells its compiled packages were exported from, as (os, version).
    pub exported_from: Vec<(String, String)>,
}

/// A stemcell as the manifest names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stemcell {
    /// The alias that groups use.
    pub alias: String,
    /// The operating system, unless a name was given.
    pub os: Option<String>,
    /// The stemcell's name, if given.
    pub name: Option<String>,
    /// The exact version.
    pub version: Version,
}

impl<'a> Stock<'a> {
    /// Returns an uploaded release (30005, 30006).
    pub fn release(self, wanted: &ReleaseRef) -> Checked<&'a ReleaseVersion> {
        let mut of_name = self.releases.iter().filter(|r| r.release.name == wanted.name).peekable();
        if of_name.peek().is_none() {
            return Err(unknown_release(wanted.name.as_str()));
        }
        of_name
            .find(|r| version::compare(r.release.version.as_str(), wanted.version.as_str()).is_eq())
            .ok_or_else(|| unknown_version(wanted.name.as_str(), wanted.version.as_str()))
    }

    /// Returns the uploaded records of a stemcell, one per CPI; those of the first name if several match (50003).
    pub fn stemcells(self, wanted: &Stemcell) -> Checked<Vec<&'a StemcellRef>> {
        let mut found: Vec<&StemcellRef> = self
            .stemcells
            .iter()
            .map(|s| &s.stemcell)
            .filter(|s| wanted.matches(s))
            .filter(|s| version::compare(s.version.as_str(), wanted.version.as_str()).is_eq())
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.cpi.cmp(&b.cpi)));
        let Some(first) = found.first().map(|s| s.name.clone()) else {
            return Err(wanted.unknown());
        };
        found.retain(|s| s.name == first);
        Ok(found)
    }
}

impl Stemcell {
    fn matches(&self, candidate: &StemcellRef) -> bool {
        match (&self.name, &self.os) {
            (Some(name), _) => *name == candidate.name,
            (None, Some(os)) => *os == candidate.os,
            (None, None) => false,
        }
    }

    fn unknown(&self) -> TaskError {
        let message = match &self.name {
            Some(name) => format!("Stemcell '{name}/{}' doesn't exist", self.version),
            None => {
                let os = self.os.as_deref().unwrap_or_default();
                format!("Stemcell version '{}' for OS '{os}' doesn't exist", self.version)
            }
        };
        TaskError::new(ErrorCode::StemcellNotFound, message)
    }
}

fn unknown_release(name: &str) -> TaskError {
    TaskError::new(ErrorCode::ReleaseNotFound, format!("Release '{name}' doesn't exist"))
}

fn unknown_version(name: &str, version: &str) -> TaskError {
    TaskError::new(
        ErrorCode::ReleaseVersionNotFound,
        format!("Release version '{name}/{version}' doesn't exist"),
    )
}

/// Reads `stemcells`; an absent list is an error only after the groups were read.
pub(super) fn parse_stemcells(fields: &Fields<'_>, stock: Stock<'_>) -> Checked<Vec<Stemcell>> {
    let mut found: Vec<Stemcell> = Vec::new();
    for item in fields.list_or_empty("stemcells")? {
        let item = Fields::of(item)?;
        let alias = item.text("alias")?;
        let name = item.text_opt("name")?;
        let wanted = item.text("version")?;
        let os = item.text_opt("os")?;
        if name.is_none() && os.is_none() {
            return Err(TaskError::new(
                ErrorCode::ValidationMissingField,
                format!("Required property 'os' or 'name' was not specified in object ({})", {
                    crate::fields::inspect(&stemcell_object(&item))
                }),
            ));
        }
        let mut stemcell = Stemcell {
            alias,
            os: if name.is_some() { None } else { os },
            name,
            version: Version::new(&*wanted),
        };
        if version::is_latest(&wanted) {
            let candidates = stock.stemcells.iter().map(|s| &s.stemcell).filter(|s| stemcell.matches(s));
            let newest = version::newest(&wanted, candidates, |s| s.version.as_str());
            stemcell.version = newest.ok_or_else(|| stemcell.unknown())?.version.clone();
        }
        if found.iter().any(|s| s.alias == stemcell.alias) {
            return Err(TaskError::new(
                ErrorCode::StemcellAliasAlreadyExists,
                format!("Duplicate stemcell alias '{}'", stemcell.alias),
            ));
        }
        found.push(stemcell);
    }
    Ok(found)
}

fn stemcell_object(item: &Fields<'_>) -> Value {
    let keys = ["alias", "version"].into_iter().filter_map(|k| Some((k.to_owned(), item.raw(k)?.clone())));
    Value::Object(keys.collect())
}

/// Reads `releases`, or the legacy single `release`.
pub(super) fn parse_releases(fields: &Fields<'_>, stock: Stock<'_>) -> Checked<Vec<ManifestRelease>> {
    let single;
    let items = if fields.has("release") {
        if fields.has("releases") {
            return Err(TaskError::new(
                ErrorCode::DeploymentAmbiguousReleaseSpec,
                "Deployment manifest contains both 'release' and 'releases' sections, please use one of the two.",
            ));
        }
        single = [Value::Object(fields.mapping("release")?.clone())];
        &single[..]
    } else {
        fields.list("releases")?
    };
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    for item in items {
        let release = parse_release(&Fields::of(item)?, stock)?;
        if !names.insert(release.release.name.clone()) {
            return Err(TaskError::new(
                ErrorCode::DeploymentDuplicateReleaseName,
                format!("Duplicate release name '{}'", release.release.name),
            ));
        }
        found.push(release);
    }
    Ok(found)
}

fn parse_release(item: &Fields<'_>, stock: Stock<'_>) -> Checked<ManifestRelease> {
    let (name, wanted) = (item.text("name")?, item.text("version")?);
    let mut exported_from = Vec::new();
    for stemcell in item.list_or_empty("exported_from")? {
        let stemcell = Fields::of(stemcell)?;
        exported_from.push((stemcell.text("os")?, stemcell.text("version")?));
    }
    let mut release = ReleaseRef { name: ReleaseName::new(&*name), version: Version::new(&*wanted) };
    if version::is_latest(&wanted) {
        let mut candidates = stock.releases.iter().filter(|r| r.release.name == release.name).peekable();
        if candidates.peek().is_none() {
            return Err(unknown_release(&name));
        }
        let newest = version::newest(&wanted, candidates, |r| r.release.version.as_str());
        release.version = newest.ok_or_else(|| unknown_version(&name, &wanted))?.release.version.clone();
    } else if let Ok(uploaded) = stock.release(&release) {
        // `1.0` is `1`: from here on it is called as it was uploaded, so that whoever uses it is found by its name.
        release = uploaded.release.clone();
    }
    Ok(ManifestRelease { release, exported_from })
}
