//! Errands: what they last ran well on.

use model::step::{Action, StepOutcome};
use model::*;

use super::tx::Tx;
use crate::rows::TaskRow;
use crate::tables::*;

/// `SaveErrand`.
pub(super) fn save(tx: &mut Tx<'_>, task: &TaskRow, errand: &str, digest: Option<&String>) {
    let Some(deployment) = task.deployment.clone() else { return };
    let key = (deployment, errand.to_owned());
    match digest {
        Some(digest) if ran_well(tx, task.id) => tx.put(&ERRANDS, &key, digest),
        Some(_) => {}
        None => tx.delete(&ERRANDS, &key),
    }
}

/// Returns whether every run of the task has ended with exit code 0.
fn ran_well(tx: &Tx<'_>, task: TaskId) -> bool {
    let units = tx.rows_of(&UNITS, &task).map(|(_, planned)| planned.unit);
    let mut runs = units.flat_map(|unit| {
        let steps = (0u32..).zip(unit.steps);
        let runs = steps.filter(|(_, step)| matches!(step.action, Action::RunErrand { .. }));
        runs.map(|(index, _)| (task, unit.no, index)).collect::<Vec<_>>()
    });
    runs.all(|key| {
        let outcome = tx.get(&STEPS, &key).and_then(|step| step.outcome);
        matches!(outcome, Some(StepOutcome::ErrandRan { exit_code: 0, .. }))
    })
}
