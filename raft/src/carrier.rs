//! Carries entries to the leader: those that wait together travel together.
//!
//! A call for each entry costs more than the entry does, once many clients write through a follower. So entries are
//! taken from a queue whenever one of a few calls is free: a lone one goes at once, and the more there are, the
//! larger the calls become by themselves.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use proto::peer::v1 as wire;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::propose_response::{Refusal, outcome};

use crate::leader::Leader;
use crate::propose::{Attempt, LocalError, Proposed};

/// Entries that may wait; more callers than that wait for room.
const QUEUE_MAX: usize = 4096;

/// Calls under way at once. More than one, so that an entry need not wait for the one before it to be committed; few, so
/// that entries meet in the queue.
const CALLS_MAX: usize = 4;

/// Entries in one call...
const CALL_ENTRIES_MAX: usize = 256;
/// ... and their bytes, before the last one.
const CALL_BYTES_MAX: usize = 1 << 20;

/// An entry on its way.
pub(crate) struct Parcel {
    /// Whom it is for.
    pub(crate) leader: Leader,
    /// What it is.
    pub(crate) entry: Bytes,
    /// When its sender gives up.
    pub(crate) deadline: Instant,
    /// Where the outcome goes. Closed: nobody waits any more.
    pub(crate) answer: oneshot::Sender<Result<Proposed, Attempt>>,
}

/// The way to the leader; clones are the same one.
#[derive(Clone)]
pub(crate) struct Carrier {
    queue: mpsc::Sender<Parcel>,
}

/// Makes the calls.
pub(crate) trait Calls: Send + Sync + 'static {
    /// Sends entries to `leader`.
    fn propose(
        &self,
        leader: &Leader,
        request: wire::ProposeRequest,
    ) -> impl Future<Output = Result<wire::ProposeResponse, Attempt>> + Send;
}

impl Carrier {
    /// Makes the way, and what has to run for it.
    pub(crate) fn new() -> (Self, Deliveries) {
        let (queue, parcels) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, Deliveries { parcels, next: None })
    }

    /// Has `entry` proposed by `leader`.
    pub(crate) async fn carry(
        &self,
        leader: Leader,
        entry: Bytes,
        deadline: Instant,
    ) -> Result<Proposed, Attempt> {
        let (answer, outcome) = oneshot::channel();
        let parcel = Parcel { leader, entry, deadline, answer };
        self.queue.send(parcel).await.map_err(|_| Attempt::Stopped)?;
        outcome.await.unwrap_or(Err(Attempt::Unknown))
    }
}

/// The other end of the queue.
pub(crate) struct Deliveries {
    parcels: mpsc::Receiver<Parcel>,
    /// Taken out of the queue, and for another leader than those before it.
    next: Option<Parcel>,
}

impl Deliveries {
    /// Delivers until nobody can send any more, or until `stop`.
    pub(crate) async fn run(mut self, calls: impl Calls, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                load = self.load(), if under_way.len() < CALLS_MAX => match load {
                    Some(load) => under_way.push(deliver(&calls, load)),
                    None => return,
                },
                Some(()) = under_way.next() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits for a parcel and returns it with all that go the same way. Safe to cancel: it takes only after it waited.
    async fn load(&mut self) -> Option<Vec<Parcel>> {
        if self.next.is_none() {
            self.next = Some(self.parcels.recv().await?);
        }
        let mut load: Vec<Parcel> = self.next.take().into_iter().collect();
        let mut bytes = load[0].entry.len();
        while load.len() < CALL_ENTRIES_MAX && bytes < CALL_BYTES_MAX {
            let Ok(parcel) = self.parcels.try_recv() else { break };
            if parcel.leader != load[0].leader {
                self.next = Some(parcel);
                break;
            }
            bytes += parcel.entry.len();
            load.push(parcel);
        }
        Some(load)
    }
}

async fn deliver(calls: &impl Calls, mut load: Vec<Parcel>) {
    // Whoever gave up has asked another leader meanwhile, or told its caller that nobody knows.
    load.retain(|parcel| !parcel.answer.is_closed());
    let Some(latest) = load.iter().map(|parcel| parcel.deadline).max() else { return };
    let timeout = latest.saturating_duration_since(Instant::now());
    let entries = load.iter().map(|parcel| parcel.entry.clone()).collect();
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let answered = calls.propose(&load[0].leader, wire::ProposeRequest { entries, timeout_ms }).await;
    let mut outcomes = match answered {
        Ok(response) => response.outcomes.into_iter(),
        Err(attempt) => {
            load.into_iter().for_each(|parcel| drop(parcel.answer.send(Err(attempt))));
            return;
        }
    };
    for parcel in load {
        // A leader that answers for less than it was given has not understood us.
        let outcome = outcomes.next().map_or(Err(Attempt::Unknown), outcome_in);
        // Whoever asked may have given up meanwhile.
        drop(parcel.answer.send(outcome));
    }
}

/// What the leader says of one entry.
pub(crate) fn outcome_out(outcome: Result<Proposed, LocalError>) -> wire::propose_response::Outcome {
    let outcome = match outcome {
        Ok(done) => outcome::Outcome::Proposed(wire::propose_response::Proposed {
            index: done.index,
            answer: done.answer.into(),
        }),
        Err(error) => {
            let refusal = match error {
                LocalError::NotLeader => Refusal::NotLeader,
                LocalError::NoRoom => Refusal::NoRoom,
                LocalError::Unknown => Refusal::Unknown,
                LocalError::TooLarge(_) => Refusal::TooLarge,
                LocalError::Stopped => Refusal::Stopped,
            };
            outcome::Outcome::Refusal(refusal.into())
        }
    };
    wire::propose_response::Outcome { outcome: Some(outcome) }
}

fn outcome_in(outcome: wire::propose_response::Outcome) -> Result<Proposed, Attempt> {
    match outcome.outcome {
        Some(outcome::Outcome::Proposed(done)) => {
            Ok(Proposed { index: done.index, answer: done.answer.into() })
        }
        // What has stopped there was perhaps already accepted; only this answer says that it was not.
        Some(outcome::Outcome::Refusal(refusal)) if refusal == Refusal::NotLeader as i32 => {
            Err(Attempt::NotDone)
        }
        Some(outcome::Outcome::Refusal(refusal)) if refusal == Refusal::NoRoom as i32 => Err(Attempt::NoRoom),
        _ => Err(Attempt::Unknown),
    }
}

#[cfg(test)]
#[path = "carrier_tests.rs"]
mod tests;
