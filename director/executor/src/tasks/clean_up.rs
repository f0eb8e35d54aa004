//! The part of a clean-up that needs no plan: releases and stemcells. A new leader begins anew, and finds some gone.

use model::ErrorCode;
use model::task::{Leftovers, TaskError};
use state::State;
use state::command::TaskEnd;
use state::records::LineState;

use super::release::{self, NotDeleted};
use super::stemcell;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

// Stages, as BOSH calls them.
const RELEASES: &str = "Deleting releases";
const STEMCELLS: &str = "Deleting stemcells";

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

/// Deletes releases and stemcells that nothing used when the clean-up was asked for. Returns how the task ends, unless there
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
    Ok(None)
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

/// Returns what was deleted, as BOSH words it. Of what it lists, compiled packages go with their releases and stemcells here,
/// and the rest there is not yet.
pub fn cleaned_up(context: &TaskContext, of: &Leftovers) -> String {
    let view = context.view();
    let state = State::new(&*view);
    let deleted =
        |stage: &str, label: String| state.has_line(context.id(), stage, &label, LineState::Finished);
    let releases = of.releases.iter().filter(|r| deleted(RELEASES, format!("{}/{}", r.name, r.version)));
    let stemcells =
        of.stemcells.iter().filter(|(name, version)| deleted(STEMCELLS, format!("{name}/{version}")));
    format!(
        "Deleted {} release(s), {} stemcell(s), 0 extra compiled package(s), {} orphaned disk(s), {} orphaned vm(s), \
         0 exported release(s), 0 dns blob(s)",
        releases.count(),
        stemcells.count(),
        of.disks.len(),
        of.vms.len(),
    )
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
