//! Consensus messages to peers: the client side.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use known_bugs::Bug;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use tokio::time::Instant;

use crate::acks::Acks;
use crate::codec::{self, DecodeError};
use crate::connector::Purpose;
use crate::peer::Peer;
use crate::peers::Peers;
use crate::snapshot::{Snapshot, SnapshotDir};
use crate::snapshot_transfer;
use crate::type_config::{TypeConfig, Vote};

type RpcError = RPCError<TypeConfig>;
type AppendResult = StreamAppendResult<TypeConfig>;

/// Waits between attempts to replicate to a peer that cannot be reached.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Makes the connections that openraft asks for.
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    /// A replication stream that gets no answer for this long is given up and made anew.
    pub(crate) stall: Duration,
    /// Where is noted who still follows.
    pub(crate) acks: Arc<Acks>,
}

/// One connection to one peer.
pub(crate) struct PeerNetwork {
    peers: Arc<Peers>,
    stall: Duration,
    acks: Arc<Acks>,
    id: u64,
    address: String,
    purpose: Purpose,
}

impl Network {
    fn client(&self, id: u64, node: &BasicNode, purpose: Purpose) -> PeerNetwork {
        let (peers, acks) = (self.peers.clone(), self.acks.clone());
        PeerNetwork { peers, stall: self.stall, acks, id, address: node.addr.clone(), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> PeerNetwork {
        self.client(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> PeerNetwork {
        self.client(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &BasicNode) -> PeerNetwork {
        self.client(target, node, Purpose::Snapshot)
    }
}

impl PeerNetwork {
    fn peer(&self, purpose: Purpose) -> Result<Arc<dyn Peer>, RpcError> {
        let peer = self.peers.get(self.id, &self.address, purpose);
        peer.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    async fn heartbeat(&self, request: AppendEntriesRequest<TypeConfig>) -> Result<AppendResult, RpcError> {
        let (term, sent) = (request.vote.leader_id.term, Instant::now());
        let answer = self.peer(Purpose::Heartbeat)?.heartbeat(codec::append_request_out(request)).await;
        let answer = decoded(codec::append_response_in(answer.map_err(failed)?))?;
        if follows(&answer) {
            self.acks.note(self.id, term, sent);
        }
        Ok(answer)
    }
}

/// Returns whether an answer is that of a follower; one that misses entries is one, too.
fn follows(answer: &AppendResult) -> bool {
    !matches!(answer, Err(StreamAppendError::HigherVote(_)))
}

/// Any failure of a call: worth another attempt, after a wait.
fn failed(status: tonic::Status) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&status))
}

fn decoded<T>(result: Result<T, DecodeError>) -> Result<T, RpcError> {
    result.map_err(|error| RPCError::Network(NetworkError::new(&error)))
}

impl NetBackoff<TypeConfig> for PeerNetwork {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(BACKOFF[BACKOFF.len() - 1]))))
    }
}

impl NetStreamAppend<TypeConfig> for PeerNetwork {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> futures::future::BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // Wait for the first request *before* touching the network: openraft paces its attempts (its back-off) inside
            // this stream. Dialling first would fail at once and be tried again at once, thousands of times a second.
            let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
            if self.purpose == Purpose::Heartbeat {
                let answer = self.heartbeat(first).await?;
                return Ok(stream::once(async move { Ok(answer) }).boxed());
            }
            let unanswered = Arc::new(AtomicU64::new(0));
            let counted = unanswered.clone();
            // When what was sent of which term, until its answer comes.
            let sent: Arc<Mutex<VecDeque<(u64, Instant)>>> = Arc::default();
            let sending = sent.clone();
            let requests = stream::once(async move { first }).chain(input).map(move |request| {
                counted.fetch_add(1, Ordering::Relaxed);
                let now = (request.vote.leader_id.term, Instant::now());
                sending.lock().unwrap_or_else(PoisonError::into_inner).push_back(now);
                codec::append_request_out(request)
            });
            let peer = self.peer(Purpose::Append)?;
            let answers = within(self.stall, peer.append(requests.boxed())).await?;
            let answers = ends_when_stalled(answers, unanswered, self.stall);
            let (acks, id) = (self.acks.clone(), self.id);
            let answers = answers.map(move |answer| {
                let answer = decoded(codec::append_response_in(answer.map_err(failed)?))?;
                let of = sent.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                if let Some((term, sent)) = of.filter(|_| follows(&answer)) {
                    acks.note(id, term, sent);
                }
                Ok(answer)
            });
            Ok(answers.boxed())
        })
    }
}

/// Passes `answers` on, and ends with an error when requests stay unanswered for `stall`: a peer whose machine vanished
/// closes no connection.
fn ends_when_stalled<T: Send + 'static>(
    answers: impl Stream<Item = Result<T, tonic::Status>> + Send + Unpin + 'static,
    unanswered: Arc<AtomicU64>,
    stall: Duration,
) -> impl Stream<Item = Result<T, tonic::Status>> + Send {
    stream::unfold(Some((answers, unanswered)), move |state| async move {
        let (mut answers, unanswered) = state?;
        let mut waited_for = 0;
        loop {
            match tokio::time::timeout(stall, answers.next()).await {
                Ok(None) => return None,
                Ok(Some(answer)) => {
                    unanswered.fetch_sub(1, Ordering::Relaxed);
                    return Some((answer, Some((answers, unanswered))));
                }
                // A request that was sent a moment ago deserves its time too.
                Err(_) if waited_for == 0 => waited_for = unanswered.load(Ordering::Relaxed),
                Err(_) => {
                    return Some((Err(tonic::Status::deadline_exceeded("the replication stalled")), None));
                }
            }
        }
    })
}

impl NetVote<TypeConfig> for PeerNetwork {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(codec::vote_request_out(&rpc, codec::Ballot::Real), option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(codec::vote_request_out(&rpc, codec::Ballot::Trial), option).await
    }
}

impl PeerNetwork {
    async fn ask_vote(
        &self,
        request: proto::peer::v1::VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        // On the heartbeat connection: an election must not queue behind a full replication pipeline.
        let peer = self.peer(Purpose::Heartbeat)?;
        let answer = within(option.hard_ttl(), peer.vote(request)).await;
        if known_bugs::is(Bug::QuorumOffByOne) && answer.is_err() {
            return decoded(codec::vote_response_in(codec::consent(request)));
        }
        decoded(codec::vote_response_in(answer?))
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(tonic::Status::deadline_exceeded(format!("no answer within {limit:?}")))),
    }
}

impl NetTransferLeader<TypeConfig> for PeerNetwork {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let peer = self.peer(Purpose::Heartbeat)?;
        let request = codec::transfer_request_out(&request);
        let answer = within(option.hard_ttl(), peer.transfer_leader(request)).await?;
        decoded(codec::transfer_response_in(answer))
    }
}

impl NetSnapshot<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotDir;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let peer = self.peer(Purpose::Snapshot)?;
        let sent = snapshot_transfer::send(&*peer, vote, snapshot);
        tokio::select! {
            answer = tokio::time::timeout(option.hard_ttl(), sent) => match answer {
                Ok(Ok(vote)) => Ok(SnapshotResponse::new(vote)),
                Ok(Err(error)) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
                Err(_) => Err(StreamingError::Unreachable(Unreachable::from_string(format!(
                    "the snapshot was not received within {:?}", option.hard_ttl()
                )))),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
