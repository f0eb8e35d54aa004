//! A unit's way from pending to its end, and the event lines that tell of it.

use model::plan::Progress;
use model::*;

use super::line::{self, At, Heading};
use super::tx::Tx;
use crate::records::{PlannedUnit, UnitProgress, UnitState};
use crate::tables::STAGE_STARTED;

/// The first step of a unit begins. Units are numbered in the order in which they do.
pub(super) fn begin(tx: &mut Tx<'_>, task: TaskId, unit: &PlannedUnit, progress: &mut UnitProgress) {
    if progress.state != UnitState::Pending {
        return;
    }
    progress.state = UnitState::Running;
    if unit.title.is_some() {
        let key = (task, unit.phase, unit.stage);
        progress.index = tx.get(&STAGE_STARTED, &key).unwrap_or(0).saturating_add(1);
        tx.put(&STAGE_STARTED, &key, &progress.index);
    }
    write(tx, task, unit, progress, At::Started);
}

/// A step that shows its progress begins.
pub(super) fn show(
    tx: &mut Tx<'_>,
    task: TaskId,
    unit: &PlannedUnit,
    progress: &UnitProgress,
    step: &Progress,
) {
    write(tx, task, unit, progress, At::InProgress { percent: step.percent, status: &step.status });
}

/// A step ended well; with the last one ends the unit.
pub(super) fn step_done(tx: &mut Tx<'_>, task: TaskId, unit: &PlannedUnit, progress: &mut UnitProgress) {
    progress.next_step = progress.next_step.saturating_add(1);
    if progress.next_step as usize >= unit.unit.steps.len() {
        progress.state = UnitState::Done;
        write(tx, task, unit, progress, At::Finished);
    }
}

/// A step failed, and with it the unit.
pub(super) fn fail(
    tx: &mut Tx<'_>,
    task: TaskId,
    unit: &PlannedUnit,
    progress: &mut UnitProgress,
    error: &str,
) {
    progress.state = UnitState::Failed;
    write(tx, task, unit, progress, At::Failed { error });
}

/// The rest of the unit is left out. Nothing tells of a unit that never began.
pub(super) fn skip(
    tx: &mut Tx<'_>,
    task: TaskId,
    unit: &PlannedUnit,
    progress: &mut UnitProgress,
    why: &str,
) {
    let was = std::mem::replace(&mut progress.state, UnitState::Skipped);
    if was == UnitState::Running {
        write(tx, task, unit, progress, At::Failed { error: why });
    }
}

fn write(tx: &mut Tx<'_>, task: TaskId, unit: &PlannedUnit, progress: &UnitProgress, at: At<'_>) {
    let Some(stage) = &unit.title else { return };
    let heading =
        Heading { stage, tags: &unit.tags, total: unit.total, task: &unit.unit.label, index: progress.index };
    line::progress(tx, task, &heading, at);
}
