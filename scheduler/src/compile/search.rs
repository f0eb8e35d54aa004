//! What is missing: for every package, a compiled form that will do, or its place among those to compile.

use std::collections::{BTreeMap, BTreeSet};

use model::manifest::ManifestRelease;
use model::release::{CompiledPackage, PackageInfo, ReleaseVersion};
use model::stemcell::StemcellVersion;
use model::step::PackageRefKey;
use model::task::TaskError;
use model::*;

use crate::bind::DependencyKeys;

/// A package to compile.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Missing {
    pub(super) key: PackageRefKey,
    /// Direct dependencies whose compiled form is for another stemcell of the line.
    pub(super) compiled_elsewhere: Vec<PackageRefKey>,
    /// Positions of packages to compile before it: dependencies come first.
    pub(super) after: Vec<usize>,
}

/// Where the compiled form of a package comes from.
#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// It is there, for this stemcell.
    Compiled(StemcellVersion),
    /// It will be compiled, at this position.
    Missing(usize),
    /// From nowhere; told at the end, with all others.
    Unavailable,
}

/// Collects what is missing.
pub(super) struct Search<'a> {
    by_package: BTreeMap<(&'a PackageName, &'a Fingerprint, &'a str), Vec<&'a CompiledPackage>>,
    keys: DependencyKeys,
    /// What was looked at, by the stemcell that it is wanted for.
    seen: BTreeMap<PackageRefKey, Form>,
    missing: Vec<Missing>,
    sourceless: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(compiled: &'a [CompiledPackage]) -> Self {
        let mut by_package: BTreeMap<_, Vec<&CompiledPackage>> = BTreeMap::new();
        for package in compiled {
            let key = &package.key;
            by_package
                .entry((&key.name, &key.fingerprint, key.dependency_key.as_str()))
                .or_default()
                .push(package);
        }
        Self {
            by_package,
            keys: DependencyKeys::default(),
            seen: BTreeMap::new(),
            missing: Vec::new(),
            sourceless: BTreeMap::new(),
        }
    }

    /// Returns what must be compiled, and what is there for another stemcell than the one that it is wanted for.
    pub(super) fn found(self) -> (Vec<Missing>, BTreeMap<PackageRefKey, StemcellVersion>) {
        let elsewhere = |(key, form): (PackageRefKey, Form)| match form {
            Form::Compiled(on) if on != key.stemcell() => Some((key, on)),
            _ => None,
        };
        (self.missing, self.seen.into_iter().filter_map(elsewhere).collect())
    }

    /// Sees to it that a package is there, and with it all that it depends on.
    pub(super) fn require(
        &mut self,
        release: &ReleaseVersion,
        source: Option<&ManifestRelease>,
        package: &PackageInfo,
        stemcell: &StemcellVersion,
    ) -> Result<(), TaskError> {
        self.form(release, source, package, stemcell).map(|_| ())
    }

    fn form(
        &mut self,
        release: &ReleaseVersion,
        source: Option<&ManifestRelease>,
        package: &PackageInfo,
        stemcell: &StemcellVersion,
    ) -> Result<(PackageRefKey, Form), TaskError> {
        let key = PackageRefKey {
            name: package.name.clone(),
            fingerprint: package.fingerprint.clone(),
            os: stemcell.os.clone(),
            stemcell_version: stemcell.version.clone(),
            dependency_key: self.keys.of(release, package),
        };
        if let Some(known) = self.seen.get(&key) {
            return Ok((key, known.clone()));
        }
        let exported = source.map_or(&[][..], |s| &s.exported_from);
        let form = match self.compiled(package, &key, exported) {
            Some(on) => Form::Compiled(on),
            None if !exported.is_empty() => return Err(not_exported(release, package, exported, stemcell)),
            None if package.source.is_none() => {
                let of = format!("{}/{}", release.release.name, release.release.version);
                let line = format!("{}/{}", package.name, package.fingerprint);
                self.sourceless.entry(of).or_default().insert(line);
                Form::Unavailable
            }
            None => Form::Missing(self.compile(release, source, package, &key)?),
        };
        self.seen.insert(key.clone(), form.clone());
        Ok((key, form))
    }

    fn compile(
        &mut self,
        release: &ReleaseVersion,
        source: Option<&ManifestRelease>,
        package: &PackageInfo,
        key: &PackageRefKey,
    ) -> Result<usize, TaskError> {
        let (mut after, mut compiled_elsewhere) = (Vec::new(), Vec::new());
        for dependency in package.dependencies.iter().filter_map(|name| release.package(name.as_str())) {
            match self.form(release, source, dependency, &key.stemcell())? {
                (_, Form::Missing(at)) => after.push(at),
                (wanted, Form::Compiled(on)) if on != key.stemcell() => {
                    compiled_elsewhere.push(PackageRefKey {
                        os: on.os,
                        stemcell_version: on.version,
                        ..wanted
                    });
                }
                _ => {}
            }
        }
        self.missing.push(Missing { key: key.clone(), compiled_elsewhere, after });
        Ok(self.missing.len() - 1)
    }

    /// Returns the stemcell whose compiled form will do: the one that it is wanted for, else the newest that may.
    fn compiled(
        &self,
        package: &PackageInfo,
        key: &PackageRefKey,
        exported: &[(String, String)],
    ) -> Option<StemcellVersion> {
        let wanted = key.stemcell();
        let listed = |on: &StemcellVersion| {
            exported.iter().any(|(os, version)| *os == on.os && version == on.version.as_str())
        };
        // Without source there is no other way, so any stemcell of the same line has to do.
        let will_do = |on: &StemcellVersion| match exported.is_empty() {
            true => *on == wanted || (package.source.is_none() && on.is_in_line_with(&wanted)),
            false => listed(on) && on.is_in_line_with(&wanted),
        };
        let results = self.by_package.get(&(&key.name, &key.fingerprint, key.dependency_key.as_str()));
        results.into_iter().flatten().map(|p| p.key.stemcell()).filter(will_do).max_by(|a, b| {
            let newer = || version::compare(a.version.as_str(), b.version.as_str());
            (*a == wanted).cmp(&(*b == wanted)).then_with(newer)
        })
    }

    /// Packages without source that nobody compiled for this stemcell cannot come from anywhere (60001).
    pub(super) fn check(&self) -> Result<(), TaskError> {
        let Some((release, packages)) = self.sourceless.first_key_value() else { return Ok(()) };
        let lines: Vec<String> = packages.iter().map(|p| format!(" - {p}")).collect();
        Err(TaskError::new(
            ErrorCode::PackageMissingSourceCode,
            format!(
                "Can't use release '{release}'. It references packages without source code and are not compiled against the stemcell:\n{}",
                lines.join("\n")
            ),
        ))
    }
}

/// A release that was exported is used as it was exported or not at all (60004, 60003).
fn not_exported(
    release: &ReleaseVersion,
    package: &PackageInfo,
    exported: &[(String, String)],
    wanted: &StemcellVersion,
) -> TaskError {
    let release = format!("{}/{}", release.release.name, release.release.version);
    let listed: Vec<String> = exported.iter().map(|(os, version)| format!("{os}/{version}")).collect();
    let in_line = |(os, version): &(String, String)| {
        let listed = StemcellVersion { os: os.clone(), version: version.as_str().into() };
        listed.is_in_line_with(wanted)
    };
    if !exported.iter().any(in_line) {
        return TaskError::new(
            ErrorCode::StemcellNotPresentInExportedFrom,
            format!(
                "Can't use release '{release}': stemcell '{}/{}' is not in 'exported_from' ({})",
                wanted.os,
                wanted.version,
                listed.join(", ")
            ),
        );
    }
    TaskError::new(
        ErrorCode::PackageMissingExportedFrom,
        format!(
            "Can't use release '{release}': package '{}/{}' has no compiled form for any stemcell in 'exported_from' ({})",
            package.name,
            package.fingerprint,
            listed.join(", ")
        ),
    )
}
