//! Blobs: which replicas hold which.

use std::collections::BTreeSet;

use model::task::TaskKind;
use model::*;

use super::task::working;
use super::tx::{Tx, not_found};
use crate::command::{Outcome, Refusal};
use crate::records::{BlobRecord, Forgettable};
use crate::tables::*;

/// How far apart the clocks of replicas may be.
const CLOCKS_APART_MS: i64 = 10 * 60 * 1000;

/// `BlobHeld`. The size is the first one told: the digest leaves no other.
pub(super) fn held(
    tx: &mut Tx<'_>,
    digest: &BlobDigest,
    size_bytes: u64,
    nodes: &[NodeId],
) -> Result<Outcome, Refusal> {
    let new =
        || BlobRecord { digest: digest.clone(), size_bytes, nodes: Default::default(), created_at: tx.at };
    let mut blob = tx.get(&BLOBS, digest).unwrap_or_else(new);
    blob.nodes.extend(nodes);
    tx.put(&BLOBS, digest, &blob);
    Ok(Outcome::Done)
}

/// `BlobLost`. A blob that nobody holds any more stays known, so that its loss can be seen.
pub(super) fn lost(tx: &mut Tx<'_>, digest: &BlobDigest, node: NodeId) -> Result<Outcome, Refusal> {
    let mut blob = tx.need(&BLOBS, digest, "blob")?;
    blob.nodes.remove(&node);
    tx.put(&BLOBS, digest, &blob);
    Ok(Outcome::Done)
}

/// `BlobForget`. Forgetting twice is fine.
pub(super) fn forget(tx: &mut Tx<'_>, digest: &BlobDigest) -> Result<Outcome, Refusal> {
    tx.delete(&BLOBS, digest);
    Ok(Outcome::Done)
}

/// `BundlePut`. Which blob it is says an agent, who must not have us delete what is not its own.
pub(super) fn bundle_put(
    tx: &mut Tx<'_>,
    (task, epoch): (TaskId, Epoch),
    digest: &BlobDigest,
) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let Some(task) = tx.get(&TASKS, &task) else { return Err(not_found("task", task.to_string())) };
    let Some(blob) = tx.get(&BLOBS, digest) else { return Ok(Outcome::Done) };
    let is_new = blob.created_at.0 + CLOCKS_APART_MS >= task.queued_at.0;
    // What is to be forgotten was not there to stay: an earlier task may have left the same.
    if is_new || tx.has(&BUNDLES, digest) || tx.has(&FORGETTABLE, digest) {
        let at = tx.at;
        tx.put(&BUNDLES, digest, &at);
    }
    Ok(Outcome::Done)
}

/// `ExportPut`. The directors have made it, so it may be deleted, whoever else has uploaded the same bytes before.
pub(super) fn export_put(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    digest: &BlobDigest,
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let at = tx.at;
    tx.put(&BUNDLES, digest, &at);
    tx.put(&EXPORTS, digest, &task.id);
    Ok(Outcome::Done)
}

/// `BundlesForget`.
pub(super) fn bundles_forget(
    tx: &mut Tx<'_>,
    digests: &[BlobDigest],
    before: Timestamp,
) -> Result<Outcome, Refusal> {
    let is_due = |digest: &&BlobDigest| tx.get(&BUNDLES, digest).is_some_and(|left_at| left_at <= before);
    let due: Vec<BlobDigest> = digests.iter().filter(is_due).cloned().collect();
    if due.is_empty() {
        return Ok(Outcome::Done);
    }
    for digest in &due {
        tx.delete(&BUNDLES, digest);
        tx.delete(&EXPORTS, digest);
    }
    // A task that is open may have found one here, and be about to leave it, too.
    leave(tx, due);
    Ok(Outcome::Done)
}

/// `BlobsLeave`.
pub(super) fn left_by_task(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    digests: &[BlobDigest],
) -> Result<Outcome, Refusal> {
    working(tx, by)?;
    leave(tx, digests.iter().cloned());
    Ok(Outcome::Done)
}

/// Takes down what a task that ends has read, and nobody reads any more: the archive that was uploaded for it.
pub(super) fn leave_archive(tx: &mut Tx<'_>, task: TaskId) {
    if let Some(archive) = tx.get(&TASK_KINDS, &task).and_then(archive_of) {
        leave(tx, [archive]);
    }
}

fn archive_of(kind: TaskKind) -> Option<BlobDigest> {
    match kind {
        TaskKind::UploadRelease { blob, .. } | TaskKind::UploadStemcell { blob, .. } => Some(blob),
        _ => None,
    }
}

/// Takes down that these were named by what is deleted now, or may never be named. Whether something else names them is looked at when they are
/// forgotten.
pub(super) fn leave(tx: &mut Tx<'_>, digests: impl IntoIterator<Item = BlobDigest>) {
    let left = forgettable(tx);
    for digest in digests {
        if tx.has(&BLOBS, &digest) {
            tx.put(&FORGETTABLE, &digest, &left);
        }
    }
}

fn forgettable(tx: &Tx<'_>) -> Forgettable {
    let task = tx.rows(&TASKS_OPEN).last().map_or(TaskId(0), |(task, ())| task);
    Forgettable { task, since: tx.at }
}

/// `BlobKeep`.
pub(super) fn keep(tx: &mut Tx<'_>, digest: &BlobDigest) -> Result<Outcome, Refusal> {
    if !tx.has(&BLOBS, digest) {
        return Err(not_found("blob", digest.as_str()));
    }
    if tx.has(&FORGETTABLE, digest) {
        leave(tx, [digest.clone()]);
    }
    Ok(Outcome::Done)
}

/// `BlobsForget`. What is not due waits for another time.
pub(super) fn forget_left(
    tx: &mut Tx<'_>,
    digests: &[BlobDigest],
    before: Timestamp,
) -> Result<Outcome, Refusal> {
    let due = tx.state().forgettable_blobs(before);
    let due: Vec<BlobDigest> = digests.iter().filter(|digest| due.contains(*digest)).cloned().collect();
    if due.is_empty() {
        return Ok(Outcome::Done);
    }
    let used = referred_to(tx);
    for digest in due {
        tx.delete(&FORGETTABLE, &digest);
        if !used.contains(&digest) && !tx.has(&BUNDLES, &digest) {
            tx.delete(&BLOBS, &digest);
        }
    }
    Ok(Outcome::Done)
}

/// Returns all blobs that something names: releases and compiled packages, outputs, DNS records, and archives that are yet to
/// be read. Those of different kinds may be one: what was exported may be what is uploaded.
fn referred_to(tx: &Tx<'_>) -> BTreeSet<BlobDigest> {
    let mut used: BTreeSet<BlobDigest> = tx.rows(&COMPILED).map(|(_, package)| package.blob).collect();
    for (_, release) in tx.rows(&RELEASES) {
        used.extend(release.jobs.into_iter().map(|job| job.blob));
        used.extend(release.packages.into_iter().filter_map(|package| package.source));
    }
    used.extend(tx.rows(&OUTPUT_SEGMENTS).map(|(_, segment)| segment.blob));
    used.extend(tx.rows(&DNS_BLOBS).map(|(_, document)| document.blob));
    let open = tx.rows(&TASKS_OPEN).filter_map(|(task, ())| tx.get(&TASK_KINDS, &task));
    used.extend(open.filter_map(archive_of));
    used
}
