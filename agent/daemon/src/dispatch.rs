//! Requests: fenced by epoch, done once per id, run side by side, answered over whichever stream is there.
//!
//! Invariant: a request is in `running`, or in the journal, or unknown; it moves under one lock, so that a repeat that
//! comes at any moment finds it in exactly one place.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::Mode;
use agent_api::admission::{self, Known, Stale};
use futures::FutureExt as _;
use model::{Epoch, RequestId};
use owned_tasks::{OnExit, OwnedTasks};
use proto::agent::v1::agent_fault::Kind;
use proto::agent::v1::cancel_result::Outcome;
use proto::agent::v1::response::Result as Body;
use proto::agent::v1::{
    AgentFault, AgentMessage, AgentRequest, CancelRequest, CancelResult, Response, Running, agent_message,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::error::ActionError;
use crate::journal::{Changes, Ending, Journal, Recorded};
use crate::layout::Layout;
use crate::locks::Locks;
use crate::machine::{Machine, Order, Work};
use crate::method::{Keep, Method};
use crate::storage::Storage;

/// How often those who wait hear that a request is still running; the protocol promises 15 s.
const RUNNING_EVERY: Duration = Duration::from_secs(5);

/// Requests under way at once; a director never has more than a few per agent.
const RUNNING_MAX: usize = 64;

/// How many ids a hello names.
const KNOWN_REQUESTS_MAX: usize = 64;

struct Inner {
    epoch: Epoch,
    running: HashMap<RequestId, Arc<Work>>,
    journal: Journal,
}

/// See the module's header.
pub(crate) struct Dispatcher {
    inner: Mutex<Inner>,
    storage: Storage,
    locks: Locks,
    machine: Arc<dyn Machine>,
    tasks: OwnedTasks,
    outbound: Mutex<Option<mpsc::Sender<AgentMessage>>>,
}

/// Where a request stands when it arrives.
enum Standing {
    Refused(AgentFault),
    Running(Arc<Work>),
    Ended(Ending),
    New(Arc<Work>, Changes),
}

impl Dispatcher {
    /// Reads the epoch and the journal that earlier lives of the agent left.
    pub(crate) fn open(
        storage: Storage,
        machine: Arc<dyn Machine>,
        tasks: OwnedTasks,
    ) -> std::io::Result<Arc<Self>> {
        let epoch = Epoch(storage.read::<u64>(Layout::epoch)?.unwrap_or_default());
        let journal = Journal::open(&storage)?;
        let inner = Mutex::new(Inner { epoch, running: HashMap::new(), journal });
        let (locks, outbound) = (Locks::default(), Mutex::new(None));
        Ok(Arc::new(Self { inner, storage, locks, machine, tasks, outbound }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the highest epoch heard of.
    pub(crate) fn epoch(&self) -> Epoch {
        self.inner().epoch
    }

    /// Returns the ids of requests under way or recorded, newest last.
    pub(crate) fn known_requests(&self) -> Vec<RequestId> {
        let inner = self.inner();
        let mut known = inner.journal.newest(KNOWN_REQUESTS_MAX.saturating_sub(inner.running.len()));
        known.extend(inner.running.keys().cloned());
        known
    }

    /// Sends answers over this stream from now on; `None` while there is none.
    pub(crate) fn answer_over(&self, outbound: Option<mpsc::Sender<AgentMessage>>) {
        *self.outbound.lock().unwrap_or_else(PoisonError::into_inner) = outbound;
    }

    /// Learns an epoch, or says that a newer one is known. It is on disk before anything is done under it.
    pub(crate) async fn learn_epoch(&self, heard: Epoch) -> std::io::Result<Result<Epoch, Stale>> {
        let known = self.epoch();
        let learned = match admission::admit(known, heard) {
            Ok(learned) => learned,
            Err(stale) => return Ok(Err(stale)),
        };
        if learned > known {
            self.storage.write(Layout::epoch, &learned.0).await?;
        }
        let mut inner = self.inner();
        // Another one may have been learned while this one was written.
        let admitted = admission::admit(inner.epoch, learned);
        if let Ok(newest) = admitted {
            inner.epoch = newest;
        }
        Ok(admitted)
    }

    /// Takes a request in. Returns once it is decided what becomes of it; the work itself goes on in a task.
    pub(crate) async fn take(self: &Arc<Self>, request: AgentRequest) {
        let (id, sending) = (RequestId::from(request.request_id.clone()), request.sending);
        match self.learn_epoch(Epoch(request.epoch)).await {
            Ok(Err(Stale { current })) => {
                return self.send(&id, sending, Body::Fault(stale(current))).await;
            }
            Ok(Ok(_)) => {}
            Err(error) => {
                warn!(error = %error, "the epoch can't be written");
                let fault = failed(format!("the agent can't write its epoch: {error}"));
                return self.send(&id, sending, Body::Fault(fault)).await;
            }
        }
        match self.standing(&id, &request) {
            Standing::Refused(fault) => self.send(&id, sending, Body::Fault(fault)).await,
            Standing::Ended(ending) => {
                debug!(request_id = %id, method = request.method, "a repeated request is answered from the record");
                self.send(&id, 0, body(ending)).await;
            }
            Standing::Running(work) => {
                debug!(request_id = %id, method = request.method, "a repeated request is attached");
                self.send(&id, 0, Body::Running(Running { output: work.progress.take() })).await;
            }
            Standing::New(work, changes) => {
                let this = self.clone();
                self.tasks
                    .spawn("request", OnExit::Ignore, |stop| this.run(id, request, work, changes, stop));
            }
        }
    }

    /// Decides, and enters a new request as running, in one go.
    fn standing(&self, id: &RequestId, request: &AgentRequest) -> Standing {
        let mut inner = self.inner();
        let known = match (inner.running.get(id), inner.journal.find(id)) {
            (Some(work), _) => Known::Running(work.clone()),
            (None, Recorded::Ended(ending)) => Known::Ended(ending),
            (None, Recorded::Interrupted) => Known::Interrupted,
            (None, Recorded::Unknown) => Known::Nothing,
        };
        let mode = if request.attach_only { Mode::Attach } else { Mode::Submit };
        match admission::standing(known, mode) {
            admission::Standing::New => {}
            admission::Standing::Running(work) => return Standing::Running(work),
            admission::Standing::Ended(ending) => return Standing::Ended(ending),
            admission::Standing::Interrupted => {
                return Standing::Refused(failed(
                    "the agent was restarted while this ran: it may be done, in part or not at all".into(),
                ));
            }
            admission::Standing::Unknown => {
                return Standing::Refused(fault(Kind::UnknownRequest, String::new()));
            }
        }
        if inner.running.len() >= RUNNING_MAX {
            return Standing::Refused(failed(format!("{RUNNING_MAX} requests are already under way")));
        }
        let work = Arc::new(Work::default());
        let changes = match Method::named(&request.method).map(Method::keep) {
            Some(Keep::BeginningAndResult) => inner.journal.begin(id, &request.method),
            _ => Changes::default(),
        };
        inner.running.insert(id.clone(), work.clone());
        Standing::New(work, changes)
    }

    async fn run(
        self: Arc<Self>,
        id: RequestId,
        request: AgentRequest,
        work: Arc<Work>,
        beginning: Changes,
        stop: CancellationToken,
    ) {
        let name = request.method.clone();
        info!(request_id = %id, method = name, epoch = request.epoch, "request begins");
        // A defect must not leave the request under way for ever: whoever waits would hear so until it gives up.
        let mut perform = Box::pin(AssertUnwindSafe(self.perform(request, &work, beginning)).catch_unwind());
        let mut ticks = tokio::time::interval(RUNNING_EVERY);
        ticks.tick().await;
        let ending = loop {
            tokio::select! {
                ending = &mut perform => break ending.unwrap_or_else(|_| {
                    Ending::Failed("the agent met a defect of its own, see its log".into())
                }),
                _ = ticks.tick() => {
                    self.send(&id, 0, Body::Running(Running { output: work.progress.take() })).await;
                }
                // The agent ends: what can be taken up again is not recorded, so that it will be.
                () = stop.cancelled() => return,
            }
        };
        drop(perform);
        info!(request_id = %id, method = name, ended = ending_word(&ending), "request ends");
        let did = Method::named(&name).filter(|_| matches!(ending, Ending::Value(_)));
        self.finish(&id, &name, ending.clone()).await;
        self.send(&id, 0, body(ending)).await;
        if let Some(method) = did {
            self.machine.answered(method);
        }
    }

    async fn perform(&self, request: AgentRequest, work: &Work, beginning: Changes) -> Ending {
        if let Err(error) = carried_out(beginning).await {
            return Ending::Failed(format!("the agent can't record the request: {error}"));
        }
        let Some(method) = Method::named(&request.method) else { return Ending::UnknownMethod };
        let Ok(arguments) = serde_json::from_slice::<Vec<Value>>(&request.arguments_json) else {
            return Ending::Failed("the arguments are not a JSON array".into());
        };
        let order = Order { method, arguments, content: request.content };
        let _held = tokio::select! {
            held = self.locks.take(method) => held,
            // Nothing has been done yet: any method can be given up here.
            () = work.cancel.cancelled() => return Ending::Cancelled,
        };
        match self.machine.perform(order, work).await {
            Ok(value) => Ending::Value(value),
            Err(ActionError::Cancelled) => Ending::Cancelled,
            Err(ActionError::UnknownMethod(_)) => Ending::UnknownMethod,
            Err(error) => Ending::Failed(error.chain()),
        }
    }

    /// Moves a request from `running` to the journal. The record is on disk before anybody hears of the result.
    async fn finish(&self, id: &RequestId, method: &str, ending: Ending) {
        let kept = Method::named(method).is_some_and(|method| method.keep() != Keep::Nothing);
        let changes = if kept { self.inner().journal.end(id, method, ending) } else { Changes::default() };
        if let Err(error) = carried_out(changes).await {
            // In memory it is recorded; only a restart of the agent would do the deed again.
            warn!(request_id = %id, error = %error, "the result of a request can't be recorded");
        }
        self.inner().running.remove(id);
    }

    /// Asks a request to end, as far as its method can.
    pub(crate) async fn cancel(&self, request: CancelRequest) {
        let (outcome, current_epoch) = match self.learn_epoch(Epoch(request.epoch)).await {
            Ok(Err(Stale { current })) => (Outcome::RefusedEpoch, current.0),
            _ => (self.cancel_running(&request.request_id.clone().into()), 0),
        };
        let result = CancelResult { request_id: request.request_id, outcome: outcome.into(), current_epoch };
        self.send_message(agent_message::Body::CancelResult(result)).await;
    }

    fn cancel_running(&self, id: &RequestId) -> Outcome {
        match self.inner().running.get(id) {
            None => Outcome::NotRunning,
            Some(work) => {
                info!(request_id = %id, "request is to be cancelled");
                // Actions that can't stop half-way do not look at this once they have begun.
                work.cancel.cancel();
                Outcome::WasRunning
            }
        }
    }

    async fn send(&self, id: &RequestId, sending: u64, body: Body) {
        let response = Response { request_id: id.to_string(), result: Some(body), sending };
        self.send_message(agent_message::Body::Response(response)).await;
    }

    async fn send_message(&self, body: agent_message::Body) {
        let outbound = self.outbound.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(outbound) = outbound {
            // A stream that is gone loses nothing: whoever waits sends the same id over the next one.
            let _ = outbound.send(AgentMessage { body: Some(body) }).await;
        }
    }
}

async fn carried_out(changes: Changes) -> std::io::Result<()> {
    tokio::task::spawn_blocking(|| changes.carry_out())
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("writing a record panicked")))
}

fn body(ending: Ending) -> Body {
    match ending {
        Ending::Value(value) => Body::Value(value.to_string().into()),
        Ending::Failed(message) => Body::Fault(failed(message)),
        Ending::Cancelled => Body::Fault(fault(Kind::Cancelled, String::new())),
        Ending::UnknownMethod => Body::Fault(fault(Kind::UnknownMethod, String::new())),
    }
}

fn ending_word(ending: &Ending) -> &'static str {
    match ending {
        Ending::Value(_) => "well",
        Ending::Failed(_) => "failed",
        Ending::Cancelled => "cancelled",
        Ending::UnknownMethod => "unknown method",
    }
}

fn fault(kind: Kind, message: String) -> AgentFault {
    AgentFault { kind: kind.into(), message, current_epoch: 0 }
}

fn failed(message: String) -> AgentFault {
    fault(Kind::Failed, message)
}

fn stale(current: Epoch) -> AgentFault {
    AgentFault { kind: Kind::StaleEpoch.into(), message: String::new(), current_epoch: current.0 }
}

#[cfg(test)]
mod tests {
    use agent_api::JobState;
    use async_trait::async_trait;
    use tokio::sync::watch;

    use super::*;
    use crate::machine::Report;

    /// A machine that meets a defect whatever it is asked to do.
    struct Defective;

    #[async_trait]
    impl Machine for Defective {
        async fn boot(&self) -> Result<(), ActionError> {
            Ok(())
        }

        async fn perform(&self, _order: Order, _work: &Work) -> Result<Value, ActionError> {
            panic!("the test says so")
        }

        async fn report(&self) -> Report {
            Report { job_state: JobState::Running, vitals: Value::Null, processes: 0 }
        }

        fn changes(&self) -> watch::Receiver<u64> {
            watch::channel(0).1
        }
    }

    #[tokio::test]
    async fn a_request_that_meets_a_defect_ends_and_is_answered() {
        let tasks = OwnedTasks::new();
        let dispatcher = Dispatcher::open(Storage::Memory, Arc::new(Defective), tasks.clone()).unwrap();
        let (outbound, mut answers) = mpsc::channel(8);
        dispatcher.answer_over(Some(outbound));
        let request = AgentRequest {
            request_id: "start".into(),
            epoch: 1,
            method: "start".into(),
            arguments_json: "[]".into(),
            ..AgentRequest::default()
        };
        // The second time it is answered from the record: the deed may be half done.
        for _ in 0..2 {
            dispatcher.take(request.clone()).await;
            let answer = tokio::time::timeout(Duration::from_secs(10), answers.recv()).await;
            let Some(agent_message::Body::Response(response)) = answer.unwrap().unwrap().body else {
                panic!("no response");
            };
            let Some(Body::Fault(fault)) = response.result else { panic!("{response:?}") };
            assert!(fault.message.contains("a defect of its own"), "{}", fault.message);
        }
        assert!(dispatcher.inner().running.is_empty());
        tasks.stop(Duration::from_secs(10)).await;
    }
}
