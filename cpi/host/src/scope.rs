//! One call's right to act: its epoch, its deadline, and whether anybody still waits for it.
//!
//! Calls run on blocking threads, which can't be interrupted. So each asks here before it begins the deed, *after* it
//! has got the object's lock: a caller that has been told "no such VM" relies on it that a call which was waiting for
//! the lock meanwhile does not make one afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cpi_api::{CallContext, CpiErrorKind};
use model::Epoch;

use crate::dir::SharedDir;
use crate::error::HostError;

/// How long before its caller stops waiting a call gives up, at most: so that the caller hears what it waited for.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// The right of one call to act.
pub struct Scope {
    epoch: Epoch,
    deadline: Instant,
    lock_wait: Duration,
    abandoned: Arc<AtomicBool>,
}

/// Held by the waiting side; its end, for whatever reason, says that nobody waits any more.
pub struct Waiter(Arc<AtomicBool>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Scope {
    /// Returns the scope of a call that waits `lock_wait` for each lock, and the token of whoever waits for it.
    pub fn new(context: &CallContext, lock_wait: Duration) -> (Self, Waiter) {
        let abandoned = Arc::new(AtomicBool::new(false));
        // A timeout beyond all bounds is treated as a day: `Instant` can't count much further.
        let timeout = context.timeout.min(Duration::from_secs(86_400));
        let deadline = Instant::now() + timeout - LAST_WORDS_MAX.min(timeout / 10);
        let scope = Self { epoch: context.epoch, deadline, lock_wait, abandoned: abandoned.clone() };
        (scope, Waiter(abandoned))
    }

    /// Errs if the caller's epoch is over or nobody waits any more. Makes the epoch known to all replicas.
    pub fn check(&self, dir: &SharedDir) -> Result<(), HostError> {
        if self.abandoned.load(Ordering::SeqCst) || self.time_left().is_zero() {
            return Err(HostError::refused(CpiErrorKind::TimedOut, "the call was given up before it began"));
        }
        dir.raise_epoch(self.epoch, self)
    }

    /// Returns how long the caller will still wait.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Returns how long the call may wait for one lock.
    pub fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    /// Waits until `probe` gives something; errs when the caller's time is over.
    pub fn wait_for<T>(
        &self,
        what: &str,
        mut probe: impl FnMut() -> Result<Option<T>, HostError>,
    ) -> Result<T, HostError> {
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(found) = probe()? {
                return Ok(found);
            }
            if self.time_left().is_zero() || self.abandoned.load(Ordering::SeqCst) {
                let message = format!("gave up waiting for {what}");
                return Err(HostError::refused(CpiErrorKind::TimedOut, message));
            }
            std::thread::sleep(pause.min(self.time_left()));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
