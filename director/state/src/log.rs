//! The port to the replicated log: how commands get in, and how readers look at what came of them.
//!
//! The server implements it over Raft; [`MemoryLog`] is the same thing alone and in memory, for tests of the executor
//! and the service.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use model::{RequestId, Revision, Timestamp, UserName};

use crate::command::{Actor, Command, ENTRY_VERSION, Entry, Outcome};
use crate::kv::{KvRead, MemoryKv};

/// A future in a box: this crate names no async runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A consistent look at the state, as it was at one revision.
pub type View = Arc<dyn KvRead + Send + Sync>;

/// A command on its way into the log. The log stamps time and replica.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What to do.
    pub command: Command,
    /// Idempotency key; without one a retry after an unknown outcome could do it twice.
    pub request_id: Option<RequestId>,
    /// Who asked.
    pub user: UserName,
}

impl Proposal {
    /// Makes a proposal of the fleet itself, for commands that are idempotent by what they say.
    pub fn own(command: Command) -> Self {
        Self { command, request_id: None, user: UserName::new(FLEET_USER) }
    }
}

/// The user that events show for what the fleet does by itself.
pub const FLEET_USER: &str = "directorate";

/// An entry that was committed and applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its position.
    pub revision: Revision,
    /// What the state answered.
    pub outcome: Outcome,
}

/// Why there is no answer. Whether the command happened is unknown: ask again with the same request id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nobody led within the time that a request may wait.
    #[error("the fleet has no leader: {0}")]
    NoLeader(String),
    /// The leader's disk is full, and there is no other leader. It did not happen.
    #[error("there is no room on the leader's disk: the fleet takes no writes until there is some")]
    NoRoom,
    /// This replica is stopping.
    #[error("this director is stopping")]
    Stopping,
    /// The command is larger than an entry may be.
    #[error("the command has {bytes} bytes, an entry may have {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A member of the fleet would not know the command.
    #[error("a member of the fleet is at feature level {level}, and this needs {needed}: update it first")]
    TooOld {
        /// The oldest member's level.
        level: u32,
        /// The command's.
        needed: u32,
    },
    /// This replica can't take it for another reason.
    #[error("the log failed: {0}")]
    Other(String),
}

/// The replicated log as the executor and the service see it.
pub trait CommandLog: Send + Sync {
    /// Has a command committed and applied here; waits (bounded) while there is no leader.
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Committed, LogError>>;
    /// Waits until this replica's state contains everything acknowledged to anybody before the call.
    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, LogError>>;
    /// Returns a look at this replica's state as it is now.
    fn view(&self) -> View;
    /// Returns how far this replica's state is.
    fn revision(&self) -> Revision;
    /// Waits until this replica's state is past `after`, and returns where it is.
    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision>;
}

struct Memory {
    kv: MemoryKv,
    revision: Revision,
    clock: Timestamp,
    waiting: Vec<Waker>,
}

/// A log of one replica in memory. Its clock moves a millisecond with each entry.
pub struct MemoryLog {
    inner: Mutex<Memory>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// Returns an empty log.
    pub fn new() -> Self {
        let clock = Timestamp(1_700_000_000_000);
        Self {
            inner: Mutex::new(Memory {
                kv: MemoryKv::new(),
                revision: Revision(0),
                clock,
                waiting: Vec::new(),
            }),
        }
    }

    /// Applies a command at once.
    pub fn apply(&self, proposal: Proposal) -> Committed {
        let mut inner = self.lock();
        inner.revision = inner.revision.next();
        inner.clock.0 += 1;
        let entry = Entry {
            version: ENTRY_VERSION,
            request_id: proposal.request_id,
            actor: Actor { user: proposal.user, node: model::NodeId(1) },
            proposed_at: inner.clock,
            command: proposal.command,
        };
        let revision = inner.revision;
        let outcome = crate::apply(&mut inner.kv, revision, &entry).outcome;
        inner.waiting.drain(..).for_each(Waker::wake);
        Committed { revision, outcome }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // A test that panicked while it held the lock has already failed; the others may go on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommandLog for MemoryLog {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Committed, LogError>> {
        Box::pin(async move { Ok(self.apply(proposal)) })
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, LogError>> {
        Box::pin(async move { Ok(self.lock().revision) })
    }

    fn view(&self) -> View {
        Arc::new(self.lock().kv.clone())
    }

    fn revision(&self) -> Revision {
        self.lock().revision
    }

    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision> {
        Box::pin(std::future::poll_fn(move |context| {
            let mut inner = self.lock();
            if inner.revision > after {
                return Poll::Ready(inner.revision);
            }
            inner.waiting.push(context.waker().clone());
            Poll::Pending
        }))
    }
}
