//! A replica's side of its agents: their streams, who is at home here, and the way to those who are elsewhere. The hub and
//! what stands on it are the real ones; simulated is the network below.

use std::sync::Arc;

use agent_client_grpc::{
    AgentHub, Alert, BlobAccess, BlobAccessError, BlobStream, HeartbeatSink, HubOptions, HubParts, Identity,
    IdentityError, IssuedCertificate, PeerAgent, Peers, Relay, RemoteAgents, StoredBlob,
};
use async_trait::async_trait;
use directord::agents::Admission;
use directord::fleet::homes::{Homes, follow_shards};
use directord::fleet::log::RaftLog;
use directord::world::FleetWorld;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use health::World;
use health::watcher::Ears;
use model::{AgentId, BlobDigest, NodeId};
use owned_tasks::{OnExit, OwnedTasks};
use proto::peer::v1 as wire;
use raft::Node;
use state::State;
use state::log::CommandLog as _;
use tonic::Status;

use crate::invariants::{Event, Observer};
use crate::net::{Net, Place};
use crate::services::{Replica, Services};
use crate::streams::Opener;

/// What a replica gives its agents' side.
pub struct Parts {
    /// Which life of which replica.
    pub me: Place,
    /// Consensus.
    pub node: Node,
    /// The log.
    pub log: RaftLog,
    /// Its network.
    pub net: Net,
    /// Who sees what it hears.
    pub observer: Observer,
    /// What it runs in.
    pub tasks: OwnedTasks,
}

/// Starts it: takes agents in, watches them, and sees to it that the dead get new VMs. Returns the hub.
pub fn start(parts: Parts) -> Arc<AgentHub> {
    let Parts { me, node, log, net, observer, tasks } = parts;
    let (id, ears) = (NodeId(me.process), Arc::new(Ears::default()));
    let sink = Arc::new(Hearing { me, ears: ears.clone(), observer });
    let identity = Arc::new(Keys(Admission { log: log.clone() }));
    let placement = Arc::new(Homes { id, log: log.clone() });
    let parts = HubParts { identity, blobs: Arc::new(NoBlobs), placement, sink };
    let hub = AgentHub::new(parts, HubOptions::default(), tasks.clone());
    let others = Others { me, log: log.clone(), net, tasks: tasks.clone() };
    let agents = Arc::new(RemoteAgents::new(hub.clone(), Arc::new(others)));
    let world: Arc<dyn World> = Arc::new(FleetWorld::new(id, node, log.clone(), agents));
    let watched = world.clone();
    tasks.spawn("health watcher", OnExit::Ignore, |stop| {
        health::watcher::run(watched, ears, health::assess::Policy::default(), stop)
    });
    tasks.spawn("resurrector", OnExit::Ignore, |stop| {
        health::resurrector::run(world, health::meltdown::Thresholds::default(), stop)
    });
    let moving = hub.clone();
    tasks.spawn("agent homes", OnExit::Ignore, |stop| follow_shards(moving, log, stop));
    hub
}

/// Hears heartbeats.
struct Hearing {
    me: Place,
    ears: Arc<Ears>,
    observer: Observer,
}

impl HeartbeatSink for Hearing {
    fn heartbeat(&self, heartbeat: agent_api::Heartbeat) {
        self.ears.heard(&heartbeat.agent);
        let (replica, agent) = (self.me.process, &heartbeat.agent);
        self.observer.see(&Event::Acknowledged { replica, agent });
    }

    fn alert(&self, _agent: &AgentId, _alert: Alert) {}

    fn connected(&self, agent: &AgentId) {
        self.ears.heard(agent);
    }

    fn disconnected(&self, _agent: &AgentId) {}
}

/// Knows agents by the keys that they were enrolled with. Certificates are not simulated.
struct Keys(Admission);

fn no_certificates(agent: &AgentId) -> IdentityError {
    IdentityError::Unavailable { agent: agent.clone(), reason: "there are no certificates here".into() }
}

#[async_trait]
impl Identity for Keys {
    async fn enroll(&self, agent: &AgentId, _: &str, _: &[u8]) -> Result<IssuedCertificate, IdentityError> {
        Err(no_certificates(agent))
    }

    async fn renew(&self, peer: &PeerAgent, _: &[u8]) -> Result<IssuedCertificate, IdentityError> {
        Err(no_certificates(&peer.agent))
    }

    async fn admit(&self, peer: &PeerAgent) -> Result<(), IdentityError> {
        self.0.admit(peer).await
    }
}

/// Blobs don't pass through streams here.
struct NoBlobs;

#[async_trait]
impl BlobAccess for NoBlobs {
    async fn get(&self, _: &AgentId, digest: &BlobDigest) -> Result<BlobStream, BlobAccessError> {
        Err(BlobAccessError::NotFound { digest: digest.clone() })
    }

    async fn put(&self, _: &AgentId, _: BlobStream) -> Result<StoredBlob, BlobAccessError> {
        Err(BlobAccessError::TooLarge { bytes_max: 0 })
    }
}

/// The other replicas, as far as agents are reached through them.
struct Others {
    me: Place,
    log: RaftLog,
    net: Net,
    tasks: OwnedTasks,
}

impl Peers for Others {
    fn replicas(&self) -> Vec<NodeId> {
        let view = self.log.view();
        let members = State::new(&*view).members().into_iter().map(|member| member.node);
        members.filter(|node| node.0 != self.me.process).collect()
    }

    fn relay(&self, node: NodeId) -> Option<Arc<dyn Relay>> {
        let (net, tasks) = (self.net.clone(), self.tasks.clone());
        Some(Arc::new(SimRelay { net, me: self.me, to: node.0, tasks }))
    }
}

/// The way to another replica's agents.
struct SimRelay {
    net: Net,
    me: Place,
    to: u64,
    tasks: OwnedTasks,
}

impl SimRelay {
    async fn ask<T, F>(&self, ask: impl Fn(Arc<dyn Relay>) -> F + Send + Sync + 'static) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let asked = self.net.call(self.me, self.to, move |services| match services {
            Services::Replica(Replica { hub, .. }) => Some(ask(Arc::new(hub.relay()))),
            Services::Outside(_) | Services::Nobody => None,
        });
        asked.await?
    }
}

#[async_trait]
impl Relay for SimRelay {
    async fn locate(&self, request: wire::RelayLocateRequest) -> Result<wire::RelayLocateResponse, Status> {
        self.ask(move |relay| {
            let request = request.clone();
            async move { relay.locate(request).await }
        })
        .await
    }

    async fn call(
        &self,
        request: wire::RelayCallRequest,
    ) -> Result<BoxStream<'static, Result<wire::RelayCallEvent, Status>>, Status> {
        let opener = Opener { net: &self.net, me: self.me, tasks: &self.tasks };
        let says_nothing = futures::stream::pending::<()>().boxed();
        Ok(opener.open(self.to, says_nothing, move |services, left| match services {
            Services::Replica(Replica { hub, .. }) => {
                let request = request.clone();
                Some(async move {
                    let events = hub.relay().call(request).await.ok()?;
                    Some(events.take_until(left.collect::<Vec<()>>()).boxed())
                })
            }
            Services::Outside(_) | Services::Nobody => None,
        }))
    }

    async fn cancel(&self, request: wire::RelayCancelRequest) -> Result<wire::RelayCancelResponse, Status> {
        self.ask(move |relay| {
            let request = request.clone();
            async move { relay.cancel(request).await }
        })
        .await
    }

    async fn reports(
        &self,
        request: wire::RelayReportsRequest,
    ) -> Result<wire::RelayReportsResponse, Status> {
        self.ask(move |relay| {
            let request = request.clone();
            async move { relay.reports(request).await }
        })
        .await
    }
}
