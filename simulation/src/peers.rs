//! The way from one replica to another: what the real one says on the wire, over the simulated network.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use owned_tasks::OwnedTasks;
use proto::peer::v1 as wire;
use raft::{ConnectError, Peer, PeerConnector, Purpose};
use tonic::Status;

use crate::net::{Net, Place};
use crate::services::Services;
use crate::streams::Opener;

/// Connects a replica to the others.
pub struct SimPeers {
    /// Over this network.
    pub net: Net,
    /// From here.
    pub me: Place,
    /// Streams end with these.
    pub tasks: OwnedTasks,
}

impl PeerConnector for SimPeers {
    fn peer(&self, node_id: u64, _address: &str, _purpose: Purpose) -> Result<Arc<dyn Peer>, ConnectError> {
        Ok(Arc::new(SimPeer { net: self.net.clone(), me: self.me, to: node_id, tasks: self.tasks.clone() }))
    }
}

struct SimPeer {
    net: Net,
    me: Place,
    to: u64,
    tasks: OwnedTasks,
}

impl SimPeer {
    async fn ask<T, F>(&self, ask: impl Fn(Arc<dyn Peer>) -> F + Send + Sync + 'static) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.net
            .call(self.me, self.to, move |services| match services {
                Services::Replica(replica) => Some(ask(replica.peer)),
                Services::Outside(_) | Services::Nobody => None,
            })
            .await?
    }
}

#[async_trait]
impl Peer for SimPeer {
    async fn append(
        &self,
        requests: BoxStream<'static, wire::AppendRequest>,
    ) -> Result<BoxStream<'static, Result<wire::AppendResponse, Status>>, Status> {
        let opener = Opener { net: &self.net, me: self.me, tasks: &self.tasks };
        Ok(opener.open(self.to, requests, |services, requests| match services {
            Services::Replica(replica) => Some(async move { replica.peer.append(requests).await.ok() }),
            Services::Outside(_) | Services::Nobody => None,
        }))
    }

    async fn heartbeat(&self, request: wire::AppendRequest) -> Result<wire::AppendResponse, Status> {
        self.ask(move |peer| {
            let request = request.clone();
            async move { peer.heartbeat(request).await }
        })
        .await
    }

    async fn vote(&self, request: wire::VoteRequest) -> Result<wire::VoteResponse, Status> {
        self.ask(move |peer| async move { peer.vote(request).await }).await
    }

    async fn transfer_leader(
        &self,
        request: wire::TransferLeaderRequest,
    ) -> Result<wire::TransferLeaderResponse, Status> {
        self.ask(move |peer| async move { peer.transfer_leader(request).await }).await
    }

    async fn install_snapshot(
        &self,
        chunks: BoxStream<'static, wire::SnapshotChunk>,
    ) -> Result<wire::SnapshotResponse, Status> {
        // As one message: what a connection that breaks in the middle does is like one that breaks before.
        let chunks: Vec<wire::SnapshotChunk> = chunks.collect().await;
        self.ask(move |peer| {
            let chunks = futures::stream::iter(chunks.clone()).boxed();
            async move { peer.install_snapshot(chunks).await }
        })
        .await
    }

    async fn propose(&self, request: wire::ProposeRequest) -> Result<wire::ProposeResponse, Status> {
        self.ask(move |peer| {
            let request = request.clone();
            async move { peer.propose(request).await }
        })
        .await
    }

    async fn read_index(&self, request: wire::ReadIndexRequest) -> Result<wire::ReadIndexResponse, Status> {
        self.ask(move |peer| async move { peer.read_index(request).await }).await
    }
}
