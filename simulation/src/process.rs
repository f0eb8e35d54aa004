//! A simulated process: a runtime of its own, on a clock that stands still unless the world lets it go on.
//!
//! Dropping the runtime drops everything that ran in it, wherever it was: that is a SIGKILL. A process that is not given
//! time is one that was stopped (SIGSTOP); when it goes on, its clock jumps, and it finds out like a real one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::services::{Services, Slot};

/// A request as it arrives: what serves it, given what the process has to serve with. It may arrive more than once.
pub type Job = Arc<dyn Fn(Services) -> BoxFuture<'static, ()> + Send + Sync>;

/// The longest step of a world: who gets its next turn later than that was stopped.
pub const STEP_MAX_MS: u64 = 5;

/// Requests that may wait for a process that does not run.
const INBOX_MAX: usize = 10_000;

/// A process that lives.
pub struct Process {
    runtime: Runtime,
    /// The world's time when it began, and what its own clock showed then.
    began_ms: u64,
    began: Instant,
    inbox: mpsc::Sender<Job>,
    /// How far its clock is.
    at_ms: u64,
}

impl Process {
    /// Starts a process; `main` is what it does, `slot` is where it puts what it serves with.
    pub fn start<F>(now_ms: u64, slot: Slot, main: impl FnOnce(OwnedTasks) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime that waits for nothing outside");
        let (inbox, mut jobs) = mpsc::channel::<Job>(INBOX_MAX);
        let began = runtime.block_on(async {
            let tasks = OwnedTasks::new();
            let main = main(tasks.clone());
            tasks.spawn("main", OnExit::Ignore, |_| main);
            let serving = tasks.clone();
            tasks.spawn("inbox", OnExit::Ignore, |_| async move {
                while let Some(job) = jobs.recv().await {
                    // Who is not up yet hears nothing: there is no connection.
                    let Some(services) = slot.get() else { continue };
                    serving.spawn("request", OnExit::Ignore, |_| job(services));
                }
            });
            Instant::now()
        });
        Self { runtime, began_ms: now_ms, began, inbox, at_ms: now_ms }
    }

    /// Lets the process live until `now_ms`. Its clock jumps where it was not given time for longer than a moment.
    pub fn live_until(&mut self, now_ms: u64) {
        let (late, target) =
            (now_ms - self.at_ms, self.began + Duration::from_millis(now_ms - self.began_ms));
        self.at_ms = now_ms;
        self.runtime.block_on(async {
            if late > STEP_MAX_MS {
                tokio::time::advance(Duration::from_millis(late - STEP_MAX_MS)).await;
            }
            tokio::time::sleep_until(target).await;
        });
    }

    /// Hands a request in.
    pub fn deliver(&self, job: Job) {
        // Who reads no more, for so long that this is full, has ended for the others.
        let _ = self.inbox.try_send(job);
    }
}
