//! Spawned tasks that have a name, are told to stop, are awaited, and whose death is noticed.
//!
//! `tokio::spawn` is banned elsewhere (clippy.toml): a task that nobody owns outlives its purpose or dies unseen.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

/// What the end of a task means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// Nothing: the task was meant to end some day.
    Ignore,
    /// The process cannot go on without it: unless a stop was asked for, [`OwnedTasks::failed`] fires.
    StopNode,
}

/// Owner of spawned tasks. Clones own the same tasks.
#[derive(Clone)]
pub struct OwnedTasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failed: Arc<watch::Sender<Option<&'static str>>>,
}

impl Default for OwnedTasks {
    fn default() -> Self {
        Self::new()
    }
}

impl OwnedTasks {
    /// Returns an owner of no tasks yet.
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            failed: Arc::new(watch::channel(None).0),
        }
    }

    /// Returns an owner whose tasks also stop when this one is stopped, and which can be stopped alone.
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), stop: self.stop.child_token(), failed: self.failed.clone() }
    }

    /// Starts a task; `make` receives the token that tells it to stop.
    #[allow(clippy::disallowed_methods, reason = "this is the owner")]
    pub fn spawn<F>(&self, name: &'static str, on_exit: OnExit, make: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        let work = AssertUnwindSafe(make(self.stop.clone())).catch_unwind();
        self.tracker.spawn(async move {
            let ended = work.await;
            if ended.is_err() {
                error!(name, "a task panicked");
            }
            if on_exit == OnExit::StopNode && !stop.is_cancelled() {
                error!(name, "a task that the node needs has ended");
                failed.send_replace(Some(name));
            }
        });
    }

    /// Returns the token that is cancelled when the tasks are told to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until a task that the node needs has ended, and returns its name.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Tells every task to stop and waits for them, at most `deadline`. Returns whether all have ended.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        let ended = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        match ended {
            true => debug!("all tasks have ended"),
            false => warn!(left = self.tracker.len(), "tasks did not end in time"),
        }
        ended
    }
}

/// Does work that takes a while, such as reading from a disk, beside the threads that serve everybody. Where there is only
/// one thread it is done there: a process of the simulation has no other, and what others did meanwhile would be chance.
///
/// # Errors
/// If the work panicked, or the runtime is being shut down.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => tokio::task::spawn_blocking(work).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_that_takes_a_while_keeps_nobody_waiting_who_is_served() {
        let (tell, told) = std::sync::mpsc::channel();
        let waits = aside(move || told.recv().is_ok());
        let others = async move { tell.send(()).is_ok() };
        let (waited, served) = futures::join!(waits, others);
        assert!(waited.unwrap() && served);
    }

    #[tokio::test]
    async fn work_is_done_at_once_where_there_is_one_thread() {
        let here = std::thread::current().id();
        assert_eq!(aside(move || std::thread::current().id()).await.unwrap(), here);
    }

    #[tokio::test]
    async fn stop_waits_for_the_tasks() {
        let tasks = OwnedTasks::new();
        let (tx, mut rx) = tokio::sync::mpsc::channel(1);
        tasks.spawn("waits", OnExit::StopNode, |stop| async move {
            stop.cancelled().await;
            tx.send("stopped").await.expect("the test listens");
        });
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert_eq!(rx.recv().await, Some("stopped"));
    }

    #[tokio::test]
    async fn the_death_of_a_needed_task_is_noticed() {
        let tasks = OwnedTasks::new();
        tasks.spawn("ends early", OnExit::StopNode, |_| async { panic!("on purpose") });
        assert_eq!(tasks.failed().await, "ends early");
    }
}
