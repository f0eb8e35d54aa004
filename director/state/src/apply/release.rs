//! Releases and compiled packages.

use std::collections::BTreeSet;

use model::release::{CompiledPackage, Parts, ReleaseVersion};
use model::*;

use super::event::{Audit, audit};
use super::line::{self, At, Heading};
use super::task::working;
use super::tx::{Tx, not_found};
use super::{blob, deployment};
use crate::command::{Outcome, Refusal};
use crate::tables::*;

/// How much of a release is there to be filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// Perhaps some of it only, or more than is stored.
    Partial,
}

/// `ReleasePut`.
pub(super) fn put(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    release: &ReleaseVersion,
    compiled: &[CompiledPackage],
    (parts, extent): (Parts, Extent),
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let key = (release.release.name.clone(), release.release.version.clone());
    let slug = format!("{}/{}", key.0, key.1);
    match tx.get(&RELEASES, &key) {
        Some(stored) if !is_same(&stored, release, extent) => {
            return Err(Refusal::Exists { what: "release".into(), name: slug });
        }
        Some(stored) => {
            let joined = stored.clone().joined(release, parts);
            if joined != stored {
                tx.put(&RELEASES, &key, &joined);
                if parts == Parts::Replace {
                    blob::leave(tx, blobs(&stored));
                }
            }
        }
        None => {
            tx.put(&RELEASES, &key, release);
            let object_name = Some(slug);
            audit(
                tx,
                Audit {
                    task: Some(&task),
                    action: "create",
                    object_type: "release",
                    object_name,
                    ..Audit::default()
                },
            );
        }
    }
    for package in compiled {
        put_compiled(tx, package.clone(), parts);
    }
    Ok(Outcome::Done)
}

fn is_same(stored: &ReleaseVersion, given: &ReleaseVersion, extent: Extent) -> bool {
    match extent {
        Extent::Whole => stored.check_same(given).is_ok(),
        Extent::Partial => stored.check_common(given).is_ok(),
    }
}

/// What becomes of packages that were compiled from what no release has any more, and of blobs that nothing names any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compiled {
    /// They go with the releases, and the task tells of everything that goes.
    GoWithThem,
    /// They stay, as they did before all members knew better.
    Stay,
}

/// `ReleaseDelete`. All at once: what the task tells of is gone, whoever leads when it is read.
pub(super) fn delete(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    name: &ReleaseName,
    version: Option<&Version>,
    compiled: Compiled,
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let versions = tx.rows_of(&RELEASES, name).map(|((_, version), _)| version);
    let versions: Vec<Version> = versions.filter(|has| version.is_none_or(|wanted| wanted == has)).collect();
    if versions.is_empty() {
        let slug = version.map_or(name.to_string(), |version| format!("{name}/{version}"));
        return Err(not_found("release", slug));
    }
    let mut deleted = Vec::new();
    for version in versions {
        let slug = format!("{name}/{version}");
        if let Some(user) = tx.state().users_of_release(name, &version).first() {
            return Err(Refusal::InUse { what: "release".into(), name: slug, by: user.to_string() });
        }
        let key = (name.clone(), version);
        deleted.extend(tx.get(&RELEASES, &key));
        tx.delete(&RELEASES, &key);
        let object_name = Some(slug);
        audit(
            tx,
            Audit {
                task: Some(&task),
                action: "delete",
                object_type: "release",
                object_name,
                ..Audit::default()
            },
        );
    }
    if compiled == Compiled::GoWithThem {
        delete_compiled(tx, &deleted);
        blob::leave(tx, deleted.iter().flat_map(blobs));
        tell_deleted(tx, task.id, &deleted);
        if version.is_none() {
            let slug = |gone: &ReleaseVersion| format!("{name}/{}", gone.release.version);
            tell(tx, task.id, "Deleting release versions", deleted.iter().map(slug).collect());
        }
    }
    deployment::bump_in_work(tx);
    Ok(Outcome::Done)
}

/// Deletes what was compiled from packages that no release has any more.
fn delete_compiled(tx: &mut Tx<'_>, deleted: &[ReleaseVersion]) {
    let mut packages: BTreeSet<_> = deleted.iter().flat_map(identities).collect();
    for (_, release) in tx.rows(&RELEASES) {
        for kept in identities(&release) {
            packages.remove(&kept);
        }
    }
    for package in &packages {
        let compiled: Vec<BlobDigest> = tx.rows_of(&COMPILED, package).map(|(_, row)| row.blob).collect();
        tx.delete_of(&COMPILED, package);
        blob::leave(tx, compiled);
    }
}

/// Tells of the packages and jobs that no version of the release has any more, in their order.
fn tell_deleted(tx: &mut Tx<'_>, task: TaskId, deleted: &[ReleaseVersion]) {
    let Some(first) = deleted.first() else { return };
    let kept: Vec<_> = tx.rows_of(&RELEASES, &first.release.name).map(|(_, release)| release).collect();
    let gone = |slugs: fn(&ReleaseVersion) -> Vec<String>| -> Vec<String> {
        let mut seen: BTreeSet<String> = kept.iter().flat_map(slugs).collect();
        deleted.iter().flat_map(slugs).filter(|slug| seen.insert(slug.clone())).collect()
    };
    let packages = gone(|of| of.packages.iter().map(|p| format!("{}/{}", p.name, p.fingerprint)).collect());
    let jobs = gone(|of| of.jobs.iter().map(|j| format!("{}/{}", j.name, j.fingerprint)).collect());
    tell(tx, task, "Deleting packages", packages);
    tell(tx, task, "Deleting jobs", jobs);
}

fn tell(tx: &mut Tx<'_>, task: TaskId, stage: &str, parts: Vec<String>) {
    let total = parts.len().try_into().unwrap_or(u32::MAX);
    for (part, index) in parts.iter().zip(1..) {
        let heading = Heading { stage, tags: &[], total, task: part, index };
        line::progress(tx, task, &heading, At::Started);
        line::progress(tx, task, &heading, At::Finished);
    }
}

/// Returns the blobs of a release's jobs, and of its packages' sources.
fn blobs(release: &ReleaseVersion) -> Vec<BlobDigest> {
    let sources = release.packages.iter().filter_map(|package| package.source.clone());
    release.jobs.iter().map(|job| job.blob.clone()).chain(sources).collect()
}

fn identities(release: &ReleaseVersion) -> impl Iterator<Item = (PackageName, Fingerprint)> + use<'_> {
    release.packages.iter().map(|package| (package.name.clone(), package.fingerprint.clone()))
}

/// Files a compiled package under its build number. One that is there already stays, as instances may run it, or keeps
/// its number and gets another archive.
pub(super) fn put_compiled(tx: &mut Tx<'_>, package: CompiledPackage, parts: Parts) {
    let key = package.key.clone();
    if let Some(stored) = tx.get(&COMPILED, &key) {
        if parts == Parts::Replace {
            tx.put(&COMPILED, &key, &CompiledPackage { build: stored.build, ..package });
            blob::leave(tx, [stored.blob]);
        }
        return;
    }
    let on_stemcell =
        (key.name.clone(), key.fingerprint.clone(), key.os.clone(), key.stemcell_version.clone());
    let builds = tx.rows_of(&COMPILED, &on_stemcell).map(|(_, other)| other.build);
    let build = builds.max().unwrap_or(0).saturating_add(1);
    tx.put(&COMPILED, &key, &CompiledPackage { build, ..package });
}
