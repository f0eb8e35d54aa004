//! The seam to the transport: one replica, as the others call it.
//!
//! [`grpc_peer`] is a client of it over gRPC, [`peer_services`](crate::peer_services) serve it there, and [`local_peer`] is
//! the replica itself. A simulated network stands between a client and [`local_peer`], and loses, delays and reorders what
//! is said; so both ends of the real conversation are what is simulated.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use proto::peer::v1 as wire;
use tonic::transport::Channel;
use tonic::{Request, Status};
use wire::forward_client::ForwardClient;
use wire::raft_client::RaftClient;

use crate::Node;
use crate::connector::{ConnectError, Purpose};
use crate::service::LocalPeer;

/// Above the largest message: a chunk of the log plus one entry.
pub(crate) const MESSAGE_MAX_BYTES: usize = 8 << 20;

/// One replica, as the others call it. An error is what the transport or the replica says; whether anything happened there
/// is then unknown, unless the code says so (see [`crate::ForwardService`]).
#[async_trait]
pub trait Peer: Send + Sync + 'static {
    /// Replicates: answers come in the order of the requests, and the stream ends when either side breaks it.
    async fn append(
        &self,
        requests: BoxStream<'static, wire::AppendRequest>,
    ) -> Result<BoxStream<'static, Result<wire::AppendResponse, Status>>, Status>;
    /// Says that a leader is alive.
    async fn heartbeat(&self, request: wire::AppendRequest) -> Result<wire::AppendResponse, Status>;
    /// Asks for a vote, or whether one would be given.
    async fn vote(&self, request: wire::VoteRequest) -> Result<wire::VoteResponse, Status>;
    /// Hands leadership over.
    async fn transfer_leader(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> Result<wire::TransferLeaderResponse, Status>;
    /// Replaces the peer's state.
    async fn install_snapshot(
        &self,
        chunks: BoxStream<'static, wire::SnapshotChunk>,
    ) -> Result<wire::SnapshotResponse, Status>;
    /// Proposes entries there, within their time.
    async fn propose(&self, request: wire::ProposeRequest) -> Result<wire::ProposeResponse, Status>;
    /// Has it confirmed that the peer leads, within a time.
    async fn read_index(&self, request: wire::ReadIndexRequest) -> Result<wire::ReadIndexResponse, Status>;
}

/// Makes peers. The server supplies one with mutual TLS.
///
/// Implementers promise to return at once, without having connected, to make sure that whoever answers really is replica
/// `node_id`, and not to share one connection between purposes.
pub trait PeerConnector: Send + Sync + 'static {
    /// Returns the replica `node_id`, not yet connected.
    fn peer(&self, node_id: u64, address: &str, purpose: Purpose) -> Result<Arc<dyn Peer>, ConnectError>;
}

/// Returns the replica at the other end of a lazily connected channel (`Endpoint::connect_lazy`, with a connect timeout).
pub fn grpc_peer(channel: Channel) -> Arc<dyn Peer> {
    let raft = RaftClient::new(channel.clone());
    let forward = ForwardClient::new(channel);
    Arc::new(GrpcPeer {
        raft: raft.max_decoding_message_size(MESSAGE_MAX_BYTES).max_encoding_message_size(MESSAGE_MAX_BYTES),
        forward: forward
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES),
    })
}

/// Returns `node` itself, as its peers call it.
pub fn local_peer(node: &Node) -> Arc<dyn Peer> {
    Arc::new(LocalPeer::new(node))
}

struct GrpcPeer {
    raft: RaftClient<Channel>,
    forward: ForwardClient<Channel>,
}

#[async_trait]
impl Peer for GrpcPeer {
    async fn append(
        &self,
        requests: BoxStream<'static, wire::AppendRequest>,
    ) -> Result<BoxStream<'static, Result<wire::AppendResponse, Status>>, Status> {
        let mut raft = self.raft.clone();
        Ok(raft.append(Outgoing(requests)).await?.into_inner().boxed())
    }

    async fn heartbeat(&self, request: wire::AppendRequest) -> Result<wire::AppendResponse, Status> {
        Ok(self.raft.clone().heartbeat(request).await?.into_inner())
    }

    async fn vote(&self, request: wire::VoteRequest) -> Result<wire::VoteResponse, Status> {
        Ok(self.raft.clone().vote(request).await?.into_inner())
    }

    async fn transfer_leader(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> Result<wire::TransferLeaderResponse, Status> {
        Ok(self.raft.clone().transfer_leader(request).await?.into_inner())
    }

    async fn install_snapshot(
        &self,
        chunks: BoxStream<'static, wire::SnapshotChunk>,
    ) -> Result<wire::SnapshotResponse, Status> {
        let mut raft = self.raft.clone();
        Ok(raft.install_snapshot(Outgoing(chunks)).await?.into_inner())
    }

    async fn propose(&self, request: wire::ProposeRequest) -> Result<wire::ProposeResponse, Status> {
        let timeout_ms = request.timeout_ms;
        Ok(self.forward.clone().propose(bounded(request, timeout_ms)).await?.into_inner())
    }

    async fn read_index(&self, request: wire::ReadIndexRequest) -> Result<wire::ReadIndexResponse, Status> {
        let timeout_ms = request.timeout_ms;
        Ok(self.forward.clone().read_index(bounded(request, timeout_ms)).await?.into_inner())
    }
}

/// A stream under a name: the compiler cannot see that a boxed one is as general as tonic wants it.
struct Outgoing<T>(BoxStream<'static, T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(context)
    }
}

fn bounded<T>(message: T, timeout_ms: u32) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(timeout_ms.into()));
    request
}
