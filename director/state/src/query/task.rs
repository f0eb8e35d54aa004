//! Tasks: lists, locks, plans, journals and output.

use std::collections::BTreeSet;

use model::plan::Target;
use model::task::{OutputKind, Task, TaskState};
use model::*;

use super::State;
use crate::command::PlanPhases;
use crate::kv::Direction;
use crate::records::*;
use crate::rows::{PlanInfo, TaskRow};
use crate::tables::*;

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only tasks in these states; all if empty.
    pub states: Vec<TaskState>,
    /// Only tasks of this deployment.
    pub deployment: Option<DeploymentName>,
    /// Only tasks with this context id.
    pub context_id: Option<String>,
    /// Only tasks that one of these teams owns; any if none.
    pub teams: Option<Vec<String>>,
    /// Only tasks before this one.
    pub before: Option<TaskId>,
    /// At most so many; none for no bound.
    pub limit: Option<usize>,
}

impl TaskFilter {
    fn takes(&self, task: &TaskRow) -> bool {
        (self.states.is_empty() || self.states.contains(&task.state))
            && self.deployment.as_ref().is_none_or(|deployment| task.deployment.as_ref() == Some(deployment))
            && self.context_id.as_ref().is_none_or(|context| task.context_id == *context)
            && self.teams.as_ref().is_none_or(|teams| task.teams.iter().any(|team| teams.contains(team)))
    }

    fn takes_only_open(&self) -> bool {
        !self.states.is_empty() && !self.states.iter().any(|state| state.is_final())
    }
}

/// A lock, who holds it and who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockView {
    /// Its name.
    pub name: LockName,
    /// The task that holds it.
    pub holder: TaskId,
    /// Since when.
    pub held_since: Timestamp,
    /// Tasks in line, next one first.
    pub waiters: Vec<TaskId>,
}

impl<'a> State<'a> {
    /// Returns tasks, newest first.
    pub fn tasks(&self, filter: &TaskFilter) -> Vec<Task> {
        let before = filter.before.unwrap_or(TaskId(u64::MAX));
        let rows: Box<dyn Iterator<Item = TaskRow>> = match filter.takes_only_open() {
            true => Box::new(
                TASKS_OPEN.rows_before(self.kv, &before).filter_map(|(id, ())| TASKS.get(self.kv, &id)),
            ),
            false => Box::new(TASKS.rows_before(self.kv, &before).map(|(_, row)| row)),
        };
        let wanted = rows.filter(|row| filter.takes(row)).take(filter.limit.unwrap_or(usize::MAX));
        wanted.filter_map(|row| self.with_kind(row)).collect()
    }

    /// Returns a task.
    pub fn task(&self, id: TaskId) -> Option<Task> {
        TASKS.get(self.kv, &id).and_then(|row| self.with_kind(row))
    }

    /// Returns the tasks that a leader should be working on, oldest first: those that have not ended and hold all
    /// their locks. Some may be `processing` under an older epoch: take them again.
    pub fn runnable_tasks(&self) -> Vec<Task> {
        let open =
            TASKS_OPEN.rows(self.kv, Direction::Forward).filter_map(|(id, ())| TASKS.get(self.kv, &id));
        open.filter(|row| self.blocked_by(row).is_none()).filter_map(|row| self.with_kind(row)).collect()
    }

    /// Returns all locks that are held.
    pub fn locks(&self) -> Vec<LockView> {
        LOCKS.rows(self.kv, Direction::Forward).filter_map(|(name, queue)| lock_view(name, queue)).collect()
    }

    /// Returns a lock, if somebody holds it.
    pub fn lock(&self, name: &LockName) -> Option<LockView> {
        LOCKS.get(self.kv, name).and_then(|queue| lock_view(name.clone(), queue))
    }

    /// Returns whether a task has written a line of progress outside its plan.
    pub fn has_line(&self, task: TaskId, stage: &str, text: &str, state: LineState) -> bool {
        PREPARE_LINES.get(self.kv, &(task, stage.to_owned(), text.to_owned(), state)).is_some()
    }

    /// Returns the skeleton of a committed plan; its units have no steps.
    pub fn plan_phases(&self, task: TaskId) -> Option<PlanPhases> {
        PLAN_PHASES.get(self.kv, &task)
    }

    /// Returns the deployment and the variable set that a committed plan was made with.
    pub fn plan_variable_set(&self, task: TaskId) -> Option<VariableSetId> {
        PLAN_INFO.get(self.kv, &task).and_then(|info: PlanInfo| info.variable_set)
    }

    /// Returns the units of a committed plan, by number.
    pub fn units(&self, task: TaskId) -> Vec<PlannedUnit> {
        UNITS.rows_of(self.kv, &task, Direction::Forward).map(|(_, unit)| unit).collect()
    }

    /// Returns the units of a committed plan from a number on, as they are read.
    pub fn units_from(&self, task: TaskId, from: UnitNo) -> impl Iterator<Item = PlannedUnit> + use<'a> {
        let units = UNITS.rows_from(self.kv, &(task, from));
        units.take_while(move |((of, _), _)| *of == task).map(|(_, unit)| unit)
    }

    /// Returns how many tasks have not ended.
    pub fn open_tasks(&self) -> usize {
        TASKS_OPEN.rows(self.kv, Direction::Forward).count()
    }

    /// Returns a unit of a committed plan.
    pub fn unit(&self, task: TaskId, unit: UnitNo) -> Option<PlannedUnit> {
        UNITS.get(self.kv, &(task, unit))
    }

    /// Returns what a committed plan wants of an instance.
    pub fn target(&self, task: TaskId, instance: &InstanceId) -> Option<Target> {
        TARGETS.get(self.kv, &(task, instance.clone()))
    }

    /// Returns what a committed plan wants of all instances, by UUID.
    pub fn targets(&self, task: TaskId) -> Vec<Target> {
        TARGETS.rows_of(self.kv, &task, Direction::Forward).map(|(_, target)| target).collect()
    }

    /// Returns how far a unit is; pending if nobody began it.
    pub fn unit_progress(&self, task: TaskId, unit: UnitNo) -> UnitProgress {
        UNIT_PROGRESS.get(self.kv, &(task, unit)).unwrap_or_default()
    }

    /// Returns how far every begun unit is.
    pub fn units_progress(&self, task: TaskId) -> Vec<(UnitNo, UnitProgress)> {
        UNIT_PROGRESS
            .rows_of(self.kv, &task, Direction::Forward)
            .map(|((_, unit), row)| (unit, row))
            .collect()
    }

    /// Returns the journal of a step; the default if nobody began it.
    pub fn step_state(&self, task: TaskId, step: StepNo) -> StepState {
        STEPS.get(self.kv, &(task, step.unit, step.index)).unwrap_or_default()
    }

    /// Returns the journal of a unit's begun steps, by position.
    pub fn step_states(&self, task: TaskId, unit: UnitNo) -> Vec<(u32, StepState)> {
        let steps = STEPS.rows_of(self.kv, &(task, unit), Direction::Forward);
        steps.map(|((_, _, index), state)| (index, state)).collect()
    }

    /// Returns how many bytes a task's output has.
    pub fn output_len(&self, task: TaskId, kind: OutputKind) -> u64 {
        OUTPUT_LENGTHS.get(self.kv, &(task, kind)).unwrap_or_default()
    }

    /// Returns event lines or results from a byte offset on, at most `bytes_max`. Whole lines come in rows, so that
    /// the cut may fall inside one; the caller asks again from where it is.
    pub fn output(&self, task: TaskId, kind: OutputKind, offset: u64, bytes_max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        // The row that holds `offset` may begin before it.
        let before = OUTPUT.rows_before(self.kv, &(task, kind, offset.saturating_add(1))).next();
        let start = before.filter(|((of, sort, _), _)| *of == task && *sort == kind);
        let start = start.map_or(offset, |((_, _, begins), _)| begins);
        for ((of, sort, begins), text) in OUTPUT.rows_from(self.kv, &(task, kind, start)) {
            if of != task || sort != kind || bytes.len() >= bytes_max {
                break;
            }
            let skip = usize::try_from(offset.saturating_sub(begins)).unwrap_or(usize::MAX).min(text.len());
            let take = (bytes_max - bytes.len()).min(text.len() - skip);
            bytes.extend_from_slice(&text.as_bytes()[skip..skip + take]);
        }
        bytes
    }

    /// Returns the sealed pieces of a bulky output, in order.
    pub fn output_segments(&self, task: TaskId, kind: OutputKind) -> Vec<OutputSegment> {
        OUTPUT_SEGMENTS
            .rows_of(self.kv, &(task, kind), Direction::Forward)
            .map(|(_, segment)| segment)
            .collect()
    }

    fn with_kind(&self, row: TaskRow) -> Option<Task> {
        let kind = TASK_KINDS.get(self.kv, &row.id)?;
        Some(row.with_kind(kind))
    }

    /// Returns the first lock that keeps a task waiting, and who holds it.
    pub(crate) fn blocked_by(&self, task: &TaskRow) -> Option<(LockName, TaskId)> {
        task.locks.iter().find_map(|name| {
            let holder = LOCKS.get(self.kv, name).and_then(|queue| queue.tasks.first().copied());
            holder.filter(|holder| *holder != task.id).map(|holder| (name.clone(), holder))
        })
    }
}

fn lock_view(name: LockName, queue: LockQueue) -> Option<LockView> {
    let (holder, waiters) = queue.tasks.split_first()?;
    Some(LockView { name, holder: *holder, held_since: queue.held_since, waiters: waiters.to_vec() })
}

impl State<'_> {
    /// Returns the deployments that a task works on right now: those whose task has not ended and holds its locks.
    pub fn deployments_in_work(&self) -> BTreeSet<DeploymentName> {
        let open =
            TASKS_OPEN.rows(self.kv, Direction::Forward).filter_map(|(id, ())| TASKS.get(self.kv, &id));
        open.filter(|row| self.blocked_by(row).is_none()).filter_map(|row| row.deployment).collect()
    }
}
