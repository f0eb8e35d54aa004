//! The step journal: intent before the deed, outcome after it, in order, under one epoch at a time.
//!
//! Records may come twice, since a proposer that lost the answer sends them again: a repeat is accepted and changes
//! nothing. The record of a step and the change of the state that it stands for are one entry, so neither is ever
//! there without the other.

use model::plan::Step;
use model::step::StepOutcome;
use model::task::TaskState;
use model::*;

use super::deed::{self, Deed};
use super::task::{self, working};
use super::tx::{Tx, not_found};
use super::unit;
use crate::command::{Outcome, Refusal, StepEvent, StepRecord};
use crate::records::{PlannedUnit, StepState, UnitProgress, UnitState};
use crate::rows::TaskRow;
use crate::tables::*;

/// `StepRecords`. All or none: the first record that is refused refuses the entry.
pub(super) fn records(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    records: &[StepRecord],
) -> Result<Outcome, Refusal> {
    let mut task = working(tx, by)?;
    if !task.planned {
        return Err(Refusal::TaskState { task: task.id, state: "not planned yet".into() });
    }
    let mut unit: Option<PlannedUnit> = None;
    for record in records {
        let no = record.step.unit;
        if unit.as_ref().is_none_or(|unit| unit.unit.no != no) {
            let found = tx.get(&UNITS, &(task.id, no));
            unit = Some(found.ok_or_else(|| not_found("unit", format!("{no} of task {}", task.id)))?);
        }
        if let Some(unit) = &unit {
            record_one(tx, (&task, by.1), unit, record)?;
        }
    }
    task.updated_at = tx.at;
    tx.put(&TASKS, &task.id, &task);
    Ok(Outcome::Done)
}

/// A record and everything that it is judged by.
struct Recording<'a> {
    task: &'a TaskRow,
    epoch: Epoch,
    unit: &'a PlannedUnit,
    step: &'a Step,
    no: StepNo,
    attempt: u32,
    journal: StepState,
    progress: UnitProgress,
}

fn record_one(
    tx: &mut Tx<'_>,
    by: (&TaskRow, Epoch),
    unit: &PlannedUnit,
    record: &StepRecord,
) -> Result<(), Refusal> {
    let (task, epoch) = by;
    let no = record.step;
    let step = unit.unit.steps.get(no.index as usize);
    let step = step.ok_or_else(|| not_found("step", format!("{no} of task {}", task.id)))?;
    let mut recording = Recording {
        task,
        epoch,
        unit,
        step,
        no,
        attempt: record.attempt,
        journal: tx.get(&STEPS, &(task.id, no.unit, no.index)).unwrap_or_default(),
        progress: tx.get(&UNIT_PROGRESS, &(task.id, no.unit)).unwrap_or_default(),
    };
    let what = match &record.event {
        StepEvent::Started => recording.started(tx)?,
        StepEvent::Finished(outcome) => recording.finished(tx, outcome)?,
        StepEvent::Retrying(why) => recording.retrying(why)?,
        StepEvent::Skipped => recording.skipped(tx)?,
    };
    if what == Judged::New {
        tx.put(&STEPS, &(task.id, no.unit, no.index), &recording.journal);
        tx.put(&UNIT_PROGRESS, &(task.id, no.unit), &recording.progress);
    }
    Ok(())
}

/// Whether a record says something new.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    New,
    Repeat,
}

impl Recording<'_> {
    fn started(&mut self, tx: &mut Tx<'_>) -> Result<Judged, Refusal> {
        let journal = &self.journal;
        if journal.attempts > 0 && journal.attempts == self.attempt && journal.epoch == self.epoch {
            return Ok(Judged::Repeat);
        }
        self.must_be_next()?;
        let next_attempt = self.attempt == journal.attempts.saturating_add(1);
        let adopted = self.attempt == journal.attempts && journal.is_open() && self.epoch > journal.epoch;
        if !next_attempt && !adopted {
            return Err(self.wrong(format!("at attempt {}", journal.attempts)));
        }
        self.announce(tx);
        self.journal.attempts = self.attempt;
        self.journal.epoch = self.epoch;
        self.journal.started_at = tx.at;
        self.journal.retrying = None;
        self.journal.audit = deed::begin(tx, &self.deed())?;
        Ok(Judged::New)
    }

    fn finished(&mut self, tx: &mut Tx<'_>, outcome: &StepOutcome) -> Result<Judged, Refusal> {
        if self.journal.outcome.is_some() && self.journal.attempts == self.attempt {
            return Ok(Judged::Repeat);
        }
        self.must_be_next()?;
        let open = self.journal.is_open() && self.journal.attempts == self.attempt;
        let recording_is_doing = self.step.action.is_record_only() && self.attempt > self.journal.attempts;
        if !open && !recording_is_doing {
            return Err(self.wrong(format!("not begun as attempt {}", self.attempt)));
        }
        if !open {
            self.announce(tx);
            self.journal.attempts = self.attempt;
            self.journal.epoch = self.epoch;
            self.journal.started_at = tx.at;
        }
        match outcome {
            StepOutcome::Failed { error, left, result_line } => {
                if let Some(line) = result_line {
                    task::result_line(tx, self.task.id, line);
                }
                deed::failed(tx, &self.deed(), &error.message, *left);
                unit::fail(tx, self.task.id, self.unit, &mut self.progress, &error.message);
            }
            _ => {
                deed::done(tx, &self.deed(), outcome)?;
                unit::step_done(tx, self.task.id, self.unit, &mut self.progress);
            }
        }
        self.journal.outcome = Some(outcome.clone());
        Ok(Judged::New)
    }

    fn retrying(&mut self, why: &str) -> Result<Judged, Refusal> {
        if self.journal.retrying.is_some() && self.journal.attempts == self.attempt {
            return Ok(Judged::Repeat);
        }
        self.must_be_next()?;
        if !self.journal.is_open() || self.journal.attempts != self.attempt {
            return Err(self.wrong(format!("not begun as attempt {}", self.attempt)));
        }
        self.journal.retrying = Some(why.to_owned());
        Ok(Judged::New)
    }

    fn skipped(&mut self, tx: &mut Tx<'_>) -> Result<Judged, Refusal> {
        if self.progress.state == UnitState::Skipped {
            return Ok(Judged::Repeat);
        }
        self.must_be_next()?;
        if self.journal.is_open() {
            return Err(self.wrong("begun and not ended"));
        }
        let why = match self.task.state {
            TaskState::Cancelling => format!("Task {} cancelled", self.task.id),
            _ => "Stopped, since something else failed".to_owned(),
        };
        if let Some(instance) = self.step.action.instance() {
            super::instance::failed(tx, &self.deed(), instance, &why);
        }
        unit::skip(tx, self.task.id, self.unit, &mut self.progress, &why);
        Ok(Judged::New)
    }

    /// Writes the lines that a step's first attempt writes.
    fn announce(&mut self, tx: &mut Tx<'_>) {
        unit::begin(tx, self.task.id, self.unit, &mut self.progress);
        if let Some(shown) = self.step.progress.as_ref().filter(|_| self.journal.attempts == 0) {
            unit::show(tx, self.task.id, self.unit, &self.progress, shown);
        }
    }

    fn must_be_next(&self) -> Result<(), Refusal> {
        match self.progress.state {
            UnitState::Done => Err(self.wrong("in a unit that is done")),
            UnitState::Failed => Err(self.wrong("in a unit that failed")),
            UnitState::Skipped => Err(self.wrong("in a unit that was skipped")),
            UnitState::Pending | UnitState::Running if self.progress.next_step != self.no.index => {
                Err(self.wrong(format!("not the next step, which is {}", self.progress.next_step)))
            }
            UnitState::Pending | UnitState::Running => Ok(()),
        }
    }

    fn deed(&self) -> Deed<'_> {
        Deed { task: self.task, no: self.no, action: &self.step.action, audit: self.journal.audit }
    }

    fn wrong(&self, state: impl Into<String>) -> Refusal {
        Refusal::StepState { step: self.no, state: state.into() }
    }
}
