//! Who belongs to the cluster, and who leads it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, timeout_at};

use crate::error::MemberError;
use crate::node::{Metrics, Node, led_term};
use crate::type_config::TypeConfig;
use crate::{MemberStatus, Status};

/// A new replica counts as caught up when it is this close to the leader's log.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// Pause before a change is tried again that had to wait for another one.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What is being done to whom, for error messages.
#[derive(Clone, Copy)]
struct Operation {
    name: &'static str,
    id: u64,
    within: Duration,
    deadline: Instant,
}

impl Operation {
    fn new(name: &'static str, id: u64, within: Duration) -> Self {
        Self { name, id, within, deadline: Instant::now() + within }
    }

    /// Waits for `work`, at most until the deadline.
    async fn bounded<T>(self, work: impl Future<Output = Result<T, MemberError>>) -> Result<T, MemberError> {
        match timeout_at(self.deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(MemberError::Timeout { operation: self.name, id: self.id, within: self.within }),
        }
    }
}

/// Who may lead next: the greatest is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Successor {
    ready: bool,
    matched: Option<u64>,
    id: u64,
}

impl Node {
    /// Makes this replica the first and only voter of a new cluster, reachable at `own_address`.
    pub async fn bootstrap(&self, own_address: &str) -> Result<(), MemberError> {
        let id = self.inner.node_id;
        let members = BTreeMap::from([(id, BasicNode::new(own_address))]);
        match self.inner.engine.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(MemberError::AlreadyInitialized(id))
            }
            Err(RaftError::APIError(error)) => {
                Err(MemberError::Refused { operation: "bootstrap", id, source: error.into() })
            }
            Err(RaftError::Fatal(_)) => Err(MemberError::Stopped),
        }
    }

    /// Returns whether this replica belongs to a cluster.
    pub async fn is_initialized(&self) -> Result<bool, MemberError> {
        self.inner.engine.is_initialized().await.map_err(|_| MemberError::Stopped)
    }

    /// Adds replica `id` at `address`: as a learner first; once it has caught up, as a voter. On the leader only.
    ///
    /// Asking again after a failure goes on where the first call stopped; adding a voter again does nothing.
    pub async fn add_member(&self, id: u64, address: &str, timeout: Duration) -> Result<(), MemberError> {
        let operation = Operation::new("addition", id, timeout);
        operation.bounded(self.add(operation, address)).await
    }

    async fn add(&self, operation: Operation, address: &str) -> Result<(), MemberError> {
        let id = operation.id;
        self.ensure_leader()?;
        let known = self.member(id);
        if let Some(known) = known.as_ref().filter(|known| known.address != address) {
            return Err(MemberError::AddressInUse { id, address: known.address.clone() });
        }
        if known.as_ref().is_some_and(|known| known.voter) {
            return Ok(());
        }
        if known.is_none() {
            let node = BTreeMap::from([(id, BasicNode::new(address))]);
            self.change(operation, ChangeMembers::AddNodes(node)).await?;
        }
        self.wait_for(|metrics| {
            let leads = led_term(metrics).is_some();
            !leads || metrics.membership_config.get_node(&id).is_none() || has_caught_up(metrics, id)
        })
        .await?;
        self.ensure_leader()?;
        self.change(operation, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes replica `id`. On the leader only; removing one that is not a member does nothing.
    ///
    /// A leader may remove itself: it hands over once that is committed.
    pub async fn remove_member(&self, id: u64, timeout: Duration) -> Result<(), MemberError> {
        let operation = Operation::new("removal", id, timeout);
        operation.bounded(self.remove(operation)).await
    }

    async fn remove(&self, operation: Operation) -> Result<(), MemberError> {
        self.ensure_leader()?;
        let Some(member) = self.member(operation.id) else { return Ok(()) };
        let ids = BTreeSet::from([operation.id]);
        if !member.voter {
            return self.change(operation, ChangeMembers::RemoveNodes(ids)).await;
        }
        if self.status().members.iter().filter(|member| member.voter).count() == 1 {
            return Err(MemberError::LastVoter(operation.id));
        }
        self.change(operation, ChangeMembers::RemoveVoters(ids)).await
    }

    /// Hands leadership to voter `to`, or to the one that is furthest; returns who leads then. On the leader only.
    pub async fn transfer_leader(&self, to: Option<u64>, timeout: Duration) -> Result<u64, MemberError> {
        self.ensure_leader()?;
        let me = self.inner.node_id;
        if to == Some(me) {
            return Ok(me);
        }
        let choice = Operation::new("succession", me, timeout);
        let to = choice.bounded(self.successor(to)).await?;
        let operation = Operation { name: "promotion", id: to, ..choice };
        self.inner.engine.trigger().transfer_leader(to).await.map_err(|_| MemberError::Stopped)?;
        let elected = |metrics: &Metrics| metrics.current_leader.is_some_and(|leader| leader != me);
        operation.bounded(self.wait_for(elected)).await?;
        Ok(self.status().leader.unwrap_or(to))
    }

    /// Returns the voter that can take over: `wished`, or the furthest of those that are known to be able.
    ///
    /// From the transfer on, a leader takes no more writes and sends no more heartbeats: asking one that cannot take over would
    /// cost an election. Whether one can is known after a lease; a leader that was elected a moment ago has not heard anybody.
    async fn successor(&self, wished: Option<u64>) -> Result<u64, MemberError> {
        let since = self.leadership().map_or_else(Instant::now, |leads| leads.since);
        let mut metrics = self.metrics();
        loop {
            metrics.borrow_and_update();
            self.ensure_leader()?;
            let best = self.best_successor(wished)?;
            if best.ready {
                return Ok(best.id);
            }
            match timeout_at(since + self.lease_duration(), metrics.changed()).await {
                Ok(changed) => changed.map_err(|_| MemberError::Stopped)?,
                Err(_) => return Err(MemberError::NotReady(best.id)),
            }
        }
    }

    fn best_successor(&self, wished: Option<u64>) -> Result<Successor, MemberError> {
        let (status, me) = (self.status(), self.inner.node_id);
        let others = status.members.iter().filter(|member| member.voter && member.id != me);
        let wanted = others.filter(|member| wished.is_none_or(|wished| wished == member.id));
        let able = wanted.map(|member| Successor {
            ready: self.is_ready(member, &status),
            matched: member.matched,
            id: member.id,
        });
        able.max().ok_or_else(|| wished.map_or(MemberError::LastVoter(me), MemberError::UnknownMember))
    }

    fn is_ready(&self, member: &MemberStatus, status: &Status) -> bool {
        let heard = member.last_heard.is_some_and(|heard| heard.elapsed() < self.lease_duration());
        let behind =
            status.last_log_index.unwrap_or_default().saturating_sub(member.matched.unwrap_or_default());
        heard && behind <= CAUGHT_UP_ENTRIES
    }

    /// Takes a snapshot of what is applied now and waits for it; returns the index of its last entry.
    pub async fn snapshot(&self, timeout: Duration) -> Result<u64, MemberError> {
        let operation = Operation::new("snapshot", self.inner.node_id, timeout);
        let applied = self.status().applied;
        self.inner.engine.trigger().snapshot().await.map_err(|_| MemberError::Stopped)?;
        let taken = |metrics: &Metrics| metrics.snapshot.map(|id| id.index) >= applied;
        operation.bounded(self.wait_for(taken)).await?;
        Ok(self.status().snapshot_index.unwrap_or_default())
    }

    /// Changes the membership; waits while another change is under way.
    async fn change(
        &self,
        operation: Operation,
        change: ChangeMembers<u64, BasicNode>,
    ) -> Result<(), MemberError> {
        loop {
            let refused = match self.inner.engine.change_membership(change.clone(), false).await {
                Ok(_) => return Ok(()),
                Err(RaftError::Fatal(_)) => return Err(MemberError::Stopped),
                Err(RaftError::APIError(refused)) => refused,
            };
            if !is_busy(&refused) {
                return Err(self.refusal(operation, refused));
            }
            if Instant::now() + RETRY_PAUSE >= operation.deadline {
                return Err(MemberError::Busy);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn refusal(&self, operation: Operation, refused: ClientWriteError<TypeConfig>) -> MemberError {
        match refused {
            ClientWriteError::ForwardToLeader(to) | ClientWriteError::LogEntryDiscarded(to) => {
                MemberError::NotLeader { node_id: self.inner.node_id, leader: to.leader_id }
            }
            other => {
                MemberError::Refused { operation: operation.name, id: operation.id, source: other.into() }
            }
        }
    }

    fn member(&self, id: u64) -> Option<MemberStatus> {
        self.status().members.into_iter().find(|member| member.id == id)
    }

    fn ensure_leader(&self) -> Result<(), MemberError> {
        let metrics = self.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.running_state.is_err() {
            return Err(MemberError::Stopped);
        }
        match led_term(&metrics) {
            Some(_) => Ok(()),
            None => Err(MemberError::NotLeader {
                node_id: self.inner.node_id,
                leader: metrics.current_leader.filter(|leader| *leader != self.inner.node_id),
            }),
        }
    }

    async fn wait_for(&self, reached: impl Fn(&Metrics) -> bool) -> Result<(), MemberError> {
        let mut metrics = self.metrics();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                if metrics.running_state.is_err() {
                    return Err(MemberError::Stopped);
                }
                if reached(&metrics) {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|_| MemberError::Stopped)?;
        }
    }
}

fn has_caught_up(metrics: &Metrics, id: u64) -> bool {
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
    matched.is_some_and(|matched| {
        matched.index + CAUGHT_UP_ENTRIES >= metrics.last_log_index.unwrap_or_default()
    })
}

/// Returns whether a change only has to wait for another one, or for the new leader's first entry. The only precondition
/// that we have is openraft's own, between the two steps of a change: that no other change has come in between.
fn is_busy(refused: &ClientWriteError<TypeConfig>) -> bool {
    matches!(
        refused,
        ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)
        ) | ClientWriteError::PreconditionFailed(_)
    )
}
