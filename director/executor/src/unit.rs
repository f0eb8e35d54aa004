//! Carrying out one unit: its steps in order, each with its intent before and its outcome after.

use std::time::Duration;

use known_bugs::Bug;
use model::plan::{OnFailure, Step, Unit};
use model::step::{Action, Left, StepOutcome};
use model::task::TaskError;
use model::{ErrorCode, StepNo};
use retry::Policy;
use state::State;
use state::command::{StepEvent, StepRecord};
use tracing::{info, warn};

use crate::context::{How, StepContext, TaskContext};
use crate::error::{Interrupted, StepError, recordable};
use crate::recover::{Decision, decide};
use crate::steps;

/// Attempts at a step whose failures may mend (BOSH's `max_vm_create_tries`).
const ATTEMPTS_MAX: u32 = 5;

/// Pause between attempts: short, since BOSH's director makes none; jittered, so that failing neighbours spread out.
const ATTEMPT_PAUSE: Policy =
    Policy { initial: Duration::from_millis(200), max: Duration::from_secs(5), total: None };

/// How a unit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitEnd {
    /// Every step is done.
    Done,
    /// A step failed.
    Failed(TaskError),
    /// It was left at a checkpoint because the task is being cancelled.
    Cancelled,
}

/// Carries out `unit`, from wherever its journal says that it is.
#[tracing::instrument(name = "unit", skip_all, fields(unit = %unit.no, label = %unit.label))]
pub async fn run(task: &TaskContext, unit: &Unit) -> Result<UnitEnd, Interrupted> {
    let mut pending = Vec::new();
    for (index, step) in unit.steps.iter().enumerate() {
        let no = StepNo { unit: unit.no, index: index as u32 };
        match run_step(task, unit, step, no, &mut pending).await? {
            StepEnd::Done => {}
            StepEnd::Ended(end) => {
                submit(task, &mut pending).await?;
                return Ok(end);
            }
        }
    }
    submit(task, &mut pending).await?;
    Ok(UnitEnd::Done)
}

enum StepEnd {
    Done,
    Ended(UnitEnd),
}

/// Does one step. Its outcome stays in `pending`, to travel with the next step's intent.
#[tracing::instrument(name = "step", skip_all, fields(step = step.action.name()))]
async fn run_step(
    task: &TaskContext,
    unit: &Unit,
    step: &Step,
    no: StepNo,
    pending: &mut Vec<StepRecord>,
) -> Result<StepEnd, Interrupted> {
    let journal = {
        let view = task.view();
        State::new(&*view).step_state(task.id(), no)
    };
    let (attempt, how) = match decide(&step.action, &journal, task.fence.epoch()) {
        Decision::Ended => return Ok(StepEnd::Done),
        Decision::Failed => return Ok(StepEnd::Ended(recorded_failure(journal))),
        Decision::Record => {
            if steps::is_prepared(&step.action) {
                // What a VM has said must be known before it goes: nobody can ask it again.
                submit(task, pending).await?;
                let (cleanup, on_failure) = (unit.cleanup, step.on_failure);
                let attempt = journal.attempts + 1;
                let cx = StepContext {
                    task: task.clone(),
                    step: no,
                    attempt,
                    how: How::Fresh,
                    cleanup,
                    on_failure,
                };
                if let Err(error) = steps::prepare(&cx, &step.action).await? {
                    let error = recordable(error);
                    let failed = StepEvent::Finished(StepOutcome::failed(error.clone()));
                    pending.push(record(no, journal.attempts + 1, failed));
                    return Ok(StepEnd::Ended(UnitEnd::Failed(error)));
                }
            }
            pending.push(record(no, journal.attempts + 1, StepEvent::Finished(StepOutcome::Done)));
            return Ok(StepEnd::Done);
        }
        Decision::Run { attempt } => (attempt, How::Fresh),
        Decision::Rerun { attempt } | Decision::Probe { attempt } => (attempt, How::Again),
        Decision::Stop => {
            let error = TaskError::plain(format!(
                "step {no} ({}) was under way when the director failed, and repeating it is not safe: look at it, \
                 then run the command again",
                step.action.name()
            ));
            let failed = StepEvent::Finished(StepOutcome::failed(error.clone()));
            pending.push(record(no, journal.attempts, failed));
            return Ok(StepEnd::Ended(UnitEnd::Failed(error)));
        }
    };
    let (cleanup, on_failure) = (unit.cleanup, step.on_failure);
    let context = StepContext { task: task.clone(), step: no, attempt, how, cleanup, on_failure };
    attempts(context, unit, step, pending).await
}

/// Attempts the step until it has ended.
async fn attempts(
    mut cx: StepContext,
    unit: &Unit,
    step: &Step,
    pending: &mut Vec<StepRecord>,
) -> Result<StepEnd, Interrupted> {
    let (task, no, name) = (cx.task.clone(), cx.step, step.action.name());
    let mut pauses = ATTEMPT_PAUSE.waits();
    loop {
        let attempt = cx.attempt;
        pending.push(record(no, attempt, StepEvent::Started));
        if !known_bugs::is(Bug::IntentAfterDeed) {
            submit(&task, pending).await?;
        }
        task.debug(&format!("step {no} {name} attempt {attempt}: {}", unit.label));
        let begun = std::time::Instant::now();
        let verdict = judge(&cx, &step.action, steps::perform(&cx, &step.action).await)?;
        let took_ms = begun.elapsed().as_millis();
        let (outcome, end) = match verdict {
            Verdict::Again { error, how } => {
                warn!(task = %task.id(), step = name, attempt, error = %error, "step failed, trying again");
                pending.push(record(no, attempt, StepEvent::Retrying(recordable(error).message)));
                (cx.attempt, cx.how) = (attempt + 1, how);
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                continue;
            }
            Verdict::Done(outcome) => {
                task.debug(&format!("step {no} {name} done in {took_ms} ms"));
                (outcome, StepEnd::Done)
            }
            Verdict::PassedOver(outcome, error) => {
                info!(task = %task.id(), step = name, attempt, error = %error, "step failed, its unit goes on");
                task.debug(&format!("step {no} {name} failed and is passed over: {error}"));
                (outcome, StepEnd::Done)
            }
            Verdict::Failed(outcome, end) => {
                if let UnitEnd::Failed(error) = &end {
                    info!(task = %task.id(), step = name, attempt, error = %error, "step failed");
                    task.debug(&format!("step {no} {name} failed: {error}"));
                }
                (outcome, StepEnd::Ended(end))
            }
        };
        pending.push(record(no, attempt, StepEvent::Finished(outcome)));
        return Ok(end);
    }
}

/// What becomes of a step after an attempt.
enum Verdict {
    /// It is done.
    Done(StepOutcome),
    /// Another attempt follows.
    Again { error: TaskError, how: How },
    /// It failed, and its unit goes on.
    PassedOver(StepOutcome, TaskError),
    /// It failed, and with it its unit.
    Failed(StepOutcome, UnitEnd),
}

fn judge(
    cx: &StepContext,
    action: &Action,
    result: Result<StepOutcome, StepError>,
) -> Result<Verdict, Interrupted> {
    let may_repeat = cx.attempt < ATTEMPTS_MAX;
    let (error, result_line) = match result {
        Ok(outcome) => return Ok(Verdict::Done(outcome)),
        Err(StepError::Telling { result_line, why }) => (*why, Some(result_line)),
        Err(error) => (error, None),
    };
    let (error, left) = match error {
        StepError::Lost(lost) => return Err(lost.into()),
        StepError::Log(error) => return Err(error.into()),
        StepError::Cancelled => {
            let text = format!("Task {} cancelled", cx.task.id());
            let error = TaskError::new(ErrorCode::TaskCancelled, text);
            let outcome = StepOutcome::Failed { error, left: Left::Nothing, result_line };
            return Ok(Verdict::Failed(outcome, UnitEnd::Cancelled));
        }
        StepError::Again(error) if may_repeat => return Ok(Verdict::Again { error, how: cx.how }),
        StepError::Unclear(error) if may_repeat => return Ok(Verdict::Again { error, how: How::Again }),
        StepError::Failed(error) | StepError::Again(error) => (recordable(error), Left::Nothing),
        StepError::Unclear(error) => (recordable(error), Left::Perhaps),
        telling @ StepError::Telling { .. } => (TaskError::plain(telling.to_string()), Left::Nothing),
    };
    Ok(match cx.on_failure {
        OnFailure::Stop if steps::is_of_a_worker(cx, action) => {
            Verdict::PassedOver(StepOutcome::PassedOver { error: error.clone() }, error)
        }
        OnFailure::GoOn => Verdict::PassedOver(steps::passed_over(cx, action, &error), error),
        OnFailure::Stop => {
            let outcome = StepOutcome::Failed { error: error.clone(), left, result_line };
            Verdict::Failed(outcome, UnitEnd::Failed(error))
        }
    })
}

fn recorded_failure(journal: state::records::StepState) -> UnitEnd {
    match journal.outcome {
        Some(StepOutcome::Failed { error, .. }) if error.code == ErrorCode::TaskCancelled.number() => {
            UnitEnd::Cancelled
        }
        Some(StepOutcome::Failed { error, .. }) => UnitEnd::Failed(error),
        _ => UnitEnd::Failed(TaskError::new(ErrorCode::Unknown, "the step failed earlier")),
    }
}

fn record(step: StepNo, attempt: u32, event: StepEvent) -> StepRecord {
    StepRecord { step, attempt, event }
}

async fn submit(task: &TaskContext, pending: &mut Vec<StepRecord>) -> Result<(), Interrupted> {
    if pending.is_empty() {
        return Ok(());
    }
    task.journal.record(std::mem::take(pending)).await
}
