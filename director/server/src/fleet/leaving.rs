//! Leaving: replicas that are removed, and leaders that hand over. Both are done by whoever leads, are held while nobody
//! does, and may be asked for twice.
//!
//! A replica is removed in two places, the state and consensus. The state first: it is what a restart asks, and what keeps
//! a removed replica out. If the leader dies in between, the next one finishes it ([`finish_removals`]).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use model::{NodeId, RequestId, UserName};
use proto::peer::v1 as pb;
use raft::Node;
use retry::{Policy, Verdict};
use state::State;
use state::command::{Command, Refusal};
use state::log::{CommandLog as _, Proposal};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tracing::{info, warn};

use super::log::{RaftLog, WAIT_FOR_LEADER};
use super::membership::Membership;
use crate::deadline;
use crate::error_map::{of_member, status, unavailable};

/// How long a hand-over may take.
pub const HAND_OVER: Duration = Duration::from_secs(10);

/// How long a change of consensus' members may take.
const REMOVAL: Duration = Duration::from_secs(15);

/// Pauses between attempts at whoever leads, until the time is over that a request may wait.
fn again() -> Policy {
    Policy {
        initial: Duration::from_millis(50),
        max: Duration::from_millis(500),
        total: Some(deadline::within(WAIT_FOR_LEADER)),
    }
}

/// How often the leader looks for removals that nobody has finished.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A replica to remove, and who wants that.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Which.
    pub node: NodeId,
    /// Who asked.
    pub user: UserName,
    /// So that it is filed once.
    pub request_id: Option<RequestId>,
}

impl Membership {
    /// Removes a replica, whoever leads; also the leader, which hands over first.
    pub async fn remove(&self, removal: Removal) -> Result<(), Status> {
        let removed = self.held(|leader| self.remove_through(leader, &removal)).await;
        match removed {
            // Our own removal: the answer to an earlier attempt was lost, and nobody talks to us any more.
            Err(status) if status.code() == Code::PermissionDenied && removal.node == self.id => Ok(()),
            other => other,
        }
    }

    async fn remove_through(&self, leader: NodeId, removal: &Removal) -> Result<(), Status> {
        if leader == removal.node {
            // The others stop listening to it with the entry that removes it. Another leader has to write that.
            self.transfer_at(leader, None).await?;
            return Err(unavailable("the replica to remove has handed leadership over"));
        }
        self.remove_at(leader, removal).await
    }

    async fn remove_at(&self, leader: NodeId, removal: &Removal) -> Result<(), Status> {
        if leader == self.id {
            return self.remove_here(removal).await;
        }
        let request = pb::RemoveRequest {
            node_id: removal.node.0,
            user: removal.user.to_string(),
            request_id: removal.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let mut client = self.client(leader).ok_or_else(|| unknown(leader))?;
        within(REMOVAL * 2, client.remove(bounded(request, REMOVAL * 2))).await.map(|_| ())
    }

    /// Removes a replica on the leader: from the state, then from consensus.
    pub async fn remove_here(&self, removal: &Removal) -> Result<(), Status> {
        if !leads(&self.node) {
            return Err(unavailable(format!("replica {} does not lead", self.id)));
        }
        let Removal { node, user, request_id } = removal.clone();
        let proposal = Proposal { command: Command::MemberRemove { node }, request_id, user };
        let committed = self.log.propose(proposal).await.map_err(|error| status(error.into()))?;
        match committed.outcome.accepted() {
            Ok(_) => {}
            // Filed by an earlier request, which may have got no further.
            Err(Refusal::NotFound { .. }) if self.was_removed(node) => {}
            Err(refusal) => return Err(status(refusal.into())),
        }
        self.node.remove_member(node.0, REMOVAL).await.map_err(|error| of_member(&error))
    }

    /// Returns who leads, waiting for an election to end.
    pub async fn leader(&self) -> Result<NodeId, Status> {
        self.held(|leader| std::future::ready(Ok(leader))).await
    }

    /// Hands leadership over, whoever has it; returns who leads then.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, Status> {
        // Whose it was when we began: a second attempt must not move it on from where the first one put it.
        let first = Mutex::new(None);
        self.held(|leader| self.transfer_from(&first, leader, to)).await
    }

    async fn transfer_from(
        &self,
        first: &Mutex<Option<NodeId>>,
        leader: NodeId,
        to: Option<NodeId>,
    ) -> Result<NodeId, Status> {
        let before = *first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(leader);
        let moved = to.is_none() && leader != before;
        if moved || to == Some(leader) { Ok(leader) } else { self.transfer_at(leader, to).await }
    }

    async fn transfer_at(&self, leader: NodeId, to: Option<NodeId>) -> Result<NodeId, Status> {
        if leader == self.id {
            let next = self.node.transfer_leader(to.map(|n| n.0), HAND_OVER).await;
            return next.map(NodeId).map_err(|error| of_member(&error));
        }
        let mut client = self.client(leader).ok_or_else(|| unknown(leader))?;
        let request = pb::TransferRequest { node_id: to.map(|n| n.0).unwrap_or_default() };
        let answer = within(HAND_OVER * 2, client.transfer(bounded(request, HAND_OVER * 2))).await?;
        Ok(NodeId(answer.into_inner().leader))
    }

    /// Attempts something at whoever leads, until it works, fails for good, or the time is over that a request may wait.
    async fn held<T, F>(&self, attempt: impl Fn(NodeId) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        retry::with_backoff(again(), || async {
            let leader = self.node.status().leader.map(NodeId);
            let leader = leader.ok_or_else(|| Verdict::Again(unavailable("there is no leader now")))?;
            attempt(leader).await.map_err(|status| match status.code() {
                Code::Unavailable | Code::DeadlineExceeded => Verdict::Again(unavailable(status.message())),
                // Our own side of the connection broke: nobody has answered.
                _ if std::error::Error::source(&status).is_some() => {
                    Verdict::Again(unavailable(status.message()))
                }
                _ => Verdict::Fatal(status),
            })
        })
        .await
    }
}

fn leads(node: &Node) -> bool {
    node.leadership().is_some_and(|leads| leads.holds())
}

fn unknown(leader: NodeId) -> Status {
    unavailable(format!("the leader {leader} is not known here yet"))
}

fn bounded<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(unavailable("the leader does not answer")),
    }
}

/// Finishes what a leader has begun that is gone: replicas that the state has removed and consensus has not. For the life
/// of the process; acts only while this replica leads.
pub async fn finish_removals(node: Node, log: RaftLog, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
        if !leads(&node) {
            continue;
        }
        let left: Vec<u64> = {
            let view = log.view();
            let state = State::new(&*view);
            let members = node.status().members.into_iter().map(|member| member.id);
            members.filter(|id| state.is_removed_member(NodeId(*id))).collect()
        };
        let own = node.status().node_id;
        for id in left {
            let finished = match id == own {
                true => node.transfer_leader(None, HAND_OVER).await.map(|_| ()),
                false => node.remove_member(id, REMOVAL).await,
            };
            match finished {
                Ok(()) => info!(node = id, "finished the removal of a replica"),
                Err(error) => warn!(node = id, %error, "the removal of a replica could not be finished"),
            }
        }
    }
}
