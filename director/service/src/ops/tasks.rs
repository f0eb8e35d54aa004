//! Tasks: lists, one with whom it waits for, output, cancellation.

use std::cmp::Reverse;

use model::task::{OutputKind, Task, TaskState};
use model::{DeploymentName, ErrorCode, RequestId, TaskId, UnitNo};
use state::State;
use state::command::{Command, Refusal};
use state::query::TaskFilter;
use state::records::{OutputSegment, PlannedUnit, StepState, UnitState};

use crate::{ACCESS_TASK, Access, Caller, List, Page, Read, Right, Service, ServiceError};

/// A task, and whom it waits for.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The task.
    pub task: Task,
    /// Holders of locks that it waits for.
    pub waits_for: Vec<TaskId>,
}

/// Which of the newest tasks are wanted.
#[derive(Clone, Debug)]
pub struct TaskQuery {
    /// In these states; in any if empty.
    pub states: Vec<TaskState>,
    /// Of this deployment.
    pub deployment: Option<DeploymentName>,
    /// With this context id.
    pub context_id: Option<String>,
    /// Also those that the director asks for itself.
    pub all_kinds: bool,
    /// At most so many.
    pub limit: usize,
}

/// A unit of a task's plan with its journal.
#[derive(Clone, Debug)]
pub struct UnitView {
    /// Its number.
    pub no: UnitNo,
    /// The stage's heading.
    pub stage: String,
    /// Its label.
    pub label: String,
    /// Where it is.
    pub state: UnitState,
    /// Names and journals of its steps.
    pub steps: Vec<(&'static str, StepState)>,
}

/// A piece of output.
#[derive(Clone, Debug)]
pub enum Output {
    /// Kept in the state.
    Bytes(Vec<u8>),
    /// Kept in blobs.
    Segments(Vec<OutputSegment>),
}

impl Service {
    /// Lists tasks, newest first: all of them for the director's people, those of their teams for others.
    pub async fn tasks(
        &self,
        caller: &Caller,
        current: bool,
        deployment: Option<DeploymentName>,
        page: &Page,
    ) -> Result<List<TaskView>, ServiceError> {
        let teams = whose(caller)?;
        let states = match current {
            true => vec![TaskState::Queued, TaskState::Processing, TaskState::Cancelling],
            false => Vec::new(),
        };
        self.list(Read::Linearizable, page, move |state, page| {
            let before: Option<Reverse<TaskId>> = page.after()?;
            let filter = TaskFilter {
                states,
                deployment,
                teams,
                before: before.map(|id| id.0),
                limit: Some(page.limit() + 1),
                ..TaskFilter::default()
            };
            let (tasks, next) = page.cut(state.tasks(&filter), |task| Reverse(task.id))?;
            Ok((tasks.into_iter().map(|task| view(state, task)).collect(), next))
        })
        .await
    }

    /// Returns the newest tasks of a sort, newest first.
    pub async fn newest_tasks(&self, caller: &Caller, query: TaskQuery) -> Result<Vec<Task>, ServiceError> {
        /// Tasks that are looked through at once.
        const PIECE: usize = 100;
        let teams = whose(caller)?;
        let TaskQuery { states, deployment, context_id, all_kinds, limit } = query;
        let find = move |state: &State<'_>| {
            let mut filter =
                TaskFilter { states, deployment, context_id, teams, before: None, limit: Some(PIECE) };
            let mut found = Vec::new();
            loop {
                let piece = state.tasks(&filter);
                let Some(last) = piece.last().map(|task| task.id) else { break };
                found.extend(piece.into_iter().filter(|task| all_kinds || task.kind.is_shown()));
                if found.len() >= limit {
                    found.truncate(limit);
                    break;
                }
                filter.before = Some(last);
            }
            Ok(found)
        };
        Ok(self.read(Read::Linearizable, find).await?.0)
    }

    /// Returns a task.
    pub async fn task(&self, caller: &Caller, id: TaskId) -> Result<TaskView, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, ACCESS_TASK)?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        readable(&state, caller, id).map(|task| view(&state, task))
    }

    /// Waits until a task has ended.
    pub async fn wait_for_task(&self, caller: &Caller, id: TaskId) -> Result<TaskView, ServiceError> {
        loop {
            let seen = self.log().revision();
            let found = self.task(caller, id).await?;
            if found.task.state.is_final() {
                return Ok(found);
            }
            self.log().changed(seen).await;
        }
    }

    /// Fails unless the caller may read a kind of a task's output, as far as this replica knows: call [`Service::look`]
    /// before.
    pub fn may_follow(&self, caller: &Caller, id: TaskId, kind: OutputKind) -> Result<(), ServiceError> {
        let kv = self.log().view();
        followed(&State::new(&*kv), caller, id, kind).map(|_| ())
    }

    /// Returns a task and a piece of its output, from this replica's state; call [`Service::look`] once before following.
    /// The task is read from the same look as the output, so a final state means that the output is whole.
    pub fn task_output(
        &self,
        caller: &Caller,
        id: TaskId,
        kind: OutputKind,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(TaskView, Output), ServiceError> {
        let kv = self.log().view();
        let state = State::new(&*kv);
        let task = followed(&state, caller, id, kind)?;
        let output = match kind {
            OutputKind::Event | OutputKind::Result => {
                Output::Bytes(state.output(id, kind, offset, bytes_max))
            }
            OutputKind::Debug | OutputKind::Cpi => {
                let past = |s: &OutputSegment| s.offset + u64::from(s.length) > offset;
                Output::Segments(state.output_segments(id, kind).into_iter().filter(past).collect())
            }
        };
        Ok((view(&state, task), output))
    }

    /// Lists the units of a task's plan, with their journal.
    pub async fn task_steps(
        &self,
        caller: &Caller,
        id: TaskId,
        page: &Page,
    ) -> Result<List<UnitView>, ServiceError> {
        let caller = caller.clone();
        self.list(Read::Linearizable, page, move |state, page| {
            readable(state, &caller, id)?;
            let units = state.units_from(id, page.after()?.unwrap_or_default());
            let (units, next) = page.cut(units, |planned| planned.unit.no)?;
            Ok((units.into_iter().map(|planned| unit_view(state, id, planned)).collect(), next))
        })
        .await
    }

    /// Fails unless the caller may cancel tasks. The admins of a task's own team may not, as in BOSH.
    pub fn may_cancel(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "cancel tasks")
    }

    /// Asks a task to stop; returns its state afterwards.
    pub async fn cancel_task(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        id: TaskId,
    ) -> Result<TaskState, ServiceError> {
        self.may_cancel(caller)?;
        // The state judges, not we: a repeat gets its first answer, whatever has become of the task since.
        match self.propose(caller, request_id, Command::TaskCancel { task: id }).await {
            Err(ServiceError::Refused(Refusal::TaskState { state, .. })) => {
                let text = format!("cannot cancel task {id}: invalid state ({state})");
                return Err(ServiceError::told(ErrorCode::TaskUnexpectedState, text));
            }
            Err(ServiceError::Refused(Refusal::NotFound { .. })) => return Err(not_found(id)),
            other => other?,
        };
        Ok(self.task(caller, id).await?.task.state)
    }
}

/// Returns the teams whose tasks the caller sees in lists; none if it sees all.
fn whose(caller: &Caller) -> Result<Option<Vec<String>>, ServiceError> {
    caller.needs(Right::ReadOrTeamAdmin, "list tasks")?;
    Ok((!caller.has(Right::Read)).then(|| caller.admin_teams()))
}

/// Returns a task that the caller may look at.
fn readable(state: &State<'_>, caller: &Caller, id: TaskId) -> Result<Task, ServiceError> {
    caller.needs(Right::Any, ACCESS_TASK)?;
    let task = existing(state, id)?;
    caller.owns(&task.teams, Access::Read, ACCESS_TASK)?;
    Ok(task)
}

/// Returns a task of whose output the caller may read a kind. Debug and CPI logs are for admins, as in BOSH: they show
/// requests to clouds and agents.
fn followed(state: &State<'_>, caller: &Caller, id: TaskId, kind: OutputKind) -> Result<Task, ServiceError> {
    let task = readable(state, caller, id)?;
    if matches!(kind, OutputKind::Debug | OutputKind::Cpi) {
        caller.owns(&task.teams, Access::Admin, "read debug and CPI logs of tasks")?;
    }
    Ok(task)
}

fn unit_view(state: &State<'_>, task: TaskId, planned: PlannedUnit) -> UnitView {
    let no = planned.unit.no;
    let step = |(index, step): (usize, &model::plan::Step)| {
        let step_no = model::StepNo { unit: no, index: index as u32 };
        (step.action.name(), state.step_state(task, step_no))
    };
    UnitView {
        no,
        stage: heading(&planned),
        label: planned.unit.label.clone(),
        state: state.unit_progress(task, no).state,
        steps: planned.unit.steps.iter().enumerate().map(step).collect(),
    }
}

fn heading(unit: &PlannedUnit) -> String {
    let title = unit.title.clone().unwrap_or_default();
    if unit.tags.is_empty() { title } else { format!("{title} {}", unit.tags.join(", ")) }
}

fn existing(state: &State<'_>, id: TaskId) -> Result<Task, ServiceError> {
    state.task(id).ok_or_else(|| not_found(id))
}

fn not_found(id: TaskId) -> ServiceError {
    ServiceError::told(ErrorCode::TaskNotFound, format!("Task {id} not found"))
}

fn view(state: &State<'_>, task: Task) -> TaskView {
    let mut waits_for: Vec<TaskId> = match task.state {
        TaskState::Queued => task
            .locks
            .iter()
            .filter_map(|l| state.lock(l))
            .map(|l| l.holder)
            .filter(|h| *h != task.id)
            .collect(),
        _ => Vec::new(),
    };
    waits_for.sort();
    waits_for.dedup();
    TaskView { task, waits_for }
}
