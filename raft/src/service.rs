//! What peers call: the server side.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, future};
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use proto::peer::v1 as wire;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};
use wire::forward_server::{Forward, ForwardServer};
use wire::raft_server::{Raft, RaftServer};

use crate::Node;
use crate::Room;
use crate::carrier::outcome_out;
use crate::codec::{self, Ballot, DecodeError};
use crate::heard::Heard;
use crate::node::Engine;
use crate::peer::{MESSAGE_MAX_BYTES, Peer};
use crate::propose::LocalError;
use crate::snapshot_transfer::{self, Chunks};
use crate::state_store::StateStore;
use crate::type_config::TypeConfig;

/// This replica, as its peers call it.
#[derive(Clone)]
pub(crate) struct LocalPeer {
    raft: Engine,
    store: Arc<StateStore>,
    heard: Arc<Heard>,
    node: Node,
    /// One snapshot at a time: two would be two copies of the state.
    receiving: Arc<Semaphore>,
}

impl LocalPeer {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            raft: node.engine(),
            store: node.store(),
            heard: node.inner.heard.clone(),
            node: node.clone(),
            receiving: Arc::new(Semaphore::new(1)),
        }
    }

    fn append_all(
        &self,
        requests: impl Stream<Item = wire::AppendRequest> + Send + 'static,
    ) -> BoxStream<'static, Result<wire::AppendResponse, Status>> {
        // A malformed message ends the stream; the leader makes a new one.
        let requests = requests.map(|request| codec::append_request_in(request).ok());
        let requests =
            requests.take_while(|request| future::ready(request.is_some())).filter_map(future::ready);
        // What can't be kept is not taken: the leader sends it again.
        let node = self.node.clone();
        let fits = move |request: &AppendEntriesRequest<TypeConfig>| {
            request.entries.is_empty() || node.room() != Room::None
        };
        let requests = requests.take_while(move |request| future::ready(fits(request)));
        let answers = self.raft.stream_append(requests);
        let answers = answers.map(|answer| match answer {
            Ok(result) => Ok(codec::append_response_out(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        answers.boxed()
    }

    async fn receive(&self, chunks: Chunks) -> Result<wire::SnapshotResponse, Status> {
        let _one = self
            .receiving
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being received"))?;
        if self.node.room() != Room::Ample {
            return Err(Status::resource_exhausted("there is no room for a snapshot on this replica's disk"));
        }
        let (vote, snapshot) = snapshot_transfer::receive(chunks, &self.store)
            .await
            .map_err(|error| Status::aborted(error.to_string()))?;
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(wire::SnapshotResponse { vote: Some(codec::vote_out(&answer.vote)) })
    }
}

/// Serves the consensus messages of peers.
pub struct RaftService(LocalPeer);

/// Serves what followers carry to this replica on behalf of clients.
///
/// `FailedPrecondition` says that this replica does not lead, and that surely nothing was proposed.
pub struct ForwardService(LocalPeer);

/// Returns the services to be served on the peer port, where only replicas may call.
pub fn peer_services(node: &Node) -> (RaftServer<RaftService>, ForwardServer<ForwardService>) {
    let peer = LocalPeer::new(node);
    (
        RaftServer::new(RaftService(peer.clone()))
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES),
        ForwardServer::new(ForwardService(peer))
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES),
    )
}

fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this replica has stopped: {error}"))
}

#[async_trait]
impl Peer for LocalPeer {
    async fn append(
        &self,
        requests: BoxStream<'static, wire::AppendRequest>,
    ) -> Result<BoxStream<'static, Result<wire::AppendResponse, Status>>, Status> {
        Ok(self.append_all(requests))
    }

    async fn heartbeat(&self, request: wire::AppendRequest) -> Result<wire::AppendResponse, Status> {
        let request = codec::append_request_in(request).map_err(malformed)?;
        let leader = request.vote.leader_id.voted_for;
        let mut answers = Box::pin(self.raft.stream_append(futures::stream::iter([request])));
        match answers.next().await {
            Some(Ok(result)) => {
                // One that others have replaced is not in touch with us, nor we with it.
                if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                    self.heard.note(leader);
                }
                Ok(codec::append_response_out(&result))
            }
            Some(Err(fatal)) => Err(stopped(fatal)),
            None => Err(stopped("no answer")),
        }
    }

    async fn vote(&self, request: wire::VoteRequest) -> Result<wire::VoteResponse, Status> {
        let (request, ballot) = codec::vote_request_in(request).map_err(malformed)?;
        let answer = match ballot {
            Ballot::Real => self.raft.vote(request).await,
            Ballot::Trial => self.raft.pre_vote(request).await,
        };
        Ok(codec::vote_response_out(&answer.map_err(stopped)?))
    }

    async fn transfer_leader(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> Result<wire::TransferLeaderResponse, Status> {
        let request = codec::transfer_request_in(request).map_err(malformed)?;
        let answer = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(codec::transfer_response_out(&answer))
    }

    async fn install_snapshot(
        &self,
        chunks: BoxStream<'static, wire::SnapshotChunk>,
    ) -> Result<wire::SnapshotResponse, Status> {
        self.receive(chunks.map(Ok).boxed()).await
    }

    async fn propose(&self, request: wire::ProposeRequest) -> Result<wire::ProposeResponse, Status> {
        let limit = Duration::from_millis(request.timeout_ms.into());
        match tokio::time::timeout(limit, self.node.propose_all_here(request.entries)).await {
            Ok(outcomes) => {
                Ok(wire::ProposeResponse { outcomes: outcomes.into_iter().map(outcome_out).collect() })
            }
            Err(_) => Err(Status::deadline_exceeded("the entries were not confirmed in time")),
        }
    }

    async fn read_index(&self, request: wire::ReadIndexRequest) -> Result<wire::ReadIndexResponse, Status> {
        let limit = Duration::from_millis(request.timeout_ms.into());
        match tokio::time::timeout(limit, self.node.read_index_here()).await {
            Ok(Ok(index)) => Ok(wire::ReadIndexResponse { index }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Status::deadline_exceeded("the leadership was not confirmed in time")),
        }
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        // A broken stream simply ends.
        let requests = request.into_inner().map(Result::ok);
        let requests =
            requests.take_while(|request| future::ready(request.is_some())).filter_map(future::ready);
        Ok(Response::new(self.0.append_all(requests)))
    }

    async fn heartbeat(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        Ok(Response::new(self.0.heartbeat(request.into_inner()).await?))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        Ok(Response::new(self.0.vote(request.into_inner()).await?))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        Ok(Response::new(self.0.transfer_leader(request.into_inner()).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        Ok(Response::new(self.0.receive(request.into_inner().boxed()).await?))
    }
}

#[tonic::async_trait]
impl Forward for ForwardService {
    async fn propose(
        &self,
        request: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        Ok(Response::new(self.0.propose(request.into_inner()).await?))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        Ok(Response::new(self.0.read_index(request.into_inner()).await?))
    }
}

impl From<LocalError> for Status {
    fn from(error: LocalError) -> Self {
        match error {
            // Callers rely on this code: surely nothing was proposed.
            LocalError::NotLeader => Self::failed_precondition("this replica does not lead"),
            LocalError::NoRoom => Self::failed_precondition("there is no room on this replica's disk"),
            LocalError::Unknown => Self::aborted("the leadership was lost while the entry was on its way"),
            LocalError::TooLarge(bytes) => {
                Self::invalid_argument(format!("an entry of {bytes} bytes is too long"))
            }
            LocalError::Stopped => Self::unavailable("this replica has stopped"),
        }
    }
}
