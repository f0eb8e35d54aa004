//! The streams that agents opened to this replica, and who waits for what on them.
//!
//! A lock is held for map operations only, never across an await. An agent has at most one stream here: a newer one
//! replaces the older, which then counts as lost. A stream that has been silent for longer than heartbeats leave it is
//! kept for a while, but not trusted: the way to its agent may be cut, and the agent be at another replica by now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::JobState;
use bytes::Bytes;
use model::{AgentId, Epoch, RequestId};
use proto::agent::v1::{CancelRequest, CancelResult, DirectorMessage, Response, director_message};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::wire::{Answer, Call, Cancelled, Sent, Try, answer_in};

/// Messages waiting for one agent's stream. A full queue means that the agent does not read: its stream is given up.
pub(crate) const OUTBOUND_MAX: usize = 64;

/// Callers waiting for agents that have not dialled in; beyond this, entries that nobody waits on any more are swept.
const ARRIVALS_SWEEP: usize = 1024;

type CallKey = (AgentId, RequestId);
type AnswerSender = watch::Sender<Option<(u64, Answer)>>;

/// One agent's stream, as far as others need it.
#[derive(Clone)]
pub(crate) struct Stream {
    pub(crate) outbound: mpsc::Sender<DirectorMessage>,
    /// Cancelled once the stream has ended or a newer one has replaced it.
    pub(crate) lost: CancellationToken,
    generation: u64,
    /// When the agent last said anything on it.
    heard: Arc<Mutex<Instant>>,
    /// Its last heartbeat.
    report: Arc<Mutex<Option<Report>>>,
}

/// What an agent said of itself in a heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) job_state: JobState,
    pub(crate) processes: u32,
    pub(crate) vitals_json: Bytes,
    pub(crate) at: Instant,
}

impl Stream {
    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a report; the one before is forgotten.
    pub(crate) fn keep(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    /// Returns the last report.
    pub(crate) fn report(&self) -> Option<Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Default)]
struct Inner {
    streams: HashMap<AgentId, Stream>,
    calls: HashMap<CallKey, AnswerSender>,
    cancels: HashMap<CallKey, watch::Sender<Option<Cancelled>>>,
    arrivals: HashMap<AgentId, watch::Sender<()>>,
}

impl Inner {
    /// Wakes those who wait for an agent.
    fn arrived(&mut self, agent: &AgentId) {
        if let Some(waiting) = self.arrivals.remove(agent) {
            // Whoever stopped waiting does not matter.
            let _ = waiting.send(());
        }
    }
}

/// See the module's header.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    counter: AtomicU64,
    trusted_for: Duration,
}

impl Registry {
    /// Makes an empty registry. A stream that has been silent for `trusted_for` is not trusted until it is heard again.
    pub(crate) fn new(trusted_for: Duration) -> Self {
        Self { inner: Mutex::default(), counter: AtomicU64::default(), trusted_for }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single map operation: a panic elsewhere leaves the maps whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Enters a new stream, replacing an older one of the same agent.
    pub(crate) fn connect(
        &self,
        agent: &AgentId,
        outbound: mpsc::Sender<DirectorMessage>,
        lost: CancellationToken,
    ) -> Stream {
        let heard = Arc::new(Mutex::new(Instant::now()));
        let report = Arc::default();
        let stream = Stream { outbound, lost, generation: self.next_number(), heard, report };
        let mut inner = self.inner();
        if let Some(older) = inner.streams.insert(agent.clone(), stream.clone()) {
            older.lost.cancel();
        }
        inner.arrived(agent);
        stream
    }

    /// Takes in that a stream's agent has said something.
    pub(crate) fn heard(&self, agent: &AgentId, stream: &Stream) {
        let silent = std::mem::replace(&mut *stream.heard(), Instant::now()).elapsed();
        if silent >= self.trusted_for {
            self.inner().arrived(agent);
        }
    }

    /// Removes a stream. Returns whether it was still the agent's newest one here.
    pub(crate) fn disconnect(&self, agent: &AgentId, stream: &Stream) -> Newest {
        stream.lost.cancel();
        let mut inner = self.inner();
        match inner.streams.get(agent) {
            Some(current) if current.generation == stream.generation => {
                inner.streams.remove(agent);
                Newest::Yes
            }
            _ => Newest::No,
        }
    }

    pub(crate) fn holds(&self, agent: &AgentId) -> bool {
        self.inner().streams.contains_key(agent)
    }

    /// Returns whether the agent's stream is here and the agent has lately been heard on it.
    pub(crate) fn hears(&self, agent: &AgentId) -> bool {
        self.stream(agent).is_some_and(|stream| stream.heard().elapsed() < self.trusted_for)
    }

    pub(crate) fn stream(&self, agent: &AgentId) -> Option<Stream> {
        self.inner().streams.get(agent).cloned()
    }

    pub(crate) fn agents(&self) -> Vec<AgentId> {
        self.inner().streams.keys().cloned().collect()
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.inner().streams.len()
    }

    /// Waits until the agent [is heard](Self::hears) here.
    pub(crate) async fn arrival(&self, agent: &AgentId) {
        let mut arrived = {
            let mut inner = self.inner();
            let stream = inner.streams.get(agent);
            if stream.is_some_and(|stream| stream.heard().elapsed() < self.trusted_for) {
                return;
            }
            if inner.arrivals.len() >= ARRIVALS_SWEEP {
                inner.arrivals.retain(|_, waiting| waiting.receiver_count() > 0);
            }
            inner.arrivals.entry(agent.clone()).or_insert_with(|| watch::channel(()).0).subscribe()
        };
        // An error means that the entry was swept or removed: the caller looks again either way.
        let _ = arrived.changed().await;
    }

    /// Sends a request over the agent's stream and waits for its final answer, until the stream is lost or time is over.
    pub(crate) async fn call(&self, call: &Call, deadline: Instant) -> Try {
        let Some(stream) = self.stream(&call.agent) else { return Try::StreamLost(Sent::No) };
        let key = (call.agent.clone(), call.id.clone());
        let sending = self.next_number();
        let mut waiter = Waiter::new(self, key);
        let message = DirectorMessage { body: Some(director_message::Body::Request(call.to_agent(sending))) };
        tokio::select! {
            sent = stream.outbound.send(message) => if sent.is_err() { return Try::StreamLost(Sent::No) },
            () = stream.lost.cancelled() => return Try::StreamLost(Sent::No),
            () = tokio::time::sleep_until(deadline) => return Try::TimedOut(Sent::No),
        }
        tokio::select! {
            // The answer may have come just before the end of the stream: look for it first.
            biased;
            answer = waiter.answer(sending) => Try::Answered(answer),
            () = stream.lost.cancelled() => Try::StreamLost(Sent::Yes),
            () = tokio::time::sleep_until(deadline) => Try::TimedOut(Sent::Yes),
        }
    }

    /// Hands an agent's response to everybody who waits for it.
    pub(crate) fn resolve(&self, agent: &AgentId, response: Response) {
        let key = (agent.clone(), RequestId::from(response.request_id.clone()));
        let sending = response.sending;
        let Some(answer) = answer_in(response) else { return };
        if let Some(waiting) = self.inner().calls.get(&key) {
            waiting.send_replace(Some((sending, answer)));
        }
    }

    /// Asks the agent to give up a request and waits for its word.
    pub(crate) async fn cancel(
        &self,
        agent: &AgentId,
        request: &RequestId,
        epoch: Epoch,
        deadline: Instant,
    ) -> Cancelled {
        let Some(stream) = self.stream(agent) else { return Cancelled::StreamLost };
        let key = (agent.clone(), request.clone());
        let mut told =
            self.inner().cancels.entry(key.clone()).or_insert_with(|| watch::channel(None).0).subscribe();
        let body =
            director_message::Body::Cancel(CancelRequest { request_id: request.to_string(), epoch: epoch.0 });
        let exchange = async {
            stream.outbound.send(DirectorMessage { body: Some(body) }).await.ok()?;
            let told = told.wait_for(Option::is_some).await.ok()?;
            *told
        };
        let outcome = tokio::select! {
            biased;
            outcome = exchange => outcome.unwrap_or(Cancelled::StreamLost),
            () = stream.lost.cancelled() => Cancelled::StreamLost,
            () = tokio::time::sleep_until(deadline) => Cancelled::StreamLost,
        };
        self.inner().cancels.retain(|_, waiting| waiting.receiver_count() > 0);
        outcome
    }

    /// Hands an agent's word on a cancellation to whoever asked.
    pub(crate) fn cancelled(&self, agent: &AgentId, result: &CancelResult) {
        let key = (agent.clone(), RequestId::from(result.request_id.clone()));
        if let Some(waiting) = self.inner().cancels.remove(&key) {
            waiting.send_replace(Some(Cancelled::from_agent(result)));
        }
    }
}

/// Whether a stream that ended was still its agent's newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newest {
    Yes,
    No,
}

/// Somebody waiting for an answer; the entry goes when the last one has left.
struct Waiter<'a> {
    registry: &'a Registry,
    key: CallKey,
    answers: watch::Receiver<Option<(u64, Answer)>>,
}

impl<'a> Waiter<'a> {
    fn new(registry: &'a Registry, key: CallKey) -> Self {
        let mut inner = registry.inner();
        let mut answers =
            inner.calls.entry(key.clone()).or_insert_with(|| watch::channel(None).0).subscribe();
        // An answer to somebody else's earlier sending is not ours.
        answers.mark_unchanged();
        Self { registry, key, answers }
    }

    async fn answer(&mut self, sending: u64) -> Answer {
        loop {
            if self.answers.changed().await.is_err() {
                // The entry outlives its waiters.
                std::future::pending::<()>().await;
            }
            if let Some((to, answer)) = &*self.answers.borrow_and_update()
                && (*to == 0 || *to == sending)
            {
                return answer.clone();
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut inner = self.registry.inner();
        if inner.calls.get(&self.key).is_some_and(|waiting| waiting.receiver_count() <= 1) {
            inner.calls.remove(&self.key);
        }
    }
}
