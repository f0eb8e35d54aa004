//! The seam between the agent's conversation with directors and what it acts on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use agent_api::JobState;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::error::ActionError;
use crate::method::Method;

/// What an agent acts on: a real machine ([`crate::RealMachine`]) or a simulated one ([`crate::SimulatedMachine`]).
///
/// The agent has taken the method's locks and checked epoch and id before it calls [`Machine::perform`]; implementations
/// only do the deed.
#[async_trait]
pub trait Machine: Send + Sync + 'static {
    /// Puts the machine in order after a start of the agent: mounts, supervised processes. Idempotent.
    async fn boot(&self) -> Result<(), ActionError>;

    /// Does one action. It should end soon after `work.cancel`, if its method can be cancelled.
    async fn perform(&self, order: Order, work: &Work) -> Result<Value, ActionError>;

    /// Does what had to wait until the answer of an action that went well was on its way.
    fn answered(&self, _method: Method) {}

    /// Returns what the next heartbeat should say.
    async fn report(&self) -> Report;

    /// Returns a counter that moves when the next heartbeat should not wait.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// What to do. Arguments and content may hold secrets: it has no `Debug`.
pub struct Order {
    /// The method.
    pub method: Method,
    /// Its positional arguments.
    pub arguments: Vec<Value>,
    /// Bytes that belong to it.
    pub content: Bytes,
}

impl Order {
    /// Fails unless there are at least `expected` arguments.
    pub fn expect_arguments(&self, expected: usize) -> Result<(), ActionError> {
        match self.arguments.len() {
            got if got < expected => Err(ActionError::NotEnoughArguments { expected, got }),
            _ => Ok(()),
        }
    }

    /// Returns an argument that must be text.
    pub fn text(&self, position: usize) -> Result<&str, ActionError> {
        self.expect_arguments(position + 1)?;
        self.arguments[position].as_str().ok_or(ActionError::BadArgument { position, expected: "text" })
    }

    /// Returns an argument of a certain shape.
    pub fn argument<T: serde::de::DeserializeOwned>(
        &self,
        position: usize,
        expected: &'static str,
    ) -> Result<T, ActionError> {
        self.expect_arguments(position + 1)?;
        // The parser's own message may quote the document, and with it a secret.
        T::deserialize(&self.arguments[position]).map_err(|_| ActionError::BadArgument { position, expected })
    }
}

/// What an action under way shares with those who wait for it.
#[derive(Default)]
pub struct Work {
    /// The newest output.
    pub progress: Progress,
    /// Asks the action to end early.
    pub cancel: CancellationToken,
}

/// The newest output of an action, bounded.
#[derive(Default)]
pub struct Progress {
    newest: Mutex<VecDeque<u8>>,
}

/// What one progress message can carry: enough to see where a script is, not a log.
const PROGRESS_BYTES_MAX: usize = 8 << 10;

impl Progress {
    /// Adds output, forgetting the oldest beyond the bound.
    pub fn add(&self, output: &[u8]) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.extend(output);
        let excess = newest.len().saturating_sub(PROGRESS_BYTES_MAX);
        newest.drain(..excess);
    }

    /// Returns what was added since the last call.
    pub fn take(&self) -> Bytes {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.drain(..).collect::<Vec<u8>>().into()
    }
}

/// What a heartbeat says.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The jobs as a whole.
    pub job_state: JobState,
    /// BOSH's vitals.
    pub vitals: Value,
    /// Number of supervised processes.
    pub processes: u32,
}

/// Something that the health monitor should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Unique.
    pub id: String,
    /// 1 alert, 2 critical, 3 error, 4 warning.
    pub severity: u32,
    /// `service (addresses) - event - action`.
    pub title: String,
    /// More words.
    pub summary: String,
    /// Seconds since the Unix epoch.
    pub created_at_unix: i64,
}

/// Notices kept while no director can be reached; the oldest go first: what is new matters more.
const NOTICES_MAX: usize = 64;

/// Notices on their way to a director.
#[derive(Default)]
pub struct Notices {
    waiting: Mutex<VecDeque<Notice>>,
    added: Notify,
}

impl Notices {
    /// Adds a notice.
    pub fn add(&self, notice: Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= NOTICES_MAX {
            waiting.pop_front();
        }
        waiting.push_back(notice);
        drop(waiting);
        self.added.notify_one();
    }

    /// Waits for the next notice. Safe to cancel.
    pub async fn next(&self) -> Notice {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(notice) => return notice,
                None => self.added.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_keeps_the_newest_output() {
        let progress = Progress::default();
        progress.add(&vec![b'a'; PROGRESS_BYTES_MAX]);
        progress.add(b"end");
        let taken = progress.take();
        assert_eq!(taken.len(), PROGRESS_BYTES_MAX);
        assert!(taken.ends_with(b"aend"));
        assert!(progress.take().is_empty());
    }
}
