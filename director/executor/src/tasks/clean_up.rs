//! The part of a clean-up that needs no plan: releases and stemcells. A new leader begins anew, and finds some gone.

use model::instance::ReleaseRef;
use model::task::Leftovers;
use state::command::TaskEnd;

use super::release::{self, NotDeleted};
use super::stemcell;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

/// Deletes releases and stemcells that nothing used when the clean-up was asked for. Those that somebody uses by now are
/// no leftovers any more and stay. Returns how the task ends, unless there is more to do.
pub async fn clean_up(context: &TaskContext, leftovers: &Leftovers) -> Result<Option<TaskEnd>, Interrupted> {
    if let Some(end) = releases(context, &leftovers.releases).await? {
        return Ok(Some(end));
    }
    let lines = Lines::of(context, count(leftovers.stemcells.len()));
    for (number, (name, version)) in leftovers.stemcells.iter().enumerate() {
        let (label, index) = (format!("{name}/{version}"), count(number + 1));
        lines.started("Deleting stemcells", &label, index).await?;
        match stemcell::delete_stemcell(context, name, version, false).await? {
            TaskEnd::Cancelled => return Ok(Some(TaskEnd::Cancelled)),
            TaskEnd::Error(error) if !stemcell::is_no_leftover(&error) => {
                lines.ended_badly("Deleting stemcells", &label, index, &error).await?;
                return Ok(Some(TaskEnd::Error(error)));
            }
            TaskEnd::Error(_) | TaskEnd::Done(_) => {
                lines.finished("Deleting stemcells", &label, index).await?;
            }
        }
    }
    Ok(None)
}

async fn releases(context: &TaskContext, releases: &[ReleaseRef]) -> Result<Option<TaskEnd>, Interrupted> {
    let lines = Lines::of(context, count(releases.len()));
    for (number, ReleaseRef { name, version }) in releases.iter().enumerate() {
        if context.is_cancelling() {
            return Ok(Some(TaskEnd::Cancelled));
        }
        let (label, index) = (format!("{name}/{version}"), count(number + 1));
        lines.started("Deleting releases", &label, index).await?;
        match release::delete(context, name, Some(version)).await? {
            Ok(()) | Err(NotDeleted::Gone(_) | NotDeleted::InUse(_)) => {
                lines.finished("Deleting releases", &label, index).await?;
            }
            Err(NotDeleted::Other(error)) => {
                lines.ended_badly("Deleting releases", &label, index, &error).await?;
                return Ok(Some(TaskEnd::Error(error)));
            }
        }
    }
    Ok(None)
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
