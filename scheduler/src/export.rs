//! Exports: a release, compiled for a stemcell, on workers of a deployment that uses it.
//!
//! Not here: packing what was compiled, which needs no plan. Both sides read [`exported`], so that what is packed is what was
//! compiled.

use std::collections::BTreeSet;

use model::instance::ReleaseRef;
use model::manifest::{Stemcell, Stock};
use model::plan::Plan;
use model::release::{JobInfo, PackageInfo, ReleaseVersion};
use model::stemcell::StemcellVersion;
use model::step::PackageRefKey;
use model::task::{ReleaseExport, TaskError};
use model::*;

use crate::address::AddressBook;
use crate::bind::DependencyKeys;
use crate::chance::SeededIds;
use crate::compile::{Needs, Wanted};
use crate::documents::{self, Documents};
use crate::input::PlanInput;
use crate::steps::Units;
use crate::stored;

/// What an export holds.
#[derive(Debug)]
pub struct Exported<'a> {
    /// The jobs, in the release's order.
    pub jobs: Vec<&'a JobInfo>,
    /// The packages that these need, over any number of steps, in BOSH's order, and under which key each is compiled.
    pub packages: Vec<(&'a PackageInfo, PackageRefKey)>,
}

/// Returns what is exported of a release (70009 for a job that it has not).
pub fn exported<'a>(
    release: &'a ReleaseVersion,
    export: &ReleaseExport,
    stemcell: &StemcellVersion,
) -> Result<Exported<'a>, TaskError> {
    if let Some(unknown) = export.jobs.iter().find(|name| release.job(name.as_str()).is_none()) {
        let text = format!("Job '{unknown}' doesn't exist in release '{}'", export.slug());
        return Err(TaskError::new(ErrorCode::JobNotFound, text));
    }
    let is_wanted = |job: &&JobInfo| export.jobs.is_empty() || export.jobs.contains(&job.name);
    let jobs: Vec<&JobInfo> = release.jobs.iter().filter(is_wanted).collect();
    let mut keys = DependencyKeys::default();
    let with_key = |package: &'a PackageInfo| {
        let key = PackageRefKey {
            name: package.name.clone(),
            fingerprint: package.fingerprint.clone(),
            os: stemcell.os.clone(),
            stemcell_version: stemcell.version.clone(),
            dependency_key: keys.of(release, package),
        };
        (package, key)
    };
    let packages = closure(release, &jobs).into_iter().map(with_key).collect();
    Ok(Exported { jobs, packages })
}

/// Returns the packages that jobs need: the listed ones, then in each round what those before need directly.
fn closure<'a>(release: &'a ReleaseVersion, jobs: &[&JobInfo]) -> Vec<&'a PackageInfo> {
    let is_listed = |package: &&PackageInfo| jobs.iter().any(|job| job.packages.contains(&package.name));
    let mut found: Vec<&PackageInfo> = release.packages.iter().filter(is_listed).collect();
    let mut seen: BTreeSet<&PackageName> = found.iter().map(|package| &package.name).collect();
    let mut at = 0;
    while let Some(package) = found.get(at).copied() {
        let needs = |other: &&PackageInfo| package.dependencies.contains(&other.name);
        let new = release.packages.iter().filter(needs).filter(|other| seen.insert(&other.name));
        found.extend(new.collect::<Vec<_>>());
        at += 1;
    }
    found
}

/// Returns the stemcell as it was uploaded (50003 if it was not).
pub fn stemcell_of_export(stock: Stock<'_>, export: &ReleaseExport) -> Result<StemcellVersion, TaskError> {
    let StemcellVersion { os, version } = export.stemcell.clone();
    let wanted = Stemcell { alias: String::new(), name: None, os: Some(os), version };
    let found = stock.stemcells(&wanted)?;
    found.first().map(|stemcell| stemcell.version()).ok_or_else(|| {
        let text = format!("Stemcell '{}' doesn't exist", export.stemcell_slug());
        TaskError::new(ErrorCode::StemcellNotFound, text)
    })
}

/// Plans the compilation of what is missing for an export; none if nothing is. The input must have the manifest and configs
/// of the last success.
pub fn plan_export(input: &PlanInput<'_>, export: &ReleaseExport) -> Result<Option<Plan>, TaskError> {
    let stock = Stock { releases: input.releases, stemcells: input.stemcells };
    let release = stock.release(&export.release)?;
    let documents = documents::read(input)?;
    check_listed(input, &documents, release)?;
    let stemcell = stemcell_of_export(stock, export)?;
    let Exported { packages, .. } = exported(release, export, &stemcell)?;
    let wanted: Vec<Wanted<'_>> =
        packages.iter().map(|(package, _)| Wanted { release, package, stemcell: stemcell.clone() }).collect();
    let mut book = AddressBook::new(input.addresses);
    let needs = Needs::of_packages(input, &documents, &wanted, &mut book)?;
    check_exact(&needs, export)?;
    let (mut units, mut agents) = (Units::default(), SeededIds::new(input.deployment.seed, "agents"));
    let Some((phase, targets)) = needs.phase(&mut units, &mut agents) else { return Ok(None) };
    let plan = stored::plan(&input.deployment, targets, vec![phase], Vec::new());
    Ok(Some(Plan { reservations: book.into_reservations(), ..plan }))
}

/// Refuses a release that the deployment does not use (30011): who may have the one compile may see the other.
fn check_listed(
    input: &PlanInput<'_>,
    documents: &Documents,
    release: &ReleaseVersion,
) -> Result<(), TaskError> {
    let wanted = &release.release;
    if documents.manifest.releases.iter().any(|listed| listed.release == *wanted) {
        return Ok(());
    }
    let (ReleaseRef { name, version }, deployment) = (wanted, input.deployment.name);
    let text = format!("Release version '{name}/{version}' not found in deployment '{deployment}' manifest");
    Err(TaskError::new(ErrorCode::ReleaseNotInManifest, text))
}

/// Refuses what is compiled for another stemcell of the line only (60001). BOSH leaves such packages out of the archive,
/// which then cannot be used.
fn check_exact(needs: &Needs, export: &ReleaseExport) -> Result<(), TaskError> {
    let line = |(key, on): (&PackageRefKey, &StemcellVersion)| {
        format!(" - {}/{} (compiled for {}/{})", key.name, key.fingerprint, on.os, on.version)
    };
    let others: Vec<String> = needs.elsewhere().map(line).collect();
    if others.is_empty() {
        return Ok(());
    }
    let text = format!(
        "Can't export release '{}' for '{}'. It references packages without source code and are not compiled against the \
         stemcell:\n{}",
        export.slug(),
        export.stemcell_slug(),
        others.join("\n")
    );
    Err(TaskError::new(ErrorCode::PackageMissingSourceCode, text))
}
