//! Filing and deleting releases.

use std::collections::BTreeSet;
use std::io::Read;

use model::release::{CompiledPackage, JobInfo, PackageInfo, ReleaseVersion};
use model::step::PackageRefKey;
use model::task::TaskError;
use model::{BlobDigest, DeploymentName, ErrorCode, ReleaseName, RequestId, Timestamp, Version};
use release::archive::{ArchiveError, ImportedCompiledPackage, ImportedRelease, KnownParts, ReleaseArchive};
use release::blobstore::{BlobSink, StoreSink};
use release::{BlobError, BlobStat};
use state::State;
use state::command::{Command, Refusal, TaskEnd};
use state::log::{LogError, Proposal};
use tokio::runtime::Handle;

use crate::blobs;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;
use crate::tasks::remote::{Archive, Remote};

// Stages, as BOSH calls them. What they are about is read at once here, and told piece by piece.
const EXTRACTING: &str = "Extracting release";
const VERIFYING: &str = "Verifying manifest";
const RESOLVING: &str = "Resolving package dependencies";

const REMOTE: Remote =
    Remote { noun: "release", stage: None, wrong_digest: ErrorCode::ReleaseDigestMismatch };

/// Fetches a release archive unless it is a blob already, checks every part of it, and files its jobs and packages.
///
/// Blobs are content-addressed and filing the same content again changes nothing: a new leader begins anew.
pub async fn upload_release(
    context: &TaskContext,
    archive: Archive<'_>,
    rebase: bool,
    fix: bool,
) -> Result<TaskEnd, Interrupted> {
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    let lines = Lines::new(context);
    let blob = match archive.stored(context, &lines, &REMOTE).await? {
        Ok(blob) => blob,
        Err(end) => return Ok(end),
    };
    lines.started(EXTRACTING, EXTRACTING, 1).await?;
    // Before any part is stored: what is in none of these is told as new.
    let before = known(context);
    let (imported, stored) = import(context, &blob, fix).await;
    // Whatever becomes of it: what is not filed is not kept for ever.
    context.may_leave(stored).await?;
    let imported = match imported {
        Ok(imported) => imported,
        // There was no archive, or no manifest in it.
        Err(error) if error.code != ErrorCode::ReleaseManifestNotFound.number() => {
            lines.ended_badly(EXTRACTING, EXTRACTING, 1, &error).await?;
            return Ok(TaskEnd::Error(error));
        }
        Err(error) => {
            lines.finished(EXTRACTING, EXTRACTING, 1).await?;
            lines.started(VERIFYING, VERIFYING, 1).await?;
            lines.ended_badly(VERIFYING, VERIFYING, 1, &error).await?;
            return Ok(TaskEnd::Error(error));
        }
    };
    lines.finished(EXTRACTING, EXTRACTING, 1).await?;
    lines.done(VERIFYING, VERIFYING, 1).await?;
    let (is_compiled, packages) = (imported.is_compiled, imported.packages.clone());
    let (release, compiled, partial) = match fit_in(context, imported, rebase) {
        Ok(fitting) => fitting,
        // No version could be chosen: its parts were not looked at.
        Err(error) if error.code == ErrorCode::ReleaseVersionInvalid.number() => {
            return Ok(TaskEnd::Error(error));
        }
        Err(error) => {
            lines.done(RESOLVING, RESOLVING, 1).await?;
            // Packages are looked at first: those were found in order.
            let is_about_job = error.code == ErrorCode::ReleaseExistingJobFingerprintMismatch.number();
            if is_about_job && !is_compiled {
                tell_sources(context, &before, &packages).await?;
            }
            return Ok(TaskEnd::Error(error));
        }
    };
    lines.done(RESOLVING, RESOLVING, 1).await?;
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    if is_compiled {
        tell_compiled(context, &before, &release, &compiled).await?;
    } else {
        tell_sources(context, &before, &packages).await?;
    }
    tell_jobs(context, &before, &release).await?;
    let named = format!("{}/{}", release.release.name, release.release.version);
    let created = if is_compiled { "Compiled Release has been created" } else { "Release has been created" };
    let (task, epoch, release) = (context.id(), context.fence.epoch(), Box::new(release));
    let put = Command::ReleasePut { task, epoch, release, compiled, fix, partial };
    let filed = match context.propose(Proposal::own(put)).await {
        Err(Interrupted::Log(LogError::TooLarge { bytes, max })) => {
            let text = format!(
                "release '{named}' can't be filed: the descriptions of its jobs and packages have {bytes} bytes, and \
                 {max} are allowed"
            );
            return Ok(TaskEnd::Error(TaskError::plain(text)));
        }
        answer => answer?,
    };
    Ok(match filed {
        Ok(_) => {
            lines.done(created, &named, 1).await?;
            TaskEnd::Done(Some(format!("Created release '{named}'")))
        }
        Err(refusal) => TaskEnd::Error(TaskError::new(ErrorCode::ReleaseAlreadyExists, refusal.to_string())),
    })
}

/// Tells of the packages of a release with sources: which are new, and how many there were before.
async fn tell_sources(
    context: &TaskContext,
    before: &KnownParts,
    packages: &[PackageInfo],
) -> Result<(), Interrupted> {
    let sources = packages.iter().filter(|package| package.source.is_some());
    let packages = sources.map(|package| {
        let is_it =
            |other: &PackageInfo| other.name == package.name && other.fingerprint == package.fingerprint;
        (part_of(package), before.packages.iter().any(is_it))
    });
    tell(context, "packages", packages.collect()).await
}

/// Tells of those of a compiled release: which the release had in no version, and what of them is compiled for a stemcell for
/// the first time. Of those that are in this version already nothing is said.
async fn tell_compiled(
    context: &TaskContext,
    before: &KnownParts,
    release: &ReleaseVersion,
    compiled: &[CompiledPackage],
) -> Result<(), Interrupted> {
    let packages = {
        let view = context.view();
        let versions = State::new(&*view).release_versions(&release.release.name);
        let has = |version: &ReleaseVersion, package: &PackageInfo| {
            version.package(package.name.as_str()).is_some_and(|own| own.fingerprint == package.fingerprint)
        };
        let same = versions.iter().find(|version| version.release == release.release);
        let others = release.packages.iter().filter(|package| !same.is_some_and(|same| has(same, package)));
        let is_known = |package: &PackageInfo| versions.iter().any(|version| has(version, package));
        others.map(|package| (part_of(package), is_known(package))).collect::<Vec<_>>()
    };
    tell(context, "packages", packages).await?;
    let new: Vec<&PackageRefKey> =
        compiled.iter().map(|package| &package.key).filter(|key| !before.compiled.contains(key)).collect();
    let lines = Lines::of(context, new.len().try_into().unwrap_or(u32::MAX));
    for (key, index) in new.into_iter().zip(1..) {
        let part = format!("{}/{} for {}/{}", key.name, key.fingerprint, key.os, key.stemcell_version);
        lines.done("Creating new compiled packages", &part, index).await?;
    }
    Ok(())
}

async fn tell_jobs(
    context: &TaskContext,
    before: &KnownParts,
    release: &ReleaseVersion,
) -> Result<(), Interrupted> {
    let jobs = release.jobs.iter().map(|job| {
        let is_it = |other: &JobInfo| other.name == job.name && other.fingerprint == job.fingerprint;
        (format!("{}/{}", job.name, job.fingerprint), before.jobs.iter().any(is_it))
    });
    tell(context, "jobs", jobs.collect()).await
}

fn part_of(package: &PackageInfo) -> String {
    format!("{}/{}", package.name, package.fingerprint)
}

/// Tells of parts of one sort, of which it is known whether they were there before.
async fn tell(context: &TaskContext, what: &str, parts: Vec<(String, bool)>) -> Result<(), Interrupted> {
    let creating = format!("Creating new {what}");
    // What an earlier leader has told as new may be filed by now.
    let seen = |part: &str| Lines::new(context).seen(&creating, part).is_some();
    let new: Vec<&String> =
        parts.iter().filter(|(part, is_known)| !is_known || seen(part)).map(|(part, _)| part).collect();
    let lines = Lines::of(context, new.len() as u32);
    for (number, part) in new.iter().enumerate() {
        lines.done(&creating, part, number as u32 + 1).await?;
    }
    let existing = parts.len() - new.len();
    if existing > 0 {
        let what = if existing == 1 { what.trim_end_matches('s') } else { what };
        let stage = format!("Processing {existing} existing {what}");
        Lines::new(context).done(&stage, &stage, 1).await?;
    }
    Ok(())
}

/// Finds the place of a release among those that are stored: its version, and whether it may have that. Returns also whether
/// it is some of a release that is stored, or more of it.
fn fit_in(
    context: &TaskContext,
    imported: ImportedRelease,
    rebase: bool,
) -> Result<(ReleaseVersion, Vec<CompiledPackage>, bool), TaskError> {
    let compiled = imported.compiled.iter().map(compiled_package).collect();
    // The state stamps the time of the entry; what is sent only fills the field.
    let mut release = imported.into_version(Timestamp::default());
    let view = context.view();
    let stored = State::new(&*view).releases();
    let of_name = || stored.iter().filter(|other| other.release.name == release.release.name);
    if rebase {
        let version = rebased(&release, of_name().collect())?;
        release.release.version = version;
    }
    let Some(stored) = stored.iter().find(|other| other.release == release.release) else {
        return Ok((release, compiled, false));
    };
    match stored.check_same(&release) {
        Ok(()) => Ok((release, compiled, false)),
        Err(error) if !context.knows_second_level() => Err(error),
        Err(_) => stored.check_common(&release).map(|()| (release, compiled, true)),
    }
}

/// Chooses the version of a release that is to follow those that are stored. If the newest of its line is the same one,
/// it is that: a new leader that begins anew must not file a second one.
fn rebased(given: &ReleaseVersion, stored: Vec<&ReleaseVersion>) -> Result<Version, TaskError> {
    let own = given.release.version.as_str();
    let versions = stored.iter().map(|release| release.release.version.as_str());
    let next = model::version::rebased(own, versions).ok_or_else(|| {
        let text = format!("Failed to Rebase - Invalid Version: '{own}' has no part behind '+' to count in");
        TaskError::new(ErrorCode::ReleaseVersionInvalid, text)
    })?;
    let line = next.split_once('+').map_or(next.as_str(), |(line, _)| line);
    let of_line = stored.into_iter().filter(|release| {
        let version = release.release.version.as_str();
        version.split_once('+').is_some_and(|(other, _)| model::version::compare(other, line).is_eq())
    });
    let newest = of_line
        .max_by(|a, b| model::version::compare(a.release.version.as_str(), b.release.version.as_str()));
    match newest {
        Some(newest) if newest.check_same(given).is_ok() => Ok(newest.release.version.clone()),
        _ => Ok(next.into()),
    }
}

/// Reads an archive and stores its parts. Returns also which parts it has stored, however it ended.
async fn import(
    context: &TaskContext,
    blob: &BlobDigest,
    fix: bool,
) -> (Result<ImportedRelease, TaskError>, Vec<BlobDigest>) {
    let file = match blobs::spool(&*context.ports.blobs, blob).await {
        Ok(file) => file,
        Err(error) => return (Err(TaskError::plain(error.to_string())), Vec::new()),
    };
    // `--fix` stores every part again: a damaged copy is replaced, nothing is taken as known.
    let known = if fix { KnownParts::default() } else { known(context) };
    let store = StoreSink::new(context.ports.blobs.clone(), Handle::current());
    let imported = tokio::task::spawn_blocking(move || {
        let mut sink = Remembering { store, stored: Vec::new() };
        let imported =
            ReleaseArchive::open(file.path()).and_then(|archive| archive.import(&known, &mut sink));
        (imported, sink.stored)
    });
    match imported.await {
        Ok((imported, stored)) => (imported.map_err(told), stored),
        Err(error) => (Err(TaskError::plain(format!("reading the release failed: {error}"))), Vec::new()),
    }
}

/// A sink that knows what went through it.
struct Remembering {
    store: StoreSink,
    stored: Vec<BlobDigest>,
}

impl BlobSink for Remembering {
    fn put(&mut self, content: &mut dyn Read) -> Result<BlobStat, BlobError> {
        let stat = self.store.put(content)?;
        self.stored.push(stat.digest.clone());
        Ok(stat)
    }
}

pub(super) fn told(error: ArchiveError) -> TaskError {
    TaskError::new(error.code, error.message)
}

fn known(context: &TaskContext) -> KnownParts {
    let view = context.view();
    let state = State::new(&*view);
    let releases = state.releases();
    KnownParts {
        jobs: releases.iter().flat_map(|r| r.jobs.iter().cloned()).collect(),
        packages: releases
            .iter()
            .flat_map(|r| r.packages.iter().filter(|p| p.source.is_some()).cloned())
            .collect(),
        compiled: state.compiled_packages().into_iter().map(|c| c.key).collect(),
    }
}

fn compiled_package(imported: &ImportedCompiledPackage) -> CompiledPackage {
    CompiledPackage {
        key: imported.key.clone(),
        build: 1,
        blob: imported.blob.digest.clone(),
        digest: imported.digest.clone(),
        size_bytes: imported.blob.bytes,
    }
}

/// Deletes a release version, or all of them, unless somebody uses one.
pub async fn delete_release(
    context: &TaskContext,
    name: &ReleaseName,
    version: Option<&Version>,
) -> Result<TaskEnd, Interrupted> {
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    Ok(match delete(context, name, version).await? {
        Ok(()) => TaskEnd::Done(Some(format!("/release/{name}"))),
        Err(NotDeleted::Gone(error) | NotDeleted::InUse(error) | NotDeleted::Other(error)) => {
            TaskEnd::Error(error)
        }
    })
}

fn slug(name: &ReleaseName, version: Option<&Version>) -> String {
    version.map_or_else(|| name.to_string(), |version| format!("{name}/{version}"))
}

/// Why a release was not deleted, with the number that BOSH has for it.
pub(super) enum NotDeleted {
    /// It is not there.
    Gone(TaskError),
    /// Somebody uses it.
    InUse(TaskError),
    /// Anything else.
    Other(TaskError),
}

/// Deletes a release version, or all of them, once for this task.
pub(super) async fn delete(
    context: &TaskContext,
    name: &ReleaseName,
    version: Option<&Version>,
) -> Result<Result<(), NotDeleted>, Interrupted> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let delete = Command::ReleaseDelete {
        task,
        epoch,
        name: name.clone(),
        version: version.cloned(),
        with_compiled: context.knows_second_level(),
    };
    // The first answer counts: a new leader would find nothing left to delete.
    let request_id = Some(RequestId::new(format!("t{task}-delete-release-{}", slug(name, version))));
    let deleted = context.propose(Proposal { request_id, ..Proposal::own(delete) }).await?;
    Ok(deleted.map(drop).map_err(|refusal| {
        let error = not_deleted(context, name, version, &refusal);
        match refusal {
            Refusal::NotFound { .. } => NotDeleted::Gone(error),
            Refusal::InUse { .. } => NotDeleted::InUse(error),
            _ => NotDeleted::Other(error),
        }
    }))
}

/// Tells why a release was not deleted, with the number and in the words that BOSH has for it.
fn not_deleted(
    context: &TaskContext,
    name: &ReleaseName,
    version: Option<&Version>,
    refusal: &Refusal,
) -> TaskError {
    let view = context.view();
    let state = State::new(&*view);
    match (refusal, version) {
        (Refusal::NotFound { .. }, Some(version)) if !state.release_versions(name).is_empty() => {
            let text = format!("Release version '{name}/{version}' doesn't exist");
            TaskError::new(ErrorCode::ReleaseVersionNotFound, text)
        }
        (Refusal::NotFound { .. }, _) => {
            TaskError::new(ErrorCode::ReleaseNotFound, format!("Release '{name}' doesn't exist"))
        }
        (Refusal::InUse { .. }, Some(version)) => {
            let users = joined(state.users_of_release(name, version));
            let text = format!("ReleaseVersion '{name}/{version}' is still in use by: {users}");
            TaskError::new(ErrorCode::ReleaseVersionInUse, text)
        }
        (Refusal::InUse { .. }, None) => {
            let versions = state.release_versions(name);
            let users =
                versions.iter().flat_map(|found| state.users_of_release(name, &found.release.version));
            let text = format!("Release '{name}' is still in use by: {}", joined(users.collect()));
            TaskError::new(ErrorCode::ReleaseInUse, text)
        }
        (other, _) => TaskError::plain(other.to_string()),
    }
}

fn joined(names: BTreeSet<DeploymentName>) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
