//! Who asked for what, and what came back: the events of some processes in the order in which they were recorded.
//!
//! The order of the events is the truth about time: an operation that is invoked after another one's end was recorded
//! began after it. Times are for people; they come from the caller's clock, which may be a simulated one.
//!
//! A process does one thing at a time. One that does not know how its operation ended is never heard again, because that
//! operation may still take effect; the [`Recorder`] goes on under a new number. That is Jepsen's rule, and with it go
//! Jepsen's four words: invoke, ok, fail (it certainly did not happen), info (nobody knows).
//!
//! Read next: [`Recorder`] for writing one, [`edn`] for giving it to others.

pub mod edn;
mod recorder;

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

pub use recorder::{Open, Process, Recorder};

/// Something that a process can ask for.
pub trait Call: Clone + fmt::Debug + Eq {
    /// What comes back when it happened.
    type Answer: Clone + fmt::Debug + Eq;
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<C: Call> {
    /// Who.
    pub process: u64,
    /// When, on the recorder's clock.
    pub at_us: u64,
    /// What.
    pub what: What<C>,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<C: Call> {
    /// The process asks.
    Invoke(C),
    /// It happened, and this is the answer.
    Ok(C::Answer),
    /// It certainly did not happen, and never will, for this reason.
    Fail(String),
    /// Nobody knows whether it happened or will happen yet, for this reason.
    Unknown(String),
}

/// An operation: an invocation and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<C: Call> {
    /// Who.
    pub process: u64,
    /// What was asked for.
    pub call: C,
    /// The number of the event that began it.
    pub begun: usize,
    /// When it began.
    pub begun_us: u64,
    /// How it ended.
    pub end: End<C::Answer>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<A> {
    /// It happened.
    Ok {
        /// The number of the event that told so.
        event: usize,
        /// When that was.
        at_us: u64,
        /// What came back.
        answer: A,
    },
    /// It did not happen.
    Failed,
    /// Nobody knows, or the record ends before it did.
    Unknown,
}

/// Events that do not make a history.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A process asks before it got its last answer.
    #[error("event {event}: process {process} begins an operation inside another one")]
    Overlap {
        /// The event's number.
        event: usize,
        /// Who.
        process: u64,
    },
    /// A process gets an answer without having asked.
    #[error("event {event}: process {process} ends an operation that it has not begun")]
    NotBegun {
        /// The event's number.
        event: usize,
        /// Who.
        process: u64,
    },
    /// A process goes on although an operation of it may still take effect.
    #[error("event {event}: process {process} goes on after an operation with unknown outcome")]
    Retired {
        /// The event's number.
        event: usize,
        /// Who.
        process: u64,
    },
    /// A process's clock runs backwards.
    #[error("event {event}: the time of process {process} goes back from {before_us} to {at_us} µs")]
    TimeGoesBack {
        /// The event's number.
        event: usize,
        /// Who.
        process: u64,
        /// The process's time before.
        before_us: u64,
        /// The event's time.
        at_us: u64,
    },
}

/// A well-formed sequence of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<C: Call> {
    events: Vec<Event<C>>,
}

impl<C: Call> History<C> {
    /// Takes events in the order in which they happened.
    ///
    /// # Errors
    ///
    /// If a process does two things at once, ends what it has not begun, goes on after an unknown outcome, or its time
    /// goes back.
    pub fn new(events: Vec<Event<C>>) -> Result<Self, Malformed> {
        let mut processes: BTreeMap<u64, (Doing, u64)> = BTreeMap::new();
        for (number, event) in events.iter().enumerate() {
            let (doing, time_us) = processes.entry(event.process).or_insert((Doing::Nothing, 0));
            *doing = doing.next(number, event)?;
            if event.at_us < *time_us {
                let (process, before_us, at_us) = (event.process, *time_us, event.at_us);
                return Err(Malformed::TimeGoesBack { event: number, process, before_us, at_us });
            }
            *time_us = event.at_us;
        }
        Ok(Self { events })
    }

    /// Returns the events.
    pub fn events(&self) -> &[Event<C>] {
        &self.events
    }

    /// Returns the operations, in the order of their beginnings.
    pub fn operations(&self) -> Vec<Operation<C>> {
        let mut operations: Vec<Operation<C>> = Vec::new();
        let mut last: BTreeMap<u64, usize> = BTreeMap::new();
        for (number, event) in self.events.iter().enumerate() {
            let end = match &event.what {
                What::Invoke(call) => {
                    last.insert(event.process, operations.len());
                    operations.push(Operation {
                        process: event.process,
                        call: call.clone(),
                        begun: number,
                        begun_us: event.at_us,
                        end: End::Unknown,
                    });
                    continue;
                }
                What::Ok(answer) => End::Ok { event: number, at_us: event.at_us, answer: answer.clone() },
                What::Fail(_) => End::Failed,
                What::Unknown(_) => End::Unknown,
            };
            if let Some(begun) = last.get(&event.process) {
                operations[*begun].end = end;
            }
        }
        operations
    }
}

/// What a process is doing, as far as its events tell.
#[derive(Clone, Copy)]
enum Doing {
    Nothing,
    Asking,
    Retired,
}

impl Doing {
    fn next<C: Call>(self, number: usize, event: &Event<C>) -> Result<Self, Malformed> {
        let (event_number, process) = (number, event.process);
        match (self, &event.what) {
            (Self::Retired, _) => Err(Malformed::Retired { event: event_number, process }),
            (Self::Nothing, What::Invoke(_)) => Ok(Self::Asking),
            (Self::Asking, What::Invoke(_)) => Err(Malformed::Overlap { event: event_number, process }),
            (Self::Nothing, _) => Err(Malformed::NotBegun { event: event_number, process }),
            (Self::Asking, What::Unknown(_)) => Ok(Self::Retired),
            (Self::Asking, What::Ok(_) | What::Fail(_)) => Ok(Self::Nothing),
        }
    }
}

#[cfg(test)]
mod tests;
