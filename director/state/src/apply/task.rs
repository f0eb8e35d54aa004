//! Tasks: queued, taken, cancelled, finished, and forgotten when there are too many.

use model::task::{OutputKind, TaskError, TaskKind, TaskState};
use model::*;

use super::event::{Audit, audit};
use super::tx::{Tx, invalid};
use super::{blob, deployment, line, lock, output, plan, snapshot};
use crate::command::{Outcome, Refusal, SECOND_LEVEL, TaskEnd};
use crate::rows::{TaskAudit, TaskClass, TaskRow};
use crate::tables::*;

/// Tasks that may wait or work at once. More than any operator queues on purpose; a script gone wild meets it.
const TASKS_OPEN_MAX: u64 = 2_000;

/// Tasks kept per kind, as BOSH does.
const TASKS_KEPT: u64 = 2_000;

/// Event lines and results kept of all ended tasks together.
const OUTPUT_BYTES_KEPT: u64 = 256 * 1024 * 1024;

/// Tasks forgotten per entry at most, so that no single entry pays for a long history.
const FORGOTTEN_AT_ONCE: usize = 2;

/// Tasks looked at in search of one to forget: enough to get past a few that have not ended.
const LOOKED_AT_ONCE: usize = 64;

const OPEN_COUNTER: &str = "tasks_open";
const OUTPUT_COUNTER: &str = "output_bytes_ended";

/// Returns a task that a leader of this epoch may work on.
pub(super) fn working(tx: &Tx<'_>, by: (TaskId, Epoch)) -> Result<TaskRow, Refusal> {
    let (id, epoch) = by;
    tx.fence(epoch)?;
    let task = tx.need(&TASKS, &id, "task")?;
    match task.state {
        TaskState::Processing | TaskState::Cancelling => Ok(task),
        _ => Err(wrong_state(&task)),
    }
}

/// Returns the refusal that names a task's state.
pub(super) fn wrong_state(task: &TaskRow) -> Refusal {
    let state = match task.state {
        TaskState::Queued => "queued",
        TaskState::Processing => "processing",
        TaskState::Cancelling => "cancelling",
        TaskState::Done => "done",
        TaskState::Error => "error",
        TaskState::Cancelled => "cancelled",
    };
    Refusal::TaskState { task: task.id, state: state.into() }
}

/// `TaskQueue`.
pub(super) fn queue(
    tx: &mut Tx<'_>,
    kind: &TaskKind,
    deployment: Option<&DeploymentName>,
    context_id: &str,
    locks: &[LockName],
) -> Result<Outcome, Refusal> {
    let class = TaskClass::of(kind);
    check_queue(tx, class, deployment)?;
    if tx.count(OPEN_COUNTER, 1) > TASKS_OPEN_MAX {
        return Err(invalid("another task", format!("{TASKS_OPEN_MAX} have not ended yet")));
    }
    let teams = match deployment {
        Some(name) => deployment::teams_of_task(tx, class, name)?,
        None => Vec::new(),
    };
    let id = TaskId(tx.next_number("tasks"));
    let mut distinct: Vec<LockName> = Vec::new();
    locks.iter().for_each(|name| {
        if !distinct.contains(name) {
            distinct.push(name.clone())
        }
    });
    lock::join(tx, id, &distinct);
    let row = TaskRow {
        id,
        class,
        deployment: deployment.cloned(),
        user: tx.actor.user.clone(),
        context_id: context_id.to_owned(),
        state: TaskState::Queued,
        queued_at: tx.at,
        started_at: None,
        finished_at: None,
        updated_at: tx.at,
        locks: distinct,
        epoch: Epoch(0),
        planned: false,
        result: None,
        error: None,
        labels: Default::default(),
        audit: None,
        teams,
    };
    tx.put(&TASKS, &id, &row);
    tx.put(&TASK_KINDS, &id, kind);
    tx.put(&TASKS_OPEN, &id, &());
    tx.put(&TASKS_BY_CLASS, &(class.number(), id), &());
    let of_class = tx.count(&class_counter(class), 1);
    prune(tx, class, of_class);
    Ok(Outcome::TaskQueued(id))
}

fn check_queue(tx: &Tx<'_>, class: TaskClass, deployment: Option<&DeploymentName>) -> Result<(), Refusal> {
    match (class, deployment) {
        (TaskClass::Deploy | TaskClass::DryRun | TaskClass::DeleteDeployment, None) => {
            Err(invalid("a deploy", "it names no deployment"))
        }
        (TaskClass::Deploy | TaskClass::DryRun, Some(name)) => deployment::check_name(tx, name),
        // Two watchers that see the same VM die must not both have it recreated: the second one is told so here,
        // where nothing can come in between.
        (TaskClass::ScanAndFix, _) => only_one(tx, class, deployment, "scan and fix"),
        // Nor may two leaders have the same certificates replaced.
        (TaskClass::RotateCertificates, _) => only_one(tx, class, deployment, "rotation of certificates"),
        _ => Ok(()),
    }
}

/// Refuses a task where one of its kind is open for the deployment.
fn only_one(
    tx: &Tx<'_>,
    class: TaskClass,
    deployment: Option<&DeploymentName>,
    what: &str,
) -> Result<(), Refusal> {
    let mut open = tx.rows(&TASKS_OPEN).filter_map(|(id, ())| tx.get(&TASKS, &id));
    match open.find(|task| task.class == class && task.deployment.as_ref() == deployment) {
        Some(task) => Err(Refusal::Exists { what: what.into(), name: format!("task {}", task.id) }),
        None => Ok(()),
    }
}

/// `TaskTake`. Taking it twice under one epoch is fine: the first answer may have been lost.
pub(super) fn take(tx: &mut Tx<'_>, id: TaskId, epoch: Epoch) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let mut task = tx.need(&TASKS, &id, "task")?;
    match task.state {
        TaskState::Queued => begin(tx, &mut task)?,
        TaskState::Processing | TaskState::Cancelling => {}
        TaskState::Done | TaskState::Error | TaskState::Cancelled => return Err(wrong_state(&task)),
    }
    task.epoch = epoch;
    task.updated_at = tx.at;
    tx.put(&TASKS, &id, &task);
    Ok(Outcome::Done)
}

fn begin(tx: &mut Tx<'_>, task: &mut TaskRow) -> Result<(), Refusal> {
    if let Some((lock, holder)) = tx.state().blocked_by(task) {
        return Err(Refusal::LockHeld { task: task.id, lock, holder });
    }
    task.state = TaskState::Processing;
    task.started_at = Some(tx.at);
    audit_locks(tx, task, "acquire");
    let Some(name) = task.deployment.clone() else { return Ok(()) };
    let record = tx.get(&DEPLOYMENTS, &name).and_then(|deployment| deployment.record);
    let action = match task.class {
        TaskClass::Deploy if record.is_none() => "create",
        TaskClass::Deploy | TaskClass::ChangeState => "update",
        TaskClass::DeleteDeployment => "delete",
        _ => return Ok(()),
    };
    if task.class == TaskClass::Deploy {
        deployment::ensure(tx, &name, &task.teams);
    }
    let object_name = Some(name.to_string());
    let event =
        Audit { task: Some(task), action, object_type: "deployment", object_name, ..Audit::default() };
    let event = audit(tx, event);
    let before = deployment::summary(record.as_ref());
    task.audit = Some(TaskAudit { event, action: action.into(), before });
    Ok(())
}

/// `TaskCancel`.
pub(super) fn cancel(tx: &mut Tx<'_>, id: TaskId) -> Result<Outcome, Refusal> {
    let mut task = tx.need(&TASKS, &id, "task")?;
    match task.state {
        TaskState::Queued => {
            audit_cancel(tx, &task);
            end(tx, task, &TaskEnd::Cancelled);
        }
        TaskState::Processing | TaskState::Cancelling => {
            if task.state == TaskState::Processing {
                audit_cancel(tx, &task);
            }
            task.state = TaskState::Cancelling;
            task.updated_at = tx.at;
            tx.put(&TASKS, &id, &task);
        }
        TaskState::Done | TaskState::Error | TaskState::Cancelled => return Err(wrong_state(&task)),
    }
    Ok(Outcome::Done)
}

/// `TaskFinish`.
pub(super) fn finish(tx: &mut Tx<'_>, by: (TaskId, Epoch), how: &TaskEnd) -> Result<Outcome, Refusal> {
    let task = working(tx, by)?;
    audit_end(tx, &task, how);
    audit_locks(tx, &task, "release");
    if let (TaskClass::TakeSnapshots, TaskEnd::Error(error)) = (task.class, how) {
        snapshot::alert(tx, &task, error);
    }
    end(tx, task, how);
    Ok(Outcome::Done)
}

fn end(tx: &mut Tx<'_>, mut task: TaskRow, how: &TaskEnd) {
    (task.state, task.result, task.error) = match how {
        TaskEnd::Done(result) => (TaskState::Done, result.clone(), None),
        TaskEnd::Error(error) => (TaskState::Error, Some(error.message.clone()), Some(error.clone())),
        TaskEnd::Cancelled => (TaskState::Cancelled, Some("task cancelled".into()), Some(cancelled(task.id))),
    };
    if let Some(error) = &task.error {
        line::failure(tx, task.id, error);
    }
    task.finished_at = Some(tx.at);
    task.updated_at = tx.at;
    lock::leave_all(tx, task.id);
    tx.put(&TASKS, &task.id, &task);
    tx.delete(&TASKS_OPEN, &task.id);
    tx.count(OPEN_COUNTER, -1);
    let bytes = i64::try_from(output::stored_bytes(tx, task.id)).unwrap_or(i64::MAX);
    tx.count(OUTPUT_COUNTER, bytes);
    plan::ended(tx, &task);
    blob::leave_archive(tx, task.id);
}

fn cancelled(task: TaskId) -> TaskError {
    TaskError::new(ErrorCode::TaskCancelled, format!("Task {task} cancelled"))
}

/// Closes the event that the task's beginning opened.
fn audit_end(tx: &mut Tx<'_>, task: &TaskRow, how: &TaskEnd) {
    let (Some(begun), Some(name)) = (&task.audit, &task.deployment) else { return };
    let error = match how {
        TaskEnd::Done(_) => None,
        TaskEnd::Error(error) => Some(error.message.clone()),
        TaskEnd::Cancelled => Some(cancelled(task.id).message),
    };
    let mut context = std::collections::BTreeMap::new();
    if error.is_none() && begun.action != "delete" {
        let record = tx.get(&DEPLOYMENTS, name).and_then(|deployment| deployment.record);
        context.insert("before".to_owned(), begun.before.clone());
        context.insert("after".to_owned(), deployment::summary(record.as_ref()));
    }
    let closing = Audit {
        task: Some(task),
        parent: Some(begun.event),
        action: &begun.action,
        object_type: "deployment",
        object_name: Some(name.to_string()),
        context,
        error,
        ..Audit::default()
    };
    audit(tx, closing);
}

/// Members of the first level write no such event, so there is none while there is one of them.
fn audit_cancel(tx: &mut Tx<'_>, task: &TaskRow) {
    if tx.state().feature_level().is_none_or(|level| level < SECOND_LEVEL) {
        return;
    }
    let object_name = Some(task.id.to_string());
    let cancel =
        Audit { task: Some(task), action: "cancel", object_type: "task", object_name, ..Audit::default() };
    audit(tx, cancel);
}

fn audit_locks(tx: &mut Tx<'_>, task: &TaskRow, action: &str) {
    for name in &task.locks {
        let object_name = Some(name.to_string());
        audit(tx, Audit { task: Some(task), action, object_type: "lock", object_name, ..Audit::default() });
    }
}

/// Forgets the oldest ended tasks of a kind of which there are too many, and of any kind if their output is too much.
fn prune(tx: &mut Tx<'_>, class: TaskClass, of_class: u64) {
    let mut old: Vec<TaskId> = Vec::new();
    if of_class > TASKS_KEPT {
        let ids = tx.rows_of(&TASKS_BY_CLASS, &class.number()).map(|((_, id), ())| id);
        let ended = ids.take(LOOKED_AT_ONCE).filter(|id| !tx.has(&TASKS_OPEN, id));
        old.extend(ended.take(FORGOTTEN_AT_ONCE));
    }
    if tx.get(&COUNTERS, &OUTPUT_COUNTER.to_owned()).unwrap_or_default() > OUTPUT_BYTES_KEPT {
        let ids = tx.rows(&TASKS).map(|(id, _)| id);
        let ended = ids.take(LOOKED_AT_ONCE).filter(|id| !tx.has(&TASKS_OPEN, id));
        old.extend(ended.take(FORGOTTEN_AT_ONCE));
    }
    old.sort();
    old.dedup();
    for id in old {
        forget(tx, id);
    }
}

fn forget(tx: &mut Tx<'_>, id: TaskId) {
    let Some(task) = tx.get(&TASKS, &id) else { return };
    let bytes = i64::try_from(output::stored_bytes(tx, id)).unwrap_or(i64::MAX);
    tx.count(OUTPUT_COUNTER, -bytes);
    tx.count(&class_counter(task.class), -1);
    output::forget(tx, id);
    plan::forget(tx, id);
    tx.delete_of(&PREPARE_LINES, &id);
    tx.delete(&VARIABLE_SET_BY_TASK, &id);
    tx.delete(&TASKS_BY_CLASS, &(task.class.number(), id));
    tx.delete(&TASK_KINDS, &id);
    tx.delete(&TASKS, &id);
}

fn class_counter(class: TaskClass) -> String {
    format!("tasks/{}", class.number())
}

/// `TaskReport`.
pub(super) fn report(tx: &mut Tx<'_>, task: (TaskId, Epoch), lines: &str) -> Result<Outcome, Refusal> {
    let row = working(tx, task)?;
    output::append(tx, row.id, OutputKind::Result, lines.to_owned());
    Ok(Outcome::Done)
}

/// Appends a line to a task's result.
pub(super) fn result_line(tx: &mut Tx<'_>, task: TaskId, text: &str) {
    output::append(tx, task, OutputKind::Result, format!("{}\n", text.trim_end_matches('\n')));
}
