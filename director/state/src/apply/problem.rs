//! Problems: found by scans, gone once something was done about them. A row is there as long as its problem is open.

use model::problem::{Finding, Problem};
use model::*;

use super::task::working;
use super::tx::{Tx, invalid};
use crate::command::{Outcome, Refusal};
use crate::rows::TaskRow;
use crate::tables::*;

/// `ProblemsFound`. The first part drops what was found before among the same instances; what this task has found already
/// keeps its number, since a scan may be begun anew.
pub(super) fn found(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    part: u32,
    among: Option<&[InstanceId]>,
    findings: &[Finding],
) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    let Some(deployment) = task.deployment else {
        return Err(invalid("the findings of a scan", "its task has no deployment"));
    };
    let open: Vec<Problem> = tx.rows_of(&PROBLEMS, &deployment).map(|(_, problem)| problem).collect();
    let is_known = |problem: &Problem| problem.found_by == task.id && findings.contains(&problem.finding);
    if part == 0 {
        let is_among = |problem: &Problem| among.is_none_or(|ids| ids.contains(&problem.finding.instance));
        for gone in open.iter().filter(|problem| is_among(problem) && !is_known(problem)) {
            tx.delete(&PROBLEMS, &(deployment.clone(), gone.id));
        }
    }
    for finding in findings {
        if open.iter().any(|problem| is_known(problem) && problem.finding == *finding) {
            continue;
        }
        let id = ProblemId(tx.next_number("problems"));
        let problem = Problem { id, found_by: task.id, finding: finding.clone() };
        tx.put(&PROBLEMS, &(deployment.clone(), id), &problem);
    }
    Ok(Outcome::Done)
}

/// `CloseProblem`; one that is gone already is fine.
pub(super) fn close(tx: &mut Tx<'_>, task: &TaskRow, id: ProblemId) {
    if let Some(deployment) = &task.deployment {
        tx.delete(&PROBLEMS, &(deployment.clone(), id));
    }
}
