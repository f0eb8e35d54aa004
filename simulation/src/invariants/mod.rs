//! What must hold after every step, whatever happens: one invariant per file.
//!
//! The world reports what it sees ([`Event`]); each invariant remembers what it needs and says when it is broken. They see
//! what the replicas do, not what they say of themselves.

mod applied_order;
mod committed;
mod deaths;
mod deeds;
mod election_safety;
mod epochs;
mod holders;
mod locks;
mod log_matching;
mod one_actor;
mod request_once;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CallContext};
use model::{AgentId, Epoch};
use raft::LogRow;
use raft::disk::{Change, DatabaseKind};
use state::State;

use crate::trace::Trace;

/// Something that happened.
pub enum Event<'a> {
    /// A replica says that it leads a term.
    Leads {
        /// Which.
        replica: u64,
        /// Which term.
        term: u64,
    },
    /// A replica wrote to its log.
    LogWritten {
        /// Which.
        replica: u64,
        /// What, in order.
        rows: &'a [LogChange],
    },
    /// A replica starts with what its disk has.
    LogFound {
        /// Which.
        replica: u64,
        /// Every row.
        rows: &'a [LogRow],
    },
    /// A replica applied an entry, perhaps not for the first time.
    Applied {
        /// Which.
        replica: u64,
        /// The entry's position.
        index: u64,
        /// Its term.
        term: u64,
        /// Its bytes.
        entry: &'a [u8],
        /// What the state answered.
        answer: &'a [u8],
    },
    /// The furthest state that there is, after it moved.
    State {
        /// It.
        state: &'a State<'a>,
        /// The last entry in it.
        index: u64,
    },
    /// A replica asks for something to be done in the world.
    Asked {
        /// Which.
        replica: u64,
        /// Under which epoch.
        epoch: Epoch,
        /// For what.
        what: &'a str,
    },
    /// An agent did what it was asked for.
    Obeyed {
        /// Which.
        agent: &'a AgentId,
        /// Under which epoch it was asked.
        epoch: Epoch,
        /// The newest epoch that it had heard of then.
        known: Epoch,
        /// For what.
        what: &'a str,
    },
    /// A replica acknowledges an agent's heartbeat.
    Acknowledged {
        /// Which.
        replica: u64,
        /// Whose.
        agent: &'a AgentId,
    },
    /// Somebody's call is about to be carried out by the cloud.
    Deed {
        /// As it is before that.
        cloud: &'a MemoryCloud,
        /// Whose.
        context: Option<&'a CallContext>,
        /// What.
        call: &'a Call,
    },
    /// The cloud has refused a call: nothing is done, nor will be.
    Refused {
        /// What was asked for.
        call: &'a Call,
    },
}

/// One change of a log.
#[derive(Clone, Debug)]
pub enum LogChange {
    /// An entry is written.
    Put(LogRow),
    /// Entries from the first position up to, without, the second are gone.
    Remove(u64, u64),
}

impl LogChange {
    /// Reads what was written to a log's database; nothing for what is no entry.
    pub fn read(kind: DatabaseKind, changes: &[Change]) -> Vec<Self> {
        if kind != DatabaseKind::Log {
            return Vec::new();
        }
        let index = |key: &[u8]| <[u8; 8]>::try_from(key).map(u64::from_be_bytes).unwrap_or(u64::MAX);
        let entries = changes.iter().filter_map(|change| match change {
            Change::Put("logs", _, value) => LogRow::read(value).ok().map(Self::Put),
            Change::DeleteRange("logs", start, end) => Some(Self::Remove(index(start), index(end))),
            _ => None,
        });
        entries.collect()
    }
}

/// Something that must hold.
trait Invariant: Send {
    /// Returns what it is called.
    fn name(&self) -> &'static str;
    /// Looks at what happened, and says why it must not.
    fn see(&mut self, event: &Event<'_>) -> Result<(), String>;
}

struct Inner {
    invariants: Vec<Box<dyn Invariant>>,
    broken: Vec<String>,
    trace: Trace,
}

/// Sees everything; clones are the same one.
#[derive(Clone)]
pub struct Observer(Arc<Mutex<Inner>>);

impl Observer {
    /// Returns one that has seen nothing yet.
    pub fn new(trace: Trace) -> Self {
        let invariants: Vec<Box<dyn Invariant>> = vec![
            Box::new(election_safety::ElectionSafety::default()),
            Box::new(log_matching::LogMatching::default()),
            Box::new(committed::CommittedIsKept::default()),
            Box::new(applied_order::AppliedOrder::default()),
            Box::new(request_once::RequestOnce::default()),
            Box::new(epochs::OneEpochPerLeader::default()),
            Box::new(holders::OneHolder),
            Box::new(locks::OneTaskPerLock),
            Box::new(deeds::EachDeedOnce::default()),
            Box::new(one_actor::OneActor::default()),
            Box::new(deaths::NoFalseDeath::default()),
        ];
        Self(Arc::new(Mutex::new(Inner { invariants, broken: Vec::new(), trace })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `event` to every invariant.
    pub fn see(&self, event: &Event<'_>) {
        let mut inner = self.lock();
        inner.trace.event(event);
        let Inner { invariants, broken, .. } = &mut *inner;
        for invariant in invariants {
            if let Err(why) = invariant.see(event) {
                broken.push(format!("{}: {why}", invariant.name()));
            }
        }
    }

    /// Notes something that happened in the world, for the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        self.lock().trace.line(line);
    }

    /// Says that something does not hold that only the world itself can see.
    pub fn complain(&self, why: String) {
        self.lock().broken.push(why);
    }

    /// Returns what was broken so far.
    pub fn broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    /// Returns the trace.
    pub fn trace(&self) -> Trace {
        self.lock().trace.clone()
    }
}
