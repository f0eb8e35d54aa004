//! Carrying out a plan: phases, stages, waves and units in the order that the plan gives, as many at once as it allows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use model::UnitNo;
use model::plan::{Phase, Stage, Unit, Wave};
use model::task::TaskError;
use state::State;
use state::records::UnitState;

use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::unit::{self, UnitEnd};

/// How the work of a plan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanEnd {
    /// All of it is done.
    Done,
    /// Something failed: the first failure, and how many there were.
    Failed(TaskError),
    /// It was cancelled.
    Cancelled,
}

/// What the units of a plan share.
struct Progress {
    /// Set by the first failure: nothing new starts after it, cleanup excepted.
    halt: AtomicBool,
    first_failure: std::sync::Mutex<Option<TaskError>>,
    /// How each unit stands: from the journal at first, then as they end.
    units: std::sync::Mutex<BTreeMap<UnitNo, UnitState>>,
}

impl Progress {
    fn state(&self, unit: UnitNo) -> UnitState {
        self.lock().get(&unit).copied().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<UnitNo, UnitState>> {
        self.units.lock().expect("no unit panics while it notes how another stands")
    }

    fn fail(&self, error: TaskError) {
        self.halt.store(true, Ordering::Relaxed);
        let mut first = self.first_failure.lock().expect("nothing panics while it notes a failure");
        first.get_or_insert(error);
    }
}

/// Carries out the task's plan from wherever its journal says that it is.
pub async fn run(task: &TaskContext, phases: &[Phase]) -> Result<PlanEnd, Interrupted> {
    let progress = Progress {
        halt: AtomicBool::new(false),
        first_failure: std::sync::Mutex::new(None),
        units: std::sync::Mutex::new(recorded(task, phases)),
    };
    for phase in phases {
        let mut stages: Vec<BoxFuture<'_, _>> = Vec::with_capacity(phase.stages.len());
        for stage in &phase.stages {
            stages.push(run_stage(task, stage, &progress).boxed());
        }
        join_all(stages).await.into_iter().collect::<Result<Vec<()>, Interrupted>>()?;
    }
    let failure = progress.first_failure.into_inner().expect("all units have ended");
    Ok(match failure {
        Some(error) => PlanEnd::Failed(error),
        None if task.cancelled.is_cancelled() => PlanEnd::Cancelled,
        None => PlanEnd::Done,
    })
}

fn recorded(task: &TaskContext, phases: &[Phase]) -> BTreeMap<UnitNo, UnitState> {
    let view = task.view();
    let state = State::new(&*view);
    let units = phases.iter().flat_map(|p| &p.stages).flat_map(|s| &s.waves).flat_map(|w| &w.units);
    units.map(|u| (u.no, state.unit_progress(task.id(), u.no).state)).collect()
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
    loop {
        let mut at = 0;
        while at < waiting.len() && running.len() < limit {
            match readiness(task, waiting[at], progress) {
                Readiness::Start => running.push(run_unit(task, waiting.remove(at), progress).boxed()),
                Readiness::Drop => drop(waiting.remove(at)),
                Readiness::Wait => at += 1,
            }
        }
        match running.next().await {
            Some(ended) => ended?,
            // What is still waiting then waits for units of this plan that were dropped: nothing will come.
            None => return Ok(()),
        }
    }
}

enum Readiness {
    Start,
    Wait,
    Drop,
}

fn readiness(task: &TaskContext, unit: &Unit, progress: &Progress) -> Readiness {
    let own = progress.state(unit.no);
    match own {
        UnitState::Done | UnitState::Skipped => return Readiness::Drop,
        UnitState::Failed => {
            // It failed under an earlier leader: the plan is halted as it was then. Running it reads the error again.
            return Readiness::Start;
        }
        UnitState::Pending | UnitState::Running => {}
    }
    let before: Vec<UnitState> = unit.after.iter().map(|no| progress.state(*no)).collect();
    let halted = progress.halt.load(Ordering::Relaxed) || task.cancelled.is_cancelled();
    if unit.cleanup {
        return cleanup_readiness(own, &before, halted);
    }
    if own == UnitState::Running {
        return Readiness::Start;
    }
    if halted || before.iter().any(|s| matches!(s, UnitState::Failed | UnitState::Skipped)) {
        return Readiness::Drop;
    }
    if before.iter().all(|s| *s == UnitState::Done) { Readiness::Start } else { Readiness::Wait }
}

/// A cleanup unit runs once nothing before it runs any more, if anything before it was ever begun.
fn cleanup_readiness(own: UnitState, before: &[UnitState], halted: bool) -> Readiness {
    if own == UnitState::Running {
        return Readiness::Start;
    }
    if before.iter().any(|s| *s == UnitState::Running) {
        return Readiness::Wait;
    }
    let pending = before.iter().any(|s| *s == UnitState::Pending);
    if pending && !halted {
        return Readiness::Wait;
    }
    let begun = before.iter().any(|s| matches!(s, UnitState::Done | UnitState::Failed | UnitState::Skipped));
    if begun || before.is_empty() { Readiness::Start } else { Readiness::Drop }
}

async fn run_unit(task: &TaskContext, unit: &Unit, progress: &Progress) -> Result<(), Interrupted> {
    progress.lock().insert(unit.no, UnitState::Running);
    // The plan's skeleton holds no steps: they are rows of their own, read when their turn comes.
    let planned = {
        let view = task.view();
        State::new(&*view).unit(task.id(), unit.no)
    };
    let end = match planned {
        Some(planned) => unit::run(task, &planned.unit).await?,
        None => UnitEnd::Failed(TaskError::plain(format!("unit {} of task {} is missing", unit.no, task.id()))),
    };
    let state = match end {
        UnitEnd::Done => UnitState::Done,
        UnitEnd::Cancelled => {
            progress.halt.store(true, Ordering::Relaxed);
            UnitState::Failed
        }
        UnitEnd::Failed(error) => {
            progress.fail(error);
            UnitState::Failed
        }
    };
    progress.lock().insert(unit.no, state);
    Ok(())
}
