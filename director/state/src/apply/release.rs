//! Releases and compiled packages.

use std::collections::BTreeSet;

use model::release::{CompiledPackage, Parts, ReleaseVersion};
use model::*;

use super::deployment;
use super::event::{Audit, audit};
use super::task::working;
use super::tx::{Tx, not_found};
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

/// What becomes of packages that were compiled from what no release has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compiled {
    /// They go with the releases.
    GoWithThem,
    /// They stay, as they did before all members knew better.
    Stay,
}

/// `ReleaseDelete`.
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
    let mut packages = BTreeSet::new();
    for version in versions {
        let slug = format!("{name}/{version}");
        if let Some(user) = tx.state().users_of_release(name, &version).first() {
            return Err(Refusal::InUse { what: "release".into(), name: slug, by: user.to_string() });
        }
        let key = (name.clone(), version);
        if let Some(release) = tx.get(&RELEASES, &key) {
            packages.extend(identities(&release));
        }
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
        for (_, release) in tx.rows(&RELEASES) {
            for kept in identities(&release) {
                packages.remove(&kept);
            }
        }
        for package in &packages {
            tx.delete_of(&COMPILED, package);
        }
    }
    deployment::bump_in_work(tx);
    Ok(Outcome::Done)
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
        }
        return;
    }
    let on_stemcell =
        (key.name.clone(), key.fingerprint.clone(), key.os.clone(), key.stemcell_version.clone());
    let builds = tx.rows_of(&COMPILED, &on_stemcell).map(|(_, other)| other.build);
    let build = builds.max().unwrap_or(0).saturating_add(1);
    tx.put(&COMPILED, &key, &CompiledPackage { build, ..package });
}
