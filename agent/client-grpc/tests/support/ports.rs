//! The small traits that a hub needs, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_client_grpc::{
    Alert, BlobAccess, BlobAccessError, BlobStream, HeartbeatSink, Home, Identity, IdentityError,
    IssuedCertificate, PeerAgent, Peers, Placement, Relay, StoredBlob, relay_over,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use health::watcher::Ears;
use model::{AgentId, BlobDigest, Epoch, NodeId};
use sha2::{Digest as _, Sha256};
use tonic::transport::Endpoint;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::{Shared, TOKEN};

/// Issues certificates for the one token, each agent's for its first key.
pub struct TokenIdentity(pub Arc<Shared>);

impl TokenIdentity {
    fn issue(&self, agent: &AgentId, csr_der: &[u8]) -> IssuedCertificate {
        let life = *self.0.life.lock().unwrap();
        let not_after = (SystemTime::now() + life).duration_since(UNIX_EPOCH).unwrap();
        self.0.heard.issued(agent);
        IssuedCertificate {
            chain_pem: self.0.authority.agent(agent, csr_der, life),
            authorities_pem: self.0.authority.pem(),
            not_after_unix: not_after.as_secs() as i64,
        }
    }
}

#[async_trait]
impl Identity for TokenIdentity {
    async fn enroll(
        &self,
        agent: &AgentId,
        token: &str,
        csr_der: &[u8],
    ) -> Result<IssuedCertificate, IdentityError> {
        let key = requested_key(csr_der);
        let mut keys = self.0.keys.lock().unwrap();
        if token != TOKEN || keys.entry(agent.clone()).or_insert_with(|| key.clone()) != &key {
            return Err(IdentityError::Refused { agent: agent.clone() });
        }
        Ok(self.issue(agent, csr_der))
    }

    async fn renew(&self, peer: &PeerAgent, csr_der: &[u8]) -> Result<IssuedCertificate, IdentityError> {
        self.admit(peer).await?;
        assert_eq!(requested_key(csr_der), peer.public_key, "the real one refuses another key");
        Ok(self.issue(&peer.agent, csr_der))
    }

    async fn admit(&self, peer: &PeerAgent) -> Result<(), IdentityError> {
        match self.0.keys.lock().unwrap().get(&peer.agent) {
            Some(key) if *key == peer.public_key => Ok(()),
            _ => {
                self.0.heard.refused(&peer.agent);
                Err(IdentityError::Refused { agent: peer.agent.clone() })
            }
        }
    }
}

fn requested_key(csr_der: &[u8]) -> Vec<u8> {
    let (_, request) = X509CertificationRequest::from_der(csr_der).unwrap();
    request.certification_request_info.subject_pki.subject_public_key.data.to_vec()
}

/// Blobs in memory.
#[derive(Default)]
pub struct MemoryBlobs(Mutex<HashMap<BlobDigest, Bytes>>);

impl MemoryBlobs {
    pub fn add(&self, content: impl Into<Bytes>) -> BlobDigest {
        let content = content.into();
        let digest = BlobDigest::from(hex::encode(Sha256::digest(&content)));
        self.0.lock().unwrap().insert(digest.clone(), content);
        digest
    }

    pub fn get(&self, digest: &str) -> Option<Bytes> {
        self.0.lock().unwrap().get(digest).cloned()
    }
}

#[async_trait]
impl BlobAccess for MemoryBlobs {
    async fn get(&self, _: &AgentId, digest: &BlobDigest) -> Result<BlobStream, BlobAccessError> {
        let content =
            self.get(digest.as_str()).ok_or(BlobAccessError::NotFound { digest: digest.clone() })?;
        Ok(futures::stream::iter([Ok(content)]).boxed())
    }

    async fn put(&self, _: &AgentId, mut content: BlobStream) -> Result<StoredBlob, BlobAccessError> {
        let mut bytes = Vec::new();
        while let Some(piece) = content.next().await {
            bytes.extend(piece?);
        }
        Ok(StoredBlob { size_bytes: bytes.len() as u64, digest: self.add(bytes) })
    }
}

/// Which replica is home, for all agents at once.
#[derive(Default)]
pub struct Homes {
    home: Mutex<Option<String>>,
    live: Mutex<Vec<String>>,
}

impl Homes {
    pub fn set(&self, endpoint: String) {
        *self.home.lock().unwrap() = Some(endpoint);
    }

    pub fn add(&self, endpoint: String) {
        self.live.lock().unwrap().push(endpoint);
    }

    pub fn gone(&self, endpoint: &str) {
        self.live.lock().unwrap().retain(|live| live != endpoint);
    }
}

/// The homes as one replica sees them.
pub struct FleetPlacement {
    pub homes: Arc<Homes>,
    pub own: String,
}

impl Placement for FleetPlacement {
    fn home_of(&self, _: &AgentId) -> Home {
        match self.homes.home.lock().unwrap().clone() {
            Some(home) if home != self.own => Home::Elsewhere(home),
            _ => Home::Here,
        }
    }

    fn endpoints(&self) -> Vec<String> {
        self.homes.live.lock().unwrap().clone()
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }
}

/// What agents said.
#[derive(Default)]
pub struct Heard {
    heartbeats: Mutex<HashMap<AgentId, (u64, Option<agent_api::Heartbeat>)>>,
    certificates: Mutex<HashMap<AgentId, usize>>,
    refusals: Mutex<HashMap<AgentId, usize>>,
    alerts: Mutex<Vec<Alert>>,
}

impl Heard {
    pub fn heartbeats(&self, agent: &AgentId) -> u64 {
        self.heartbeats.lock().unwrap().get(agent).map_or(0, |(count, _)| *count)
    }

    pub fn last(&self, agent: &AgentId) -> Option<agent_api::Heartbeat> {
        self.heartbeats.lock().unwrap().get(agent)?.1.clone()
    }

    pub fn certificates(&self, agent: &AgentId) -> usize {
        self.certificates.lock().unwrap().get(agent).copied().unwrap_or_default()
    }

    pub fn refusals(&self, agent: &AgentId) -> usize {
        self.refusals.lock().unwrap().get(agent).copied().unwrap_or_default()
    }

    fn refused(&self, agent: &AgentId) {
        *self.refusals.lock().unwrap().entry(agent.clone()).or_default() += 1;
    }

    pub fn alerts(&self) -> Vec<Alert> {
        self.alerts.lock().unwrap().clone()
    }

    fn issued(&self, agent: &AgentId) {
        *self.certificates.lock().unwrap().entry(agent.clone()).or_default() += 1;
    }
}

/// Hears for one replica's watcher, and for the test.
pub struct EarsAndMemory {
    pub ears: Arc<Ears>,
    pub memory: Arc<Heard>,
}

impl HeartbeatSink for EarsAndMemory {
    fn heartbeat(&self, heartbeat: agent_api::Heartbeat) {
        self.ears.heard(&heartbeat.agent);
        let mut heartbeats = self.memory.heartbeats.lock().unwrap();
        let (count, last) = heartbeats.entry(heartbeat.agent.clone()).or_default();
        *count += 1;
        *last = Some(heartbeat);
    }

    fn alert(&self, _: &AgentId, alert: Alert) {
        self.memory.alerts.lock().unwrap().push(alert);
    }

    fn connected(&self, agent: &AgentId) {
        self.ears.heard(agent);
    }

    fn disconnected(&self, _: &AgentId) {}
}

/// The other replicas as one of them sees them.
pub struct FleetPeers {
    pub node: NodeId,
    pub shared: Arc<Shared>,
}

impl Peers for FleetPeers {
    fn replicas(&self) -> Vec<NodeId> {
        self.shared.peer_ports.lock().unwrap().keys().copied().filter(|node| *node != self.node).collect()
    }

    fn relay(&self, node: NodeId) -> Option<Arc<dyn Relay>> {
        let port = *self.shared.peer_ports.lock().unwrap().get(&node)?;
        Some(relay_over(Endpoint::from_shared(format!("http://{port}")).ok()?.connect_lazy()))
    }
}
