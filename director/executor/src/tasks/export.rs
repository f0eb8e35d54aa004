//! `export-release`, once everything is compiled: the archive is packed, left to be fetched, and told of.
//!
//! The same release, compiled the same, always makes the same archive: a new leader that packs it again changes nothing.

use model::instance::ReleaseRef;
use model::manifest::Stock;
use model::release::{JobInfo, PackageInfo};
use model::step::PackageRefKey;
use model::task::{DigestKind, OutputKind, ReleaseExport, TaskError};
use model::{BlobDigest, ErrorCode, RequestId, Timestamp};
use release::archive::{ExportedPackage, exported_manifest};
use release::digest::{Algorithm, Hasher};
use release::{BlobError, Blobstore};
use scheduler::Exported;
use serde_json::json;
use state::State;
use state::command::{Command, TaskEnd};
use state::log::Proposal;
use state::records::LineState;
use tokio::io::AsyncReadExt as _;

use super::bundle::{self, Entry};
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

// Stages, as BOSH calls them. There every part is copied to the director first; here it is read to its end, which shows that it
// is there and sound.
const PACKAGES: &str = "copying packages";
const JOBS: &str = "copying jobs";

/// Bytes read at once.
const PIECE_BYTES: usize = 64 << 10;

/// A file of the archive that is an archive itself.
struct Part {
    /// What it is called in the task's output.
    label: String,
    /// What it is called in the archive.
    file: String,
    blob: BlobDigest,
}

impl Part {
    fn of_job(job: &&JobInfo) -> Self {
        Self {
            label: format!("{}/{}", job.name, job.fingerprint),
            file: format!("./jobs/{}.tgz", job.name),
            blob: job.blob.clone(),
        }
    }

    fn of_package(row: &ExportedPackage<'_>) -> Self {
        Self {
            label: format!("{}/{}", row.package.name, row.package.fingerprint),
            file: format!("./compiled_packages/{}.tgz", row.package.name),
            blob: row.compiled.blob.clone(),
        }
    }
}

/// All that goes into the archive.
struct Contents {
    manifest: String,
    packages: Vec<Part>,
    jobs: Vec<Part>,
}

impl Contents {
    /// Returns the files in the order in which readers that stop early expect them.
    fn into_entries(self) -> Vec<Entry> {
        let blob = |part: Part| Entry::Blob(part.file, part.blob);
        let mut entries = vec![Entry::Text("./release.MF".into(), self.manifest)];
        entries.push(Entry::Folder("./jobs/".into()));
        entries.extend(self.jobs.into_iter().map(blob));
        entries.push(Entry::Folder("./compiled_packages/".into()));
        entries.extend(self.packages.into_iter().map(blob));
        entries
    }
}

/// Packs the archive and leaves it to be fetched. The task's result says where it is.
pub async fn export_release(context: &TaskContext, export: &ReleaseExport) -> Result<TaskEnd, Interrupted> {
    let contents = match contents(context, export) {
        Ok(contents) => contents,
        Err(error) => return Ok(TaskEnd::Error(error)),
    };
    for (stage, parts) in [(PACKAGES, &contents.packages), (JOBS, &contents.jobs)] {
        if let Some(end) = check(context, stage, parts).await? {
            return Ok(end);
        }
    }
    let blobs = &*context.ports.blobs;
    let packed = async {
        // No time is in it, so that what is the same has the same digest, whenever it is packed.
        let archive = bundle::together(blobs, &contents.into_entries(), Timestamp::default()).await?;
        let digest = match export.digest {
            DigestKind::Sha256 => format!("sha256:{archive}"),
            DigestKind::Sha1 => sha1(blobs, &archive).await?,
        };
        Ok((archive, digest))
    };
    let (archive, digest) = match packed.await {
        Ok(packed) => packed,
        Err(error) => {
            let error: BlobError = error;
            let text =
                format!("the archive of '{}' can't be packed: {}", export.slug(), bundle::told(&error));
            return Ok(TaskEnd::Error(TaskError::plain(text)));
        }
    };
    leave(context, &archive, &digest).await?;
    let text = format!("Exported release: {} for {}", export.slug(), export.stemcell_slug());
    Ok(TaskEnd::Done(Some(text)))
}

/// Finds everything that is packed, as it is now. It was compiled a moment ago, and the release stays for as long as the task
/// has the deployment's lock.
fn contents(context: &TaskContext, export: &ReleaseExport) -> Result<Contents, TaskError> {
    let view = context.view();
    let state = State::new(&*view);
    let (releases, stemcells) = (state.releases(), state.stemcells());
    let stock = Stock { releases: &releases, stemcells: &stemcells };
    let release = stock.release(&export.release)?;
    let stemcell = scheduler::stemcell_of_export(stock, export)?;
    let Exported { jobs, packages } = scheduler::exported(release, export, &stemcell)?;
    let row = |(package, key): (_, PackageRefKey)| {
        let compiled = state.compiled_package(&key).ok_or_else(|| gone(&release.release, package, &key))?;
        Ok(ExportedPackage { package, compiled })
    };
    let rows: Vec<ExportedPackage<'_>> = packages.into_iter().map(row).collect::<Result<_, TaskError>>()?;
    Ok(Contents {
        manifest: exported_manifest(release, &jobs, &rows),
        packages: rows.iter().map(Part::of_package).collect(),
        jobs: jobs.iter().map(Part::of_job).collect(),
    })
}

fn gone(release: &ReleaseRef, package: &PackageInfo, key: &PackageRefKey) -> TaskError {
    let text = format!(
        "Package '{}/{}' of release '{}/{}' is not compiled for '{}/{}' any more",
        package.name, package.fingerprint, release.name, release.version, key.os, key.stemcell_version
    );
    TaskError::new(ErrorCode::PackageMissingSourceCode, text)
}

/// Reads every part to its end, unless an earlier leader has. Returns how the task ends, if it does.
async fn check(context: &TaskContext, stage: &str, parts: &[Part]) -> Result<Option<TaskEnd>, Interrupted> {
    let lines = Lines::of(context, parts.len().try_into().unwrap_or(u32::MAX));
    for (part, index) in parts.iter().zip(1..) {
        if context.is_cancelling() {
            return Ok(Some(TaskEnd::Cancelled));
        }
        if lines.seen(stage, &part.label) == Some(LineState::Finished) {
            continue;
        }
        lines.started(stage, &part.label, index).await?;
        if let Err(error) = read(&*context.ports.blobs, &part.blob, |_| ()).await {
            let text = format!("the archive of '{}' can't be read: {}", part.label, bundle::told(&error));
            let error = TaskError::plain(text);
            lines.ended_badly(stage, &part.label, index, &error).await?;
            return Ok(Some(TaskEnd::Error(error)));
        }
        lines.finished(stage, &part.label, index).await?;
    }
    Ok(None)
}

/// Reads a blob to its end.
async fn read(
    blobs: &dyn Blobstore,
    digest: &BlobDigest,
    mut seen: impl FnMut(&[u8]),
) -> Result<(), BlobError> {
    let mut reader = blobs.get(digest).await?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let failed = |source| BlobError::Store { operation: "read", subject: digest.to_string(), source };
        match reader.read(&mut piece).await.map_err(failed)? {
            0 => return Ok(()),
            count => seen(&piece[..count]),
        }
    }
}

async fn sha1(blobs: &dyn Blobstore, digest: &BlobDigest) -> Result<String, BlobError> {
    let mut hasher = Hasher::default();
    read(blobs, digest, |piece| hasher.update(piece)).await?;
    Ok(hasher.finish().hex(Algorithm::Sha1).to_owned())
}

/// Has the archive remembered as one that was exported, and told where it is, once.
async fn leave(context: &TaskContext, archive: &BlobDigest, digest: &str) -> Result<(), Interrupted> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let put = Command::ExportPut { task, epoch, digest: archive.clone() };
    context.propose(Proposal::own(put)).await??;
    let is_told = {
        let view = context.view();
        !State::new(&*view).output(task, OutputKind::Result, 0, 1).is_empty()
    };
    if is_told {
        return Ok(());
    }
    let lines = format!("{}\n", json!({ "blobstore_id": archive, "sha1": digest }));
    let request_id = Some(RequestId::new(format!("t{task}-report")));
    let report = Command::TaskReport { task, epoch, lines };
    context.propose(Proposal { request_id, ..Proposal::own(report) }).await??;
    Ok(())
}
