//! Output of tasks: event lines and results are rows here, bulky output is sealed pieces of which only the place is.

use model::task::OutputKind;
use model::*;

use super::task::wrong_state;
use super::tx::{Tx, invalid, not_found};
use crate::command::{Outcome, Refusal};
use crate::key::Key;
use crate::records::OutputSegment;
use crate::tables::*;

/// Appends text to an output that lives in the state.
pub(super) fn append(tx: &mut Tx<'_>, task: TaskId, kind: OutputKind, text: String) {
    if text.is_empty() {
        return;
    }
    let offset = tx.get(&OUTPUT_LENGTHS, &(task, kind)).unwrap_or_default();
    let length = offset.saturating_add(text.len() as u64);
    tx.put(&OUTPUT, &(task, kind, offset), &text);
    tx.put(&OUTPUT_LENGTHS, &(task, kind), &length);
}

/// `OutputSeal`. Not once the task has ended: whoever followed it was told that this was all. What an earlier leader has
/// still to say by then is lost.
pub(super) fn seal(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    kind: OutputKind,
    segment: &OutputSegment,
) -> Result<Outcome, Refusal> {
    let (task, epoch) = by;
    tx.fence(epoch)?;
    let Some(row) = tx.get(&TASKS, &task) else {
        return Err(not_found("task", task.to_string()));
    };
    if matches!(kind, OutputKind::Event | OutputKind::Result) {
        return Err(invalid(
            format!("a sealed piece of {} output", kind.show()),
            "its lines are in the state",
        ));
    }
    let key = (task, kind, segment.offset);
    if tx.get(&OUTPUT_SEGMENTS, &key).is_some_and(|sealed| sealed == *segment) {
        return Ok(Outcome::Done);
    }
    if row.state.is_final() {
        return Err(wrong_state(&row));
    }
    let expected = tx.get(&OUTPUT_LENGTHS, &(task, kind)).unwrap_or_default();
    if segment.offset != expected || segment.length == 0 {
        return Err(Refusal::OutputGap { task, kind: kind.show(), expected, given: segment.offset });
    }
    tx.put(&OUTPUT_SEGMENTS, &key, segment);
    tx.put(&OUTPUT_LENGTHS, &(task, kind), &expected.saturating_add(u64::from(segment.length)));
    Ok(Outcome::Done)
}

/// Returns how many bytes of a task's output are rows here.
pub(super) fn stored_bytes(tx: &Tx<'_>, task: TaskId) -> u64 {
    let kinds = [OutputKind::Event, OutputKind::Result];
    kinds.iter().map(|kind| tx.get(&OUTPUT_LENGTHS, &(task, *kind)).unwrap_or_default()).sum()
}

/// Forgets all output of a task.
pub(super) fn forget(tx: &mut Tx<'_>, task: TaskId) {
    tx.delete_of(&OUTPUT, &task);
    tx.delete_of(&OUTPUT_SEGMENTS, &task);
    tx.delete_of(&OUTPUT_LENGTHS, &task);
}
