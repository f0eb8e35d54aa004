//! The recorder: one list behind one lock, which is held for a push.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Call, Event, History, Malformed, What};

/// Where the processes of one history write.
#[derive(Debug)]
pub struct Recorder<C: Call> {
    events: Mutex<Vec<Event<C>>>,
    next_process: AtomicU64,
}

impl<C: Call> Recorder<C> {
    /// Returns an empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { events: Mutex::default(), next_process: AtomicU64::new(0) })
    }

    /// Returns a process with a number of its own.
    pub fn process(self: &Arc<Self>) -> Process<C> {
        Process { number: self.take_number(), recorder: Arc::clone(self) }
    }

    /// Returns what was recorded until now.
    ///
    /// # Errors
    ///
    /// If the time that a process gave went back; nothing else can be wrong.
    pub fn history(&self) -> Result<History<C>, Malformed> {
        History::new(self.events().clone())
    }

    /// Returns how many events were recorded until now.
    pub fn len(&self) -> usize {
        self.events().len()
    }

    /// Returns whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_number(&self) -> u64 {
        self.next_process.fetch_add(1, Ordering::Relaxed)
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event<C>>> {
        // A push is whole or has not happened, whoever panicked with the lock.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, process: u64, at_us: u64, what: What<C>) {
        self.events().push(Event { process, at_us, what });
    }
}

/// One that asks, one thing after the other.
#[derive(Debug)]
pub struct Process<C: Call> {
    number: u64,
    recorder: Arc<Recorder<C>>,
}

impl<C: Call> Process<C> {
    /// Records that something is asked for; to be called before it is sent.
    pub fn invoke(&mut self, at_us: u64, call: C) -> Open<'_, C> {
        self.recorder.push(self.number, at_us, What::Invoke(call));
        Open { process: self, is_over: false }
    }

    fn retire(&mut self) {
        self.number = self.recorder.take_number();
    }
}

/// An operation that has not ended. Dropped without an end, its outcome is unknown: so is that of a call whose future
/// was dropped.
#[derive(Debug)]
#[must_use = "an operation that is dropped has an unknown outcome"]
pub struct Open<'a, C: Call> {
    process: &'a mut Process<C>,
    is_over: bool,
}

impl<C: Call> Open<'_, C> {
    /// Records that it happened; to be called after the answer came.
    pub fn ok(self, at_us: u64, answer: C::Answer) {
        self.end(at_us, What::Ok(answer));
    }

    /// Records that it certainly did not happen and never will.
    pub fn fail(self, at_us: u64, why: impl Into<String>) {
        self.end(at_us, What::Fail(why.into()));
    }

    /// Records that nobody knows whether it happened or will.
    pub fn unknown(mut self, at_us: u64, why: impl Into<String>) {
        self.is_over = true;
        self.process.recorder.push(self.process.number, at_us, What::Unknown(why.into()));
        self.process.retire();
    }

    fn end(mut self, at_us: u64, what: What<C>) {
        self.is_over = true;
        self.process.recorder.push(self.process.number, at_us, what);
    }
}

impl<C: Call> Drop for Open<'_, C> {
    fn drop(&mut self) {
        if !self.is_over {
            self.process.retire();
        }
    }
}
