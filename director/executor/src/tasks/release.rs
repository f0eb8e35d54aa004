//! Filing and deleting releases.

use model::task::TaskError;
use model::{BlobDigest, ReleaseName, Timestamp, Version};
use release::archive::{ArchiveError, ImportedCompiledPackage, KnownParts, ReleaseArchive};
use release::blobstore::StoreSink;
use state::State;
use state::command::{Command, Refusal, TaskEnd};
use state::log::{LogError, Proposal};
use tokio::runtime::Handle;

use crate::blobs;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

const STAGE: &str = "Processing release";

/// Reads a release archive out of a blob, checks every part of it, and files its jobs and packages.
///
/// Blobs are content-addressed and filing the same content again changes nothing: a new leader begins anew.
pub async fn upload_release(
    context: &TaskContext,
    blob: &BlobDigest,
    _rebase: bool,
    fix: bool,
) -> Result<TaskEnd, Interrupted> {
    let lines = Lines::new(context);
    lines.started(STAGE, "Extracting release", 1).await?;
    let imported = match import(context, blob, fix).await {
        Ok(imported) => imported,
        Err(error) => {
            lines.ended_badly(STAGE, "Extracting release", 1, &error).await?;
            return Ok(TaskEnd::Error(error));
        }
    };
    lines.finished(STAGE, "Extracting release", 1).await?;
    let named = format!("{}/{}", imported.release.name, imported.release.version);
    let compiled = imported.compiled.iter().map(compiled_package).collect();
    // The state stamps the time of the entry; what is sent only fills the field.
    let release = Box::new(imported.into_version(Timestamp::default()));
    let put = Command::ReleasePut { task: context.id(), epoch: context.fence.epoch(), release, compiled };
    context.fence.check()?;
    let committed = match context.ports.log.propose(Proposal::own(put)).await {
        Err(LogError::TooLarge { bytes, max }) => {
            let text = format!(
                "release '{named}' can't be filed: the descriptions of its jobs and packages have {bytes} bytes, and \
                 {max} are allowed"
            );
            return Ok(TaskEnd::Error(TaskError::plain(text)));
        }
        answer => answer?,
    };
    match committed.outcome.accepted() {
        Ok(_) => Ok(TaskEnd::Done(Some(format!("Created release '{named}'")))),
        Err(Refusal::StaleEpoch { given, .. }) => Err(crate::lease::Lost { epoch: given }.into()),
        Err(refusal) => {
            Ok(TaskEnd::Error(TaskError::new(model::ErrorCode::ReleaseAlreadyExists, refusal.to_string())))
        }
    }
}

async fn import(
    context: &TaskContext,
    blob: &BlobDigest,
    fix: bool,
) -> Result<release::archive::ImportedRelease, TaskError> {
    let file =
        blobs::spool(&*context.ports.blobs, blob).await.map_err(|e| TaskError::plain(e.to_string()))?;
    // `--fix` stores every part again: a damaged copy is replaced, nothing is taken as known.
    let known = if fix { KnownParts::default() } else { known(context) };
    let mut sink = StoreSink::new(context.ports.blobs.clone(), Handle::current());
    let imported = tokio::task::spawn_blocking(move || {
        let archive = ReleaseArchive::open(file.path())?;
        archive.import(&known, &mut sink)
    });
    let imported =
        imported.await.map_err(|e| TaskError::plain(format!("reading the release failed: {e}")))?;
    imported.map_err(told)
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

fn compiled_package(imported: &ImportedCompiledPackage) -> model::release::CompiledPackage {
    model::release::CompiledPackage {
        key: imported.key.clone(),
        build: 1,
        blob: imported.blob.digest.clone(),
        digest: imported.digest.clone(),
        size_bytes: imported.blob.bytes,
    }
}

/// Deletes a release version, or all of them, unless a deployment uses one.
pub async fn delete_release(
    context: &TaskContext,
    name: &ReleaseName,
    version: Option<&Version>,
) -> Result<TaskEnd, Interrupted> {
    context.fence.check()?;
    let named = version.map_or_else(|| name.to_string(), |v| format!("{name}/{v}"));
    let delete = Command::ReleaseDelete {
        task: context.id(),
        epoch: context.fence.epoch(),
        name: name.clone(),
        version: version.cloned(),
    };
    match context.ports.log.propose(Proposal::own(delete)).await?.outcome.accepted() {
        Ok(_) => Ok(TaskEnd::Done(Some(format!("/release/{named}")))),
        Err(Refusal::StaleEpoch { given, .. }) => Err(crate::lease::Lost { epoch: given }.into()),
        Err(refusal) => Ok(TaskEnd::Error(super::told_refusal(
            &refusal,
            model::ErrorCode::ReleaseNotFound,
            model::ErrorCode::ReleaseInUse,
        ))),
    }
}
