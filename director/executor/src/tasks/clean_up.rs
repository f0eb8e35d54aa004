//! The part of a clean-up that needs no plan: releases, stemcells, archives that exports left, and old DNS records. A new leader begins anew, and finds some gone.

use model::task::{Leftovers, TaskError};
use model::{BlobDigest, ErrorCode};
use state::State;
use state::command::{Command, TaskEnd};
use state::log::Proposal;
use state::records::LineState;

use super::release::{self, NotDeleted};
use super::stemcell;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

// Stages, as BOSH calls them.
const RELEASES: &str = "Deleting releases";
const STEMCELLS: &str = "Deleting stemcells";
const EXPORTS: &str = "Deleting exported releases";
const DNS_BLOBS: &str = "Deleting dns blobs";

/// How the deletion of one ended.
enum End {
    Deleted,
    /// It is not there.
    Gone(TaskError),
    /// Somebody uses it by now: it is no leftover any more.
    InUse(TaskError),
    Failed(TaskError),
    Cancelled,
}

/// Deletes releases, stemcells and archives that nothing used when the clean-up was asked for. Returns how the task ends, unless there
/// is more to do.
pub async fn clean_up(context: &TaskContext, leftovers: &Leftovers) -> Result<Option<TaskEnd>, Interrupted> {
    let lines = Lines::of(context, count(leftovers.releases.len()));
    for (number, release) in leftovers.releases.iter().enumerate() {
        if context.is_cancelling() {
            return Ok(Some(TaskEnd::Cancelled));
        }
        let label = format!("{}/{}", release.name, release.version);
        let deletion = async {
            Ok(match release::delete(context, &release.name, Some(&release.version)).await? {
                Ok(()) => End::Deleted,
                Err(NotDeleted::Gone(error)) => End::Gone(error),
                Err(NotDeleted::InUse(error)) => End::InUse(error),
                Err(NotDeleted::Other(error)) => End::Failed(error),
            })
        };
        if let Some(end) = told(&lines, RELEASES, &label, count(number + 1), deletion).await? {
            return Ok(Some(end));
        }
    }
    let lines = Lines::of(context, count(leftovers.stemcells.len()));
    for (number, (name, version)) in leftovers.stemcells.iter().enumerate() {
        let deletion = async {
            Ok(match stemcell::delete_stemcell(context, name, version, false).await? {
                TaskEnd::Done(_) => End::Deleted,
                TaskEnd::Error(error) => match ErrorCode::from_number(error.code) {
                    Some(ErrorCode::StemcellNotFound) => End::Gone(error),
                    Some(ErrorCode::StemcellInUse) => End::InUse(error),
                    _ => End::Failed(error),
                },
                TaskEnd::Cancelled => End::Cancelled,
            })
        };
        let label = format!("{name}/{version}");
        if let Some(end) = told(&lines, STEMCELLS, &label, count(number + 1), deletion).await? {
            return Ok(Some(end));
        }
    }
    let lines = Lines::of(context, count(leftovers.exports.len()));
    for (number, digest) in leftovers.exports.iter().enumerate() {
        let deletion = forget_export(context, digest);
        if let Some(end) = told(&lines, EXPORTS, digest.as_str(), count(number + 1), deletion).await? {
            return Ok(Some(end));
        }
    }
    let lines = Lines::of(context, count(leftovers.dns_blobs.len()));
    for (number, digest) in leftovers.dns_blobs.iter().enumerate() {
        let deletion = forget_dns_blob(context, digest);
        if let Some(end) = told(&lines, DNS_BLOBS, digest.as_str(), count(number + 1), deletion).await? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Forgets an archive, unless it has been exported again since the clean-up was asked for.
async fn forget_export(context: &TaskContext, digest: &BlobDigest) -> Result<End, Interrupted> {
    let before = context.task.queued_at;
    let forget = Command::BundlesForget { digests: vec![digest.clone()], before };
    context.propose(Proposal::own(forget)).await??;
    let view = context.view();
    let is_left = State::new(&*view).exports().iter().any(|(left, _)| left == digest);
    let text = || TaskError::plain(format!("archive {digest} has been exported again meanwhile"));
    Ok(if is_left { End::InUse(text()) } else { End::Deleted })
}

/// Forgets a document of DNS records. Whoever asked has seen that it is old.
async fn forget_dns_blob(context: &TaskContext, digest: &BlobDigest) -> Result<End, Interrupted> {
    let before = context.task.queued_at;
    let forget = Command::DnsForget { blobs: vec![digest.clone()], before };
    context.propose(Proposal::own(forget)).await??;
    let view = context.view();
    let is_left = State::new(&*view).dns_blobs().iter().any(|row| row.blob == *digest);
    let text = || TaskError::plain(format!("DNS records {digest} are among the newest"));
    Ok(if is_left { End::InUse(text()) } else { End::Deleted })
}

/// Deletes one and tells of it; what an earlier leader has told is done. Returns how the task ends, if it does.
async fn told(
    lines: &Lines<'_>,
    stage: &str,
    label: &str,
    index: u32,
    deletion: impl Future<Output = Result<End, Interrupted>>,
) -> Result<Option<TaskEnd>, Interrupted> {
    let seen = lines.seen(stage, label);
    if matches!(seen, Some(LineState::Finished | LineState::Failed)) {
        return Ok(None);
    }
    lines.started(stage, label, index).await?;
    match deletion.await? {
        End::Deleted => lines.finished(stage, label, index).await?,
        // An earlier leader has begun with it: it is gone because of that.
        End::Gone(_) if seen.is_some() => lines.finished(stage, label, index).await?,
        End::Gone(error) | End::InUse(error) => lines.ended_badly(stage, label, index, &error).await?,
        End::Failed(error) => {
            lines.ended_badly(stage, label, index, &error).await?;
            return Ok(Some(TaskEnd::Error(error)));
        }
        End::Cancelled => return Ok(Some(TaskEnd::Cancelled)),
    }
    Ok(None)
}

/// Returns what was deleted, as BOSH words it. Of what it lists, compiled packages go with their releases here.
pub fn cleaned_up(context: &TaskContext, of: &Leftovers) -> String {
    let view = context.view();
    let state = State::new(&*view);
    let deleted =
        |stage: &str, label: String| state.has_line(context.id(), stage, &label, LineState::Finished);
    let releases = of.releases.iter().filter(|r| deleted(RELEASES, format!("{}/{}", r.name, r.version)));
    let stemcells =
        of.stemcells.iter().filter(|(name, version)| deleted(STEMCELLS, format!("{name}/{version}")));
    let exports = of.exports.iter().filter(|digest| deleted(EXPORTS, digest.to_string()));
    let dns_blobs = of.dns_blobs.iter().filter(|digest| deleted(DNS_BLOBS, digest.to_string()));
    format!(
        "Deleted {} release(s), {} stemcell(s), 0 extra compiled package(s), {} orphaned disk(s), {} orphaned vm(s), \
         {} exported release(s), {} dns blob(s)",
        releases.count(),
        stemcells.count(),
        of.disks.len(),
        of.vms.len(),
        exports.count(),
        dns_blobs.count(),
    )
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
