//! Carrying out a plan: phases, stages, waves and units in the order that the plan gives, as many at once as it allows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt as _, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use model::plan::{Needs, OnFailure, Phase, Stage, Unit, Wave};
use model::step::Action;
use model::task::TaskError;
use model::{ProblemId, UnitNo};
use state::State;
use state::records::UnitState;
use tokio::sync::watch;

use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::unit::{self, UnitEnd};

/// How the work of a plan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanEnd {
    /// All of it is done.
    Done,
    /// Something failed: what stopped the plan, or all that went wrong in one that went on.
    Failed(TaskError),
    /// It was cancelled.
    Cancelled,
}

/// How a unit stands, as far as others that wait for it care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not begun.
    Pending,
    /// Under way, here or broken off under an earlier leader.
    Running,
    /// Ended well.
    Done,
    /// Begun and ended otherwise.
    Failed,
    /// Never begun, and never will be.
    Dropped,
}

impl From<UnitState> for Standing {
    fn from(state: UnitState) -> Self {
        match state {
            UnitState::Pending => Self::Pending,
            UnitState::Running => Self::Running,
            UnitState::Done => Self::Done,
            UnitState::Failed | UnitState::Skipped => Self::Failed,
        }
    }
}

/// What a failure is told under.
enum Named {
    /// The unit's label, if others have failed, too.
    Label(String),
    /// The problem that the unit was to resolve, in any case.
    Problem(ProblemId),
}

impl Named {
    fn of(unit: &Unit) -> Self {
        let problem = unit.steps.iter().find_map(|step| match step.action {
            Action::CloseProblem { problem } => Some(problem),
            _ => None,
        });
        problem.map_or_else(|| Self::Label(unit.label.clone()), Self::Problem)
    }

    fn tell(&self, error: &TaskError) -> String {
        match self {
            Self::Label(label) => format!("{label}: {error}"),
            Self::Problem(id) => format!("Error resolving problem '{id}': {error}"),
        }
    }
}

/// What went wrong.
#[derive(Default)]
struct Failures {
    /// What stopped the plan first.
    stopping: Option<TaskError>,
    /// Units that failed and stopped nobody, by number: what an operator has to look at is all of them.
    others: BTreeMap<UnitNo, (Named, TaskError)>,
}

impl Failures {
    /// Returns the error that the task ends with.
    fn told(mut self) -> Option<TaskError> {
        let alone = self.others.len() < 2;
        if self.stopping.is_some()
            || self.others.values().all(|(named, _)| alone && matches!(named, Named::Label(_)))
        {
            return self.stopping.or_else(|| self.others.pop_first().map(|(_, (_, error))| error));
        }
        let lines: Vec<String> = self.others.values().map(|(named, error)| named.tell(error)).collect();
        let code = self.others.first_key_value().map_or(0, |(_, (_, error))| error.code);
        Some(TaskError { code, message: lines.join("\n") })
    }
}

/// What the units of a plan share.
struct Progress {
    /// Set by the first failure that stops the plan: nothing new starts after it, cleanup excepted.
    halt: AtomicBool,
    failures: Mutex<Failures>,
    /// How each unit stands: from the journal at first, then as they end.
    units: Mutex<BTreeMap<UnitNo, Standing>>,
    /// Moves when a unit's standing does: stages that run side by side wait for each other's units.
    moved: watch::Sender<u64>,
}

impl Progress {
    fn new(phases: &[Phase], units: BTreeMap<UnitNo, Standing>) -> Self {
        // What failed under an earlier leader has halted the plan then; nothing new starts before it is read again.
        let stopped = |unit: &Unit| {
            unit.on_failure == OnFailure::Stop && units.get(&unit.no) == Some(&Standing::Failed)
        };
        let halt = AtomicBool::new(phases.iter().flat_map(units_of).any(stopped));
        Self { halt, failures: Mutex::default(), units: Mutex::new(units), moved: watch::channel(0).0 }
    }

    fn of(&self, unit: UnitNo) -> Standing {
        self.lock().get(&unit).copied().unwrap_or(Standing::Dropped)
    }

    fn set(&self, unit: UnitNo, standing: Standing) {
        self.lock().insert(unit, standing);
        self.moved.send_modify(|n| *n += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UnitNo, Standing>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, unit: &Unit, named: Named, error: TaskError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match unit.on_failure {
            OnFailure::Stop => {
                self.halt.store(true, Ordering::Relaxed);
                failures.stopping.get_or_insert(error);
            }
            OnFailure::GoOn => {
                failures.others.insert(unit.no, (named, error));
            }
        }
    }

    /// Returns whether something was left undone because the task was cancelled.
    fn is_incomplete(&self) -> bool {
        self.lock().values().any(|standing| matches!(standing, Standing::Failed | Standing::Dropped))
    }

    /// Gives up what an ended phase has not begun: nobody may wait for it any more.
    fn drop_pending(&self, phase: &Phase) {
        let mut units = self.lock();
        for unit in units_of(phase) {
            let standing = units.entry(unit.no).or_insert(Standing::Dropped);
            if *standing == Standing::Pending {
                *standing = Standing::Dropped;
            }
        }
    }
}

fn units_of(phase: &Phase) -> impl Iterator<Item = &Unit> {
    phase.stages.iter().flat_map(|s| &s.waves).flat_map(|w| &w.units)
}

/// Carries out the task's plan from wherever its journal says that it is.
pub async fn run(task: &TaskContext, phases: &[Phase]) -> Result<PlanEnd, Interrupted> {
    let progress = Progress::new(phases, recorded(task, phases));
    for phase in phases {
        let mut stages: Vec<BoxFuture<'_, _>> = Vec::with_capacity(phase.stages.len());
        for stage in &phase.stages {
            stages.push(run_stage(task, stage, &progress).boxed());
        }
        // The first interruption ends all stages: another one may be waiting for a unit of the one that broke off.
        try_join_all(stages).await?;
        progress.drop_pending(phase);
    }
    let incomplete = progress.is_incomplete();
    let failures = progress.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(match failures.told() {
        Some(error) => PlanEnd::Failed(error),
        // Who cancels a task whose work was done by then has cancelled nothing.
        None if incomplete && task.cancelled.is_cancelled() => PlanEnd::Cancelled,
        None if incomplete => {
            PlanEnd::Failed(TaskError::plain("a part of the plan waits for what is not in it"))
        }
        None => PlanEnd::Done,
    })
}

fn recorded(task: &TaskContext, phases: &[Phase]) -> BTreeMap<UnitNo, Standing> {
    let view = task.view();
    let state = State::new(&*view);
    phases
        .iter()
        .flat_map(units_of)
        .map(|u| (u.no, state.unit_progress(task.id(), u.no).state.into()))
        .collect()
}

async fn run_stage(task: &TaskContext, stage: &Stage, progress: &Progress) -> Result<(), Interrupted> {
    for wave in &stage.waves {
        run_wave(task, wave, progress).await?;
    }
    Ok(())
}

/// Runs the units of a wave: in order, up to `max_in_flight` at once, each when those it waits for have ended.
async fn run_wave(task: &TaskContext, wave: &Wave, progress: &Progress) -> Result<(), Interrupted> {
    let limit = (wave.max_in_flight.max(1) as usize).min(task.ports.options.threads_max.max(1));
    let mut waiting: Vec<&Unit> = wave.units.iter().collect();
    let mut running: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
    let mut moved = progress.moved.subscribe();
    let mut cancellation_seen = false;
    loop {
        moved.mark_unchanged();
        let mut at = 0;
        while at < waiting.len() && running.len() < limit {
            match readiness(task, waiting[at], progress) {
                Readiness::Start => running.push(run_unit(task, waiting.remove(at), progress).boxed()),
                Readiness::Drop => {
                    let dropped = waiting.remove(at);
                    if progress.of(dropped.no) == Standing::Pending {
                        progress.set(dropped.no, Standing::Dropped);
                    }
                }
                Readiness::Wait => at += 1,
            }
        }
        if waiting.is_empty() && running.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(ended) = running.next() => ended?,
            _ = moved.changed() => {}
            () = task.cancelled.cancelled(), if !cancellation_seen => cancellation_seen = true,
        }
    }
}

enum Readiness {
    Start,
    Wait,
    Drop,
}

fn readiness(task: &TaskContext, unit: &Unit, progress: &Progress) -> Readiness {
    let own = progress.of(unit.no);
    match own {
        Standing::Done | Standing::Dropped => return Readiness::Drop,
        // Broken off under an earlier leader, or failed there: then running it reads the error again.
        Standing::Failed | Standing::Running => return Readiness::Start,
        Standing::Pending => {}
    }
    let before: Vec<Standing> = unit.after.iter().map(|no| progress.of(*no)).collect();
    let halted = progress.halt.load(Ordering::Relaxed) || task.cancelled.is_cancelled();
    if unit.cleanup {
        return cleanup_readiness(&before, halted);
    }
    if halted {
        return Readiness::Drop;
    }
    let left = before.iter().any(|s| matches!(s, Standing::Pending | Standing::Running));
    let well = before.iter().filter(|s| **s == Standing::Done).count();
    let lost = before.iter().any(|s| matches!(s, Standing::Failed | Standing::Dropped));
    match unit.needs {
        Needs::All if lost => Readiness::Drop,
        _ if left => Readiness::Wait,
        Needs::Any if well == 0 && lost => Readiness::Drop,
        Needs::All | Needs::Any => Readiness::Start,
    }
}

/// A cleanup unit runs once nothing before it runs any more or will, if anything before it was ever begun.
fn cleanup_readiness(before: &[Standing], halted: bool) -> Readiness {
    let any = |standing| before.contains(&standing);
    if any(Standing::Running) || (any(Standing::Pending) && !halted) {
        return Readiness::Wait;
    }
    let begun = any(Standing::Done) || any(Standing::Failed);
    if begun || before.is_empty() { Readiness::Start } else { Readiness::Drop }
}

async fn run_unit(task: &TaskContext, unit: &Unit, progress: &Progress) -> Result<(), Interrupted> {
    progress.set(unit.no, Standing::Running);
    // The plan's skeleton holds no steps: they are rows of their own, read when their turn comes.
    let planned = {
        let view = task.view();
        State::new(&*view).unit(task.id(), unit.no)
    };
    let named = planned.as_ref().map_or_else(|| Named::of(unit), |planned| Named::of(&planned.unit));
    let end = match planned {
        Some(planned) => unit::run(task, &planned.unit).await?,
        None => {
            UnitEnd::Failed(TaskError::plain(format!("unit {} of task {} is missing", unit.no, task.id())))
        }
    };
    let standing = match end {
        UnitEnd::Done => Standing::Done,
        UnitEnd::Cancelled => {
            progress.halt.store(true, Ordering::Relaxed);
            Standing::Failed
        }
        UnitEnd::Failed(error) => {
            progress.fail(unit, named, error);
            Standing::Failed
        }
    };
    progress.set(unit.no, standing);
    Ok(())
}
