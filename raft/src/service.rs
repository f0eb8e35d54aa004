//! What peers call.

use proto::peer::v1 as wire;
use wire::forward_server::{Forward, ForwardServer};
use wire::raft_server::{Raft, RaftServer};

use crate::Node;

/// Serves the consensus messages of peers.
pub struct RaftService {}

/// Serves what followers carry to this replica on behalf of clients.
pub struct ForwardService {}

/// Returns the services to be served on the peer port, where only replicas may call.
pub fn peer_services(_node: &Node) -> (RaftServer<RaftService>, ForwardServer<ForwardService>) {
    todo!()
}

#[tonic::async_trait]
impl Raft for RaftService {
    type AppendStream = tokio_stream::Pending<Result<wire::AppendResponse, tonic::Status>>;
    async fn append(
        &self,
        _: tonic::Request<tonic::Streaming<wire::AppendRequest>>,
    ) -> Result<tonic::Response<Self::AppendStream>, tonic::Status> {
        todo!()
    }
    async fn heartbeat(
        &self,
        _: tonic::Request<wire::AppendRequest>,
    ) -> Result<tonic::Response<wire::AppendResponse>, tonic::Status> {
        todo!()
    }
    async fn vote(
        &self,
        _: tonic::Request<wire::VoteRequest>,
    ) -> Result<tonic::Response<wire::VoteResponse>, tonic::Status> {
        todo!()
    }
    async fn transfer_leader(
        &self,
        _: tonic::Request<wire::TransferLeaderRequest>,
    ) -> Result<tonic::Response<wire::TransferLeaderResponse>, tonic::Status> {
        todo!()
    }
    async fn install_snapshot(
        &self,
        _: tonic::Request<tonic::Streaming<wire::SnapshotChunk>>,
    ) -> Result<tonic::Response<wire::SnapshotResponse>, tonic::Status> {
        todo!()
    }
}

#[tonic::async_trait]
impl Forward for ForwardService {
    async fn propose(
        &self,
        _: tonic::Request<wire::ProposeRequest>,
    ) -> Result<tonic::Response<wire::ProposeResponse>, tonic::Status> {
        todo!()
    }
    async fn read_index(
        &self,
        _: tonic::Request<wire::ReadIndexRequest>,
    ) -> Result<tonic::Response<wire::ReadIndexResponse>, tonic::Status> {
        todo!()
    }
}
