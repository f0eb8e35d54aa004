//! Proposals and linearizable reads, from any replica: carried to the leader, held while there is none.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, LinearizableReadError, RaftError};
use proto::peer::v1 as wire;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status};

use crate::MAX_ENTRY_BYTES;
use crate::error::{ProposeError, ReadError};
use crate::node::Node;
use crate::peers::Reached;
use crate::type_config::EntryBytes;

/// Pause before the next attempt, unless a new leader shows up earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// An entry that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its position in the log.
    pub index: u64,
    /// What the application answered.
    pub answer: Vec<u8>,
}

/// Why this very replica did not do what only a leader can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalError {
    /// It does not lead; nothing happened.
    NotLeader,
    /// It led when it began; the outcome is open.
    Unknown,
    /// The entry is too long.
    TooLarge(usize),
    /// It has stopped.
    Stopped,
}

/// Why one attempt at one leader failed.
enum Attempt {
    /// Surely nothing happened there.
    NotDone,
    /// Something may have happened there.
    Unknown,
    /// This replica has stopped.
    Stopped,
}

/// The leader that an attempt is made at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    id: u64,
    term: u64,
    address: String,
}

impl Node {
    /// Has `entry` committed and applied, and returns the application's answer; through whichever replica leads.
    ///
    /// While there is no leader it waits, never longer than `timeout`. When a leader is lost after it was given the entry,
    /// nobody can know whether it will be committed; the entry is then proposed again. So the same bytes may be committed
    /// twice: the application must recognize them by a request id that they contain, and answer as the first time.
    pub async fn propose(&self, entry: Vec<u8>, timeout: Duration) -> Result<Proposed, ProposeError> {
        if entry.len() > MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge { bytes: entry.len() });
        }
        let (entry, deadline) = (Bytes::from(entry), Instant::now() + timeout);
        // Whether a leader may have taken it.
        let taken = AtomicBool::new(false);
        let attempts = self.at_leader(&taken, |target| self.propose_at(target, entry.clone(), deadline));
        match timeout_at(deadline, attempts).await {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(ProposeError::Stopped),
            Err(_) if taken.load(Ordering::Relaxed) => Err(ProposeError::Unknown(timeout)),
            Err(_) => Err(ProposeError::NoLeader(timeout)),
        }
    }

    /// Waits until the local state contains everything that was confirmed to anybody before this call began; returns
    /// the index up to which it does. A [`view`](Node::view) taken afterwards is a linearizable read.
    ///
    /// The leader confirms by a round of heartbeats that it still leads; no log entry is written.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<u64, ReadError> {
        let deadline = Instant::now() + timeout;
        let taken = AtomicBool::new(false);
        let attempts = self.at_leader(&taken, |target| self.read_index_at(target, deadline));
        let late = |_| ReadError::Timeout(timeout);
        let index = timeout_at(deadline, attempts).await.map_err(late)?.ok_or(ReadError::Stopped)?;
        let mut applied = self.watch_applied();
        let reached =
            timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await.map_err(late)?;
        Ok(*reached.map_err(|_| ReadError::Stopped)?)
    }

    /// Makes attempts at the leader, one after the other, until one succeeds; `None` once this replica has stopped.
    async fn at_leader<T, F>(&self, taken: &AtomicBool, attempt: impl Fn(Target) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Attempt>>,
    {
        loop {
            let target = tokio::select! {
                target = self.leader() => target?,
                () = self.inner.stopping.cancelled() => return None,
            };
            let before = taken.swap(true, Ordering::Relaxed);
            let outcome = tokio::select! {
                biased;
                outcome = attempt(target.clone()) => outcome,
                // It lost its office: its answer may never come.
                () = self.leader_is_not(&target) => Err(Attempt::Unknown),
            };
            match outcome {
                Ok(done) => return Some(done),
                Err(Attempt::Stopped) => return None,
                Err(Attempt::NotDone) => taken.store(before, Ordering::Relaxed),
                Err(Attempt::Unknown) => {}
            }
            tokio::select! {
                () = self.leader_is_not(&target) => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Waits until there is a leader; `None` once the engine has stopped.
    async fn leader(&self) -> Option<Target> {
        let mut metrics = self.metrics();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                metrics.running_state.as_ref().ok()?;
                if let Some(id) = metrics.current_leader
                    && let Some(node) = metrics.membership_config.get_node(&id)
                {
                    return Some(Target { id, term: metrics.current_term, address: node.addr.clone() });
                }
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Waits until `target` is no longer the leader, or the engine has stopped.
    async fn leader_is_not(&self, target: &Target) {
        let mut metrics = self.metrics();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                let same = metrics.current_leader == Some(target.id) && metrics.current_term == target.term;
                if !same || metrics.running_state.is_err() {
                    return;
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    async fn propose_at(&self, target: Target, entry: Bytes, deadline: Instant) -> Result<Proposed, Attempt> {
        if target.id == self.inner.node_id {
            return Ok(self.propose_here(entry).await?);
        }
        let timeout_ms = left_ms(deadline);
        let mut client = self.forward_to(&target)?;
        let answer = client.propose(bounded(wire::ProposeRequest { entry, timeout_ms }, timeout_ms)).await;
        let answer = self.noted(&target, answer)?;
        Ok(Proposed { index: answer.index, answer: answer.answer.into() })
    }

    async fn read_index_at(&self, target: Target, deadline: Instant) -> Result<u64, Attempt> {
        if target.id == self.inner.node_id {
            return Ok(self.read_index_here().await?);
        }
        let timeout_ms = left_ms(deadline);
        let mut client = self.forward_to(&target)?;
        let answer = client.read_index(bounded(wire::ReadIndexRequest { timeout_ms }, timeout_ms)).await;
        Ok(self.noted(&target, answer)?.index)
    }

    fn forward_to(
        &self,
        target: &Target,
    ) -> Result<wire::forward_client::ForwardClient<tonic::transport::Channel>, Attempt> {
        if !self.inner.gate.pass(target.id) {
            return Err(Attempt::NotDone);
        }
        self.inner.peers.forward(target.id, &target.address).map_err(|error| {
            tracing::warn!(node = self.inner.node_id, %error, "cannot reach the leader");
            Attempt::NotDone
        })
    }

    /// Tells failures of the connection from answers.
    fn noted<T>(&self, target: &Target, answer: Result<tonic::Response<T>, Status>) -> Result<T, Attempt> {
        let dialled_in_vain = matches!(&answer, Err(status) if never_connected(status));
        let unreached = matches!(&answer, Err(status) if !is_answer(status));
        self.inner.gate.reached(target.id, if unreached { Reached::No } else { Reached::Yes });
        answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            Code::FailedPrecondition => Attempt::NotDone,
            _ if dialled_in_vain => Attempt::NotDone,
            _ => Attempt::Unknown,
        })
    }

    /// Proposes `entry` if this very replica leads.
    pub(crate) async fn propose_here(&self, entry: Bytes) -> Result<Proposed, LocalError> {
        if entry.len() > MAX_ENTRY_BYTES {
            return Err(LocalError::TooLarge(entry.len()));
        }
        match self.inner.engine.client_write(EntryBytes(entry)).await {
            Ok(done) => Ok(Proposed { index: done.log_id.index, answer: done.data.0 }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(LocalError::NotLeader),
            Err(RaftError::APIError(_)) => Err(LocalError::Unknown),
            Err(RaftError::Fatal(_)) => Err(LocalError::Stopped),
        }
    }

    /// Confirms that this very replica leads, and returns the index that a linearizable read must have applied.
    pub(crate) async fn read_index_here(&self) -> Result<u64, LocalError> {
        match self.inner.engine.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            )) => Err(LocalError::NotLeader),
            Err(RaftError::Fatal(_)) => Err(LocalError::Stopped),
        }
    }
}

impl From<LocalError> for Attempt {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::NotLeader => Self::NotDone,
            LocalError::Stopped => Self::Stopped,
            LocalError::Unknown | LocalError::TooLarge(_) => Self::Unknown,
        }
    }
}

/// Returns whether a failure is what the leader said, and not how the connection to it broke.
fn is_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::Aborted | Code::DeadlineExceeded | Code::InvalidArgument
    )
}

/// Returns whether the call failed before there was a connection: then surely nothing was proposed.
fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn left_ms(deadline: Instant) -> u32 {
    u32::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u32::MAX)
}

fn bounded<T>(message: T, timeout_ms: u32) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(timeout_ms.into()));
    request
}
