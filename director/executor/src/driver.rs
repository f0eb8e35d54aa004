//! Driving one task from wherever it is to its end.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use model::TaskId;
use model::task::{Task, TaskError, TaskKind, TaskState};
use owned_tasks::OwnedTasks;
use state::State;
use state::command::{Command, TaskEnd};
use state::log::{CommandLog, Proposal};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info};

use crate::context::TaskContext;
use crate::error::{Interrupted, recordable};
use crate::journal::Journal;
use crate::lease::Fence;
use crate::networks;
use crate::ports::Ports;
use crate::prepare::{self, NotCommitted, Prepared};
use crate::stages::{self, PlanEnd};
use crate::tasks::{self, Archive};

/// Times that a plan may be refused because the world moved while it was made.
const PLANNINGS_MAX: u32 = 8;

/// Takes a task up and drives it to its end, or until this replica may not act any more.
pub fn drive(
    ports: Ports,
    fence: Fence,
    id: TaskId,
    owner: OwnedTasks,
) -> BoxFuture<'static, Result<(), Interrupted>> {
    let span = ports.options.spans.open(id, fence.epoch());
    async move {
        fence.check()?;
        let take = Command::TaskTake { task: id, epoch: fence.epoch() };
        ports.log.propose(Proposal::own(take)).await?.outcome.accepted()?;
        let Some(task) = read(&*ports.log, id) else { return Ok(()) };
        info!(task = %id, "task taken up");
        let own = owner.child();
        let cancelled = CancellationToken::new();
        if task.state == TaskState::Cancelling {
            // Asked for under an earlier leader: nothing may start before it is seen.
            cancelled.cancel();
        }
        let context = TaskContext {
            journal: Journal::start(&own, ports.log.clone(), id, fence.clone()),
            ports,
            fence,
            cancelled,
            task: Arc::new(task),
        };
        let end = tokio::select! {
            end = work(&context) => end,
            lost = context.fence.lost() => Err(lost.into()),
            never = watch_cancellation(&context) => match never {},
        };
        let result = match end {
            Ok(end) => finish(&context, end).await,
            Err(interrupted) => Err(interrupted),
        };
        drop(context);
        own.stop(std::time::Duration::from_secs(5)).await;
        result
    }
    .instrument(span)
    .boxed()
}

/// Ends a task that can't go on, so that nobody waits for it and its locks are free.
pub async fn give_up(ports: &Ports, fence: &Fence, id: TaskId, why: &Interrupted) -> Result<(), Interrupted> {
    fence.check()?;
    let error = recordable(TaskError::plain(format!("task {id} can't go on: {why}")));
    let finish = Command::TaskFinish { task: id, epoch: fence.epoch(), end: TaskEnd::Error(error) };
    ports.log.propose(Proposal::own(finish)).await?.outcome.accepted()?;
    Ok(())
}

fn read(log: &dyn CommandLog, id: TaskId) -> Option<Task> {
    let view = log.view();
    State::new(&*view).task(id)
}

/// Passes a request to cancel on to whoever works on the task.
async fn watch_cancellation(context: &TaskContext) -> std::convert::Infallible {
    let mut revision = model::Revision(0);
    loop {
        let state = read(&*context.ports.log, context.id()).map(|t| t.state);
        if state == Some(TaskState::Cancelling) {
            context.cancelled.cancel();
            return std::future::pending().await;
        }
        revision = context.ports.log.changed(revision).await;
    }
}

async fn work(context: &TaskContext) -> Result<TaskEnd, Interrupted> {
    match &context.task.kind {
        TaskKind::UploadRelease { blob, rebase, fix } => {
            tasks::upload_release(context, Archive::Stored(blob), *rebase, *fix).await
        }
        TaskKind::FetchRelease { archive, rebase, fix } => {
            tasks::upload_release(context, Archive::Remote(archive), *rebase, *fix).await
        }
        TaskKind::UploadStemcell { blob, fix } => {
            tasks::upload_stemcell(context, Archive::Stored(blob), *fix).await
        }
        TaskKind::FetchStemcell { archive, fix } => {
            tasks::upload_stemcell(context, Archive::Remote(archive), *fix).await
        }
        TaskKind::DeleteRelease { name, version } => {
            tasks::delete_release(context, name, version.as_ref()).await
        }
        TaskKind::DeleteStemcell { name, version, force } => {
            tasks::delete_stemcell(context, name, version, *force).await
        }
        TaskKind::DeleteOrphanedNetworks { networks } => networks::delete(context, networks).await,
        TaskKind::Inspect { vms } => match &context.task.deployment {
            Some(deployment) => tasks::inspect(context, deployment, *vms).await,
            None => Ok(TaskEnd::Error(TaskError::plain("a deployment is to be named"))),
        },
        TaskKind::CleanUp { leftovers, .. } => match tasks::clean_up(context, leftovers).await? {
            // Orphans are in clouds: their deletion is planned.
            None => planned(context).await,
            Some(end) => Ok(end),
        },
        TaskKind::ExportRelease { export } => match planned(context).await? {
            TaskEnd::Done(_) => tasks::export_release(context, export).await,
            end => Ok(end),
        },
        TaskKind::FetchLogs { instances, logs, filters } => {
            tasks::fetch_logs(context, tasks::LogWish { instances, logs, filters }).await
        }
        TaskKind::Ssh { command, target } => match &context.task.deployment {
            Some(deployment) => tasks::ssh(context, deployment, command, target).await,
            None => Ok(TaskEnd::Error(TaskError::plain("a deployment is to be named"))),
        },
        TaskKind::CreateDynamicDisk { .. }
        | TaskKind::AttachDynamicDisk { .. }
        | TaskKind::ProvideDynamicDisk { .. }
        | TaskKind::DetachDynamicDisk { .. }
        | TaskKind::DeleteDynamicDisk { .. } => tasks::dynamic_disk(context).await,
        TaskKind::Deploy { .. }
        | TaskKind::DeleteDeployment { .. }
        | TaskKind::ChangeState { .. }
        | TaskKind::ChangeInstance { .. }
        | TaskKind::RunErrand { .. }
        | TaskKind::ScanAndFix { .. }
        | TaskKind::RotateCertificates { .. }
        | TaskKind::ScanCloud
        | TaskKind::ApplyResolutions { .. }
        | TaskKind::DeleteOrphanedDisks { .. }
        | TaskKind::DeleteOrphanedVms { .. }
        | TaskKind::OrphanDisk { .. }
        | TaskKind::AttachDisk { .. }
        | TaskKind::DeleteVm { .. }
        | TaskKind::TakeSnapshots { .. }
        | TaskKind::DeleteSnapshots { .. } => planned(context).await,
    }
}

/// Plans the task unless that has been done, then carries the plan out.
async fn planned(context: &TaskContext) -> Result<TaskEnd, Interrupted> {
    if !context.task.planned {
        match plan(context).await? {
            Planning::Committed => {}
            Planning::Ended(end) => return Ok(end),
        }
    }
    let phases = {
        let view = context.view();
        State::new(&*view).plan_phases(context.id())
    };
    let Some(phases) = phases else {
        return Ok(TaskEnd::Error(TaskError::plain(format!("the plan of task {} is missing", context.id()))));
    };
    Ok(match stages::run(context, &phases).await? {
        PlanEnd::Done => TaskEnd::Done(prepare::result_of(context)),
        PlanEnd::Failed(error) => TaskEnd::Error(error),
        PlanEnd::Cancelled => TaskEnd::Cancelled,
    })
}

enum Planning {
    Committed,
    Ended(TaskEnd),
}

/// Plans until a plan is accepted: addresses and generations may move between looking and committing.
async fn plan(context: &TaskContext) -> Result<Planning, Interrupted> {
    for attempt in 1.. {
        if context.is_cancelling() {
            return Ok(Planning::Ended(TaskEnd::Cancelled));
        }
        let plan = match prepare::prepare(context).await? {
            Ok(Prepared::Plan(plan)) => plan,
            Ok(Prepared::Nothing(result)) => return Ok(Planning::Ended(TaskEnd::Done(result))),
            Err(_) if context.is_cancelling() => return Ok(Planning::Ended(TaskEnd::Cancelled)),
            Err(error) => return Ok(Planning::Ended(TaskEnd::Error(error))),
        };
        match prepare::commit(context, *plan).await? {
            Ok(()) => return Ok(Planning::Committed),
            Err(NotCommitted::TooLarge(error)) => return Ok(Planning::Ended(TaskEnd::Error(error))),
            Err(NotCommitted::Overtaken(refusal)) if attempt < PLANNINGS_MAX => {
                info!(task = %context.id(), attempt, error = %refusal, "the plan was overtaken, planning again");
                context.debug(&format!("plan {attempt} was refused: {refusal}"));
            }
            Err(NotCommitted::Overtaken(refusal)) => {
                let text = format!("planning was overtaken {PLANNINGS_MAX} times, last because {refusal}");
                return Ok(Planning::Ended(TaskEnd::Error(TaskError::plain(text))));
            }
        }
    }
    unreachable!("the last attempt returns")
}

async fn finish(context: &TaskContext, end: TaskEnd) -> Result<(), Interrupted> {
    context.ports.output.flush(context.id()).await;
    context.fence.check()?;
    info!(task = %context.id(), end = end_name(&end), "task ended");
    let end = match end {
        TaskEnd::Error(error) => TaskEnd::Error(recordable(error)),
        other => other,
    };
    let finish = Command::TaskFinish { task: context.id(), epoch: context.fence.epoch(), end };
    context.ports.log.propose(Proposal::own(finish)).await?.outcome.accepted()?;
    Ok(())
}

fn end_name(end: &TaskEnd) -> &'static str {
    match end {
        TaskEnd::Done(_) => "done",
        TaskEnd::Error(_) => "error",
        TaskEnd::Cancelled => "cancelled",
    }
}
