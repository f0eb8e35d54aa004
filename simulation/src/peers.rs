//! The way from one replica to another: what the real one says on the wire, over the simulated network.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use owned_tasks::{OnExit, OwnedTasks};
use proto::peer::v1 as wire;
use raft::{ConnectError, Peer, PeerConnector, Purpose};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::net::{Link, Net, Place};
use crate::process::Job;
use crate::services::Services;

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

/// Messages of a stream that may wait where they arrived: far more than consensus ever has under way.
const STREAM_MAX: usize = 10_000;

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
        mut requests: BoxStream<'static, wire::AppendRequest>,
    ) -> Result<BoxStream<'static, Result<wire::AppendResponse, Status>>, Status> {
        let (answers_in, answers) = mpsc::channel(STREAM_MAX);
        let (opened, mut inlets) = mpsc::channel::<(u64, mpsc::Sender<_>)>(1);
        let (net, me, to) = (self.net.clone(), self.me, self.to);
        // Opens the stream at the other end, once.
        let opening = {
            let (net, answers_in) = (net.clone(), std::sync::Mutex::new(Some(answers_in)));
            move |services: Services| {
                let taken = answers_in.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                let (Services::Replica(replica), Some(answers_in)) = (services, taken) else {
                    return Box::pin(std::future::ready(())) as futures::future::BoxFuture<'static, ()>;
                };
                let (inlet, outlet) = mpsc::channel(STREAM_MAX);
                // Whoever opened may be gone; then nothing comes, and that is the end.
                let _ = opened.try_send((to, inlet));
                let net = net.clone();
                Box::pin(async move {
                    let here = Place { process: to, life: 0 };
                    let requests = ReceiverStream::new(outlet).boxed();
                    let Ok(mut stream) = replica.peer.append(requests).await else { return };
                    let link = Link::default();
                    while let Some(answer) = stream.next().await {
                        let answers_in = answers_in.clone();
                        let hand = move || drop(answers_in.try_send(answer));
                        net.stream(here, me, &link, Box::new(hand));
                    }
                })
            }
        };
        net.open(me, to, Arc::new(opening) as Job);
        let dropped = CancellationToken::new();
        let unwanted = dropped.clone();
        self.tasks.spawn("replication", OnExit::Ignore, move |stop| async move {
            let Some((to, inlet)) = inlets.recv().await else { return };
            let (there, link) = (Place { process: to, life: 0 }, Link::default());
            loop {
                let request = tokio::select! {
                    biased;
                    request = requests.next() => request,
                    () = inlet.closed() => None,
                    () = stop.cancelled() => None,
                    () = unwanted.cancelled() => None,
                };
                let Some(request) = request else { return };
                let inlet = inlet.clone();
                net.stream(me, there, &link, Box::new(move || drop(inlet.try_send(request))));
            }
        });
        let answers = ReceiverStream::new(answers);
        // Who does not want the answers any more sends no requests either.
        let guard = dropped.drop_guard();
        Ok(answers
            .map(move |answer| {
                let _ends_with_the_stream = &guard;
                answer
            })
            .boxed())
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
