//! The leader's loop: takes up every task that can run, and remembers nothing.
//!
//! What is runnable is read from the state each time; a change only wakes the loop. So a new leader finds exactly what
//! the old one was doing.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::FutureExt as _;
use model::{Epoch, Revision, TaskId};
use owned_tasks::{OnExit, OwnedTasks};
use retry::Policy;
use state::State;
use state::command::Command;
use state::log::Proposal;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::dns;
use crate::driver;
use crate::error::Interrupted;
use crate::latecomers;
use crate::lease::Fence;
use crate::ports::Ports;

/// Pause before looking again whether this replica leads.
const LEASE_POLL: Duration = Duration::from_millis(25);

/// How long drivers may take to stop. They stop at once: what they wait for is dropped.
const DRIVERS_STOP: Duration = Duration::from_secs(5);

/// Pause before a task that could not be driven is taken up again.
const AGAIN: Policy =
    Policy { initial: Duration::from_millis(100), max: Duration::from_secs(5), total: None };

/// Runs for the life of the process: waits until this replica leads, leads, and starts over when it does not any more.
///
/// `lease_wait` is what a new leader waits before it touches the world, so that the old one has noticed its end.
pub async fn run(ports: Ports, owner: OwnedTasks, lease_wait: Duration, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Some(held) = ports.lease.held() else {
            tokio::select! {
                () = tokio::time::sleep(LEASE_POLL) => continue,
                () = stop.cancelled() => return,
            }
        };
        let fence = Fence::new(ports.lease.clone(), held.epoch);
        info!(epoch = %held.epoch, "leading");
        let own = owner.child();
        tokio::select! {
            () = lead(&ports, &own, fence.clone(), lease_wait) => {}
            lost = fence.lost() => warn!(epoch = %lost.epoch, "not leading any more"),
            () = stop.cancelled() => {}
        }
        // However leading ended, nobody works on under that epoch when the next one begins.
        own.stop(DRIVERS_STOP).await;
        tokio::select! {
            // A lease whose epoch the state no longer takes is about to end; until then there is nothing to do.
            () = tokio::time::sleep(LEASE_POLL) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Leads under one epoch until that is over.
async fn lead(ports: &Ports, own: &OwnedTasks, fence: Fence, lease_wait: Duration) {
    // The wait counts from here, which is later than the election: only safer. Meanwhile the epoch is announced.
    let waited = tokio::time::sleep(lease_wait);
    if let Err(error) = begin(ports, fence.epoch()).await {
        debug!(epoch = %fence.epoch(), error = %error, "could not begin to lead");
        return;
    }
    waited.await;
    let lapsed = Arc::new(Notify::new());
    let changed = [look_for_latecomers(ports, own, &fence, &lapsed), keep_names(ports, own, &fence, &lapsed)];
    let running = Arc::new(Running::default());
    let mut revision = Revision(0);
    loop {
        if fence.check().is_err() {
            return;
        }
        start_runnable(ports, own, &fence, &running);
        changed.iter().for_each(|changed| changed.notify_one());
        tokio::select! {
            seen = ports.log.changed(revision) => revision = seen,
            () = running.ended.notified() => {}
            () = over(&fence, &lapsed) => return,
        }
    }
}

/// Waits until leading is over. A lease that runs out for a moment, and is renewed then, may be seen by only one of those who
/// work under it, who ends: then all begin anew.
async fn over(fence: &Fence, lapsed: &Notify) {
    tokio::select! {
        biased;
        _ = fence.lost() => {}
        () = lapsed.notified() => {}
    }
}

/// Has latecomers looked for while this replica leads; whoever sees the state change says so by what is returned. `lapsed` is
/// told when that has ended because it did not lead.
fn look_for_latecomers(ports: &Ports, own: &OwnedTasks, fence: &Fence, lapsed: &Arc<Notify>) -> Arc<Notify> {
    let (ports, fence, changed) = (ports.clone(), fence.clone(), Arc::new(Notify::new()));
    let (told, lapsed) = (changed.clone(), lapsed.clone());
    own.spawn("latecomers", OnExit::Ignore, move |stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = latecomers::run(ports, fence, told) => lapsed.notify_one(),
        }
    });
    changed
}

/// Keeps agents' DNS records up to date while this replica leads, as [`look_for_latecomers`] does its part.
fn keep_names(ports: &Ports, own: &OwnedTasks, fence: &Fence, lapsed: &Arc<Notify>) -> Arc<Notify> {
    let (ports, fence, changed) = (ports.clone(), fence.clone(), Arc::new(Notify::new()));
    let (told, lapsed) = (changed.clone(), lapsed.clone());
    if ports.options.local_dns {
        own.spawn("dns", OnExit::Ignore, move |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = dns::run(ports, fence, told) => lapsed.notify_one(),
            }
        });
    }
    changed
}

async fn begin(ports: &Ports, epoch: Epoch) -> Result<(), Interrupted> {
    let begin = Command::LeaderBegin { node: ports.options.node, epoch };
    ports.log.propose(Proposal::own(begin)).await?.outcome.accepted()?;
    Ok(())
}

/// Tasks that a driver works on right now. Lost with the process, and that is fine: the state knows what is open.
#[derive(Default)]
struct Running {
    tasks: Mutex<BTreeSet<TaskId>>,
    ended: Notify,
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<TaskId>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clears a task's mark when its driver ends, however it ends.
struct Mark(Arc<Running>, TaskId);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
        self.0.ended.notify_one();
    }
}

fn start_runnable(ports: &Ports, own: &OwnedTasks, fence: &Fence, running: &Arc<Running>) {
    let runnable = {
        let view = ports.log.view();
        State::new(&*view).runnable_tasks()
    };
    for task in runnable {
        let mut tasks = running.lock();
        if tasks.len() >= ports.options.tasks_max {
            break;
        }
        if !tasks.insert(task.id) {
            continue;
        }
        drop(tasks);
        let mark = Mark(running.clone(), task.id);
        let (ports, fence, inner) = (ports.clone(), fence.clone(), own.clone());
        own.spawn("task driver", OnExit::Ignore, move |stop| async move {
            let _mark = mark;
            tokio::select! {
                () = drive_to_end(ports, fence, task.id, inner) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Drives a task, again if it was interrupted by something that may pass.
async fn drive_to_end(ports: Ports, fence: Fence, task: TaskId, owner: OwnedTasks) {
    let mut waits = AGAIN.waits();
    let mut failures = 0;
    loop {
        let drive = driver::drive(ports.clone(), fence.clone(), task, owner.clone());
        // A defect of ours must not be met again at once, and again, for as long as this replica leads.
        let end = AssertUnwindSafe(drive).catch_unwind().await;
        let interrupted = match end.unwrap_or(Err(Interrupted::Panicked)) {
            Ok(()) | Err(Interrupted::Lost(_)) => return,
            Err(interrupted) => interrupted,
        };
        let is_hopeless = interrupted.times_max().is_some_and(|max| {
            failures += 1;
            failures >= max
        });
        if is_hopeless {
            warn!(task = %task, error = %interrupted, "giving the task up");
            if let Err(error) = driver::give_up(&ports, &fence, task, &interrupted).await {
                warn!(task = %task, error = %error, "the task could not be given up");
            }
        } else {
            warn!(task = %task, error = %interrupted, "task interrupted, taking it up again");
        }
        if fence.check().is_err() || ended(&ports, task) {
            return;
        }
        tokio::time::sleep(waits.next().unwrap_or(AGAIN.max)).await;
    }
}

fn ended(ports: &Ports, task: TaskId) -> bool {
    let view = ports.log.view();
    State::new(&*view).task(task).is_none_or(|t| t.state.is_final())
}
