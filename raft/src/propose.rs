//! Proposals and linearizable reads, from any replica: carried to the leader, held while there is none.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use openraft::ReadPolicy;
use openraft::error::{ClientWriteError, LinearizableReadError, RaftError};
use proto::peer::v1 as wire;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use crate::carrier::Calls;
use crate::connector::Purpose;
use crate::error::{ProposeError, ReadError};
use crate::leader::Leader;
use crate::node::Node;
use crate::peer::Peer;
use crate::peers::{Gate, Peers, Reached};
use crate::type_config::EntryBytes;
use crate::{MAX_ENTRY_BYTES, Room};

/// How long a leader without room may take to hand over to one that has some.
const NO_ROOM_PATIENCE: Duration = Duration::from_secs(3);

/// The leader has no room, and goes on leading.
pub(crate) struct NoRoom;

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
    /// There is no room on its disk; nothing happened.
    NoRoom,
    /// The entry is too long.
    TooLarge(usize),
    /// It has stopped.
    Stopped,
}

/// Why one attempt at one leader failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Surely nothing happened there.
    NotDone,
    /// Surely nothing happened there: it has no room on its disk.
    NoRoom,
    /// Something may have happened there.
    Unknown,
    /// This replica has stopped.
    Stopped,
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
            Ok(Some(Ok(done))) => Ok(done),
            Ok(Some(Err(NoRoom))) => Err(ProposeError::NoRoom),
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
        // A read needs no room.
        let index = index.map_err(|NoRoom| ReadError::Stopped)?;
        let mut applied = self.watch_applied();
        let reached =
            timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await.map_err(late)?;
        Ok(*reached.map_err(|_| ReadError::Stopped)?)
    }

    /// Makes attempts at the leader, one after the other, until one succeeds; `None` once this replica has stopped.
    async fn at_leader<T, F>(
        &self,
        taken: &AtomicBool,
        attempt: impl Fn(Leader) -> F,
    ) -> Option<Result<T, NoRoom>>
    where
        F: Future<Output = Result<T, Attempt>>,
    {
        let leaders = &self.inner.leaders;
        let mut full_since = None;
        loop {
            let target = tokio::select! {
                target = leaders.leader() => target?,
                () = self.inner.stopping.cancelled() => return None,
            };
            let before = taken.swap(true, Ordering::Relaxed);
            let outcome = tokio::select! {
                biased;
                outcome = attempt(target.clone()) => outcome,
                // It lost its office: its answer may never come.
                () = leaders.is_not(&target) => Err(Attempt::Unknown),
            };
            match outcome {
                Ok(done) => return Some(Ok(done)),
                Err(Attempt::Stopped) => return None,
                Err(Attempt::NotDone) => taken.store(before, Ordering::Relaxed),
                Err(Attempt::NoRoom) => {
                    taken.store(before, Ordering::Relaxed);
                    // It hands over, if there is anybody who has room; that is worth a moment, and no more. If an
                    // earlier leader may have taken the entry, nobody can say that it was not.
                    let since = *full_since.get_or_insert_with(Instant::now);
                    if !before && since.elapsed() > NO_ROOM_PATIENCE {
                        return Some(Err(NoRoom));
                    }
                }
                Err(Attempt::Unknown) => {}
            }
            tokio::select! {
                () = leaders.is_not(&target) => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    async fn propose_at(&self, target: Leader, entry: Bytes, deadline: Instant) -> Result<Proposed, Attempt> {
        if target.id == self.inner.node_id {
            return Ok(self.propose_here(entry).await?);
        }
        self.inner.carrier.carry(target, entry, deadline).await
    }

    async fn read_index_at(&self, target: Leader, deadline: Instant) -> Result<u64, Attempt> {
        if target.id == self.inner.node_id {
            return Ok(self.read_index_here().await?);
        }
        let timeout_ms = left_ms(deadline);
        let peer = self.inner.road.to(&target)?;
        let answer = peer.read_index(wire::ReadIndexRequest { timeout_ms }).await;
        Ok(self.inner.road.noted(&target, answer)?.index)
    }

    /// Proposes `entry` if this very replica leads.
    pub(crate) async fn propose_here(&self, entry: Bytes) -> Result<Proposed, LocalError> {
        if entry.len() > MAX_ENTRY_BYTES {
            return Err(LocalError::TooLarge(entry.len()));
        }
        if self.inner.room.room() != Room::Ample {
            return Err(LocalError::NoRoom);
        }
        match self.inner.engine.client_write(EntryBytes(entry)).await {
            Ok(done) => Ok(Proposed { index: done.log_id.index, answer: done.data.0 }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(LocalError::NotLeader),
            Err(RaftError::APIError(_)) => Err(LocalError::Unknown),
            Err(RaftError::Fatal(_)) => Err(LocalError::Stopped),
        }
    }

    /// Proposes `entries`, in order, if this very replica leads; returns the outcome of each.
    pub(crate) async fn propose_all_here(&self, entries: Vec<Bytes>) -> Vec<Result<Proposed, LocalError>> {
        let count = entries.len();
        if entries.iter().any(|entry| entry.len() > MAX_ENTRY_BYTES) {
            // Whoever sends them checks before; nobody else gets here.
            return entries.iter().map(|entry| Err(LocalError::TooLarge(entry.len()))).collect();
        }
        if self.inner.room.room() != Room::Ample {
            return vec![Err(LocalError::NoRoom); count];
        }
        let Ok(mut results) = self.inner.engine.client_write_many(entries.into_iter().map(EntryBytes)).await
        else {
            return vec![Err(LocalError::Stopped); count];
        };
        let mut outcomes = Vec::with_capacity(count);
        while outcomes.len() < count {
            outcomes.push(match results.next().await {
                Some(Ok(Ok(done))) => Ok(Proposed { index: done.log_id.index, answer: done.response.0 }),
                Some(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Err(LocalError::NotLeader),
                Some(Ok(Err(_))) => Err(LocalError::Unknown),
                Some(Err(_)) | None => Err(LocalError::Stopped),
            });
        }
        outcomes
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

/// The way to other replicas, for what is carried to the leader.
#[derive(Clone)]
pub(crate) struct Road {
    pub(crate) peers: Arc<Peers>,
    pub(crate) gate: Arc<Gate>,
}

impl Road {
    fn to(&self, leader: &Leader) -> Result<Arc<dyn Peer>, Attempt> {
        if !self.gate.pass(leader.id) {
            return Err(Attempt::NotDone);
        }
        self.peers.get(leader.id, &leader.address, Purpose::Forward).map_err(|error| {
            tracing::warn!(leader = leader.id, %error, "cannot reach the leader");
            Attempt::NotDone
        })
    }

    /// Tells failures of the connection from answers.
    fn noted<T>(&self, leader: &Leader, answer: Result<T, Status>) -> Result<T, Attempt> {
        let dialled_in_vain = matches!(&answer, Err(status) if never_connected(status));
        let unreached = matches!(&answer, Err(status) if !is_answer(status));
        self.gate.reached(leader.id, if unreached { Reached::No } else { Reached::Yes });
        answer.map_err(|status| match status.code() {
            Code::FailedPrecondition => Attempt::NotDone,
            _ if dialled_in_vain => Attempt::NotDone,
            _ => Attempt::Unknown,
        })
    }
}

impl Calls for Road {
    async fn propose(
        &self,
        leader: &Leader,
        request: wire::ProposeRequest,
    ) -> Result<wire::ProposeResponse, Attempt> {
        let answer = self.to(leader)?.propose(request).await;
        self.noted(leader, answer)
    }
}

impl From<LocalError> for Attempt {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::NotLeader => Self::NotDone,
            LocalError::NoRoom => Self::NoRoom,
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
