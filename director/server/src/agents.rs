//! What the agents' hub needs from this replica: certificates, blobs, homes, and ears for heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_api::JobState;
use agent_client_grpc::{
    Alert, BlobAccess, BlobAccessError, BlobStream, HeartbeatSink, Identity, IdentityError,
    IssuedCertificate, PeerAgent, Peers, Placement as _, Relay, StoredBlob, relay_over,
};
use async_trait::async_trait;
use cpi_api::{AgentBootstrap, Mbus};
use executor::ports::Enrollment;
use futures::StreamExt as _;
use health::watcher::Ears;
use model::{AgentId, BlobDigest, NodeId};
use release::{BlobError, Blobstore as _};
use ring::digest::{SHA256, digest};
use state::State;
use state::command::{Command, Refusal};
use state::log::{CommandLog as _, LogError, Proposal};
use state::records::BusCertificate;
use tokio_util::io::{ReaderStream, StreamReader};
use tracing::{info, warn};

use crate::alerts::AlertDesk;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::homes::Homes;
use crate::fleet::log::RaftLog;
use crate::fleet::peers::PeerChannels;
use crate::nats::Nats;
use crate::secrets::{AgentTokens, Kek};
use crate::wire::open_authority;

/// Bytes in one piece of a blob.
const PIECE_BYTES: usize = 256 * 1024;

/// The largest blob that an agent may store: compiled packages and logs of jobs are far smaller, and a broken agent must
/// not fill the disks of all replicas.
const BLOB_BYTES_MAX: u64 = 8 << 30;

/// This replica's side of its agents.
pub struct AgentSide {
    /// This replica.
    pub id: NodeId,
    /// The log.
    pub log: RaftLog,
    /// The fleet's key.
    pub kek: Kek,
    /// The fleet's blobs.
    pub blobs: Arc<FleetBlobs>,
    /// Connections to peers.
    pub peers: Arc<PeerChannels>,
    /// What is heard.
    pub ears: Arc<Ears>,
    /// Where alerts go.
    pub alerts: AlertDesk,
    /// The bus of BOSH's agents, where there is one.
    pub nats: Option<Arc<Nats>>,
}

impl AgentSide {
    /// Returns where agents belong.
    pub fn homes(&self) -> Homes {
        Homes { id: self.id, log: self.log.clone() }
    }

    fn admission(&self) -> Admission {
        Admission { log: self.log.clone() }
    }

    fn issue(&self, agent: &AgentId, csr_der: &[u8]) -> Result<IssuedCertificate, IdentityError> {
        let unavailable = |reason: String| IdentityError::Unavailable { agent: agent.clone(), reason };
        let view = self.log.view();
        let cluster = State::new(&*view).cluster().ok_or_else(|| unavailable("no fleet yet".into()))?;
        let authority = open_authority(&cluster, &self.kek).map_err(|e| unavailable(e.to_string()))?;
        let issued = authority
            .issue_agent(agent, csr_der)
            .map_err(|e| IdentityError::BadRequest { agent: agent.clone(), reason: e.to_string() })?;
        Ok(IssuedCertificate {
            chain_pem: issued.chain_pem,
            authorities_pem: authority.certificate_pem().to_owned(),
            not_after_unix: issued.not_after_unix,
        })
    }

    /// Files which key an agent has; refused when it is another one than the first.
    async fn enrolled(
        &self,
        agent: &AgentId,
        key_digest: String,
        token_generation: u32,
    ) -> Result<(), IdentityError> {
        let enroll = Command::AgentEnroll { agent: agent.clone(), key_digest, token_generation };
        let committed = self
            .log
            .propose(Proposal::own(enroll))
            .await
            .map_err(|e| IdentityError::Unavailable { agent: agent.clone(), reason: e.to_string() })?;
        match committed.outcome.accepted() {
            Ok(_) => Ok(()),
            Err(
                refusal @ (Refusal::NotFound { .. }
                | Refusal::AgentKeyTaken { .. }
                | Refusal::AgentTokenReplaced { .. }),
            ) => {
                warn!(agent = %agent, %refusal, "an agent was refused");
                Err(IdentityError::Refused { agent: agent.clone() })
            }
            Err(other) => Err(IdentityError::Unavailable { agent: agent.clone(), reason: other.to_string() }),
        }
    }
}

/// What this replica's state says of an agent that shows a certificate.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Its VM is there, and this is its key.
    Good,
    /// Its VM is gone, or another one has taken its place. Or this replica lags.
    Unknown,
}

/// Knows which agents still count.
pub struct Admission {
    /// The log.
    pub log: RaftLog,
}

impl Admission {
    /// Lets an agent in that shows the key it has enrolled with, as long as its VM is there.
    pub async fn admit(&self, peer: &PeerAgent) -> Result<(), IdentityError> {
        if self.standing(peer) == Standing::Good {
            return Ok(());
        }
        // Before an agent is sent away for what this replica does not know, it has to know everything.
        let unavailable =
            |e: LogError| IdentityError::Unavailable { agent: peer.agent.clone(), reason: e.to_string() };
        self.log.read_barrier().await.map_err(unavailable)?;
        match self.standing(peer) {
            Standing::Good => Ok(()),
            Standing::Unknown => {
                warn!(agent = %peer.agent, "an agent was refused: it has no VM any more, or not this key");
                Err(IdentityError::Refused { agent: peer.agent.clone() })
            }
        }
    }

    fn standing(&self, peer: &PeerAgent) -> Standing {
        let view = self.log.view();
        let record = State::new(&*view).agent(&peer.agent);
        match record.and_then(|record| record.key_digest) {
            Some(known) if known == digest_of(&peer.public_key) => Standing::Good,
            _ => Standing::Unknown,
        }
    }
}

/// Returns what is filed of an agent's key.
pub fn digest_of(public_key: &[u8]) -> String {
    hex::encode(digest(&SHA256, public_key))
}

/// Returns the digest of the public key in a certificate request.
fn requested_key(agent: &AgentId, csr_der: &[u8]) -> Result<String, IdentityError> {
    use x509_parser::prelude::FromDer as _;
    let request = x509_parser::certification_request::X509CertificationRequest::from_der(csr_der);
    let unreadable =
        |_| IdentityError::BadRequest { agent: agent.clone(), reason: "it has no readable key".into() };
    let (_, request) = request.map_err(unreadable)?;
    Ok(digest_of(&request.certification_request_info.subject_pki.subject_public_key.data))
}

#[async_trait]
impl Identity for AgentSide {
    async fn enroll(
        &self,
        agent: &AgentId,
        token: &str,
        csr_der: &[u8],
    ) -> Result<IssuedCertificate, IdentityError> {
        let Some(generation) = AgentTokens::new(&self.kek).generation(agent, token) else {
            return Err(IdentityError::Refused { agent: agent.clone() });
        };
        self.enrolled(agent, requested_key(agent, csr_der)?, generation).await?;
        self.issue(agent, csr_der)
    }

    async fn renew(&self, peer: &PeerAgent, csr_der: &[u8]) -> Result<IssuedCertificate, IdentityError> {
        let agent = &peer.agent;
        if requested_key(agent, csr_der)? != digest_of(&peer.public_key) {
            let reason = "a certificate is renewed for the key that it was issued for".into();
            return Err(IdentityError::BadRequest { agent: agent.clone(), reason });
        }
        self.admit(peer).await?;
        self.issue(agent, csr_der)
    }

    async fn admit(&self, peer: &PeerAgent) -> Result<(), IdentityError> {
        self.admission().admit(peer).await
    }
}

fn access_error(error: BlobError) -> BlobAccessError {
    match error {
        BlobError::NotFound { digest } => BlobAccessError::NotFound { digest },
        BlobError::InvalidDigest { text } => BlobAccessError::NotFound { digest: BlobDigest::new(text) },
        other => BlobAccessError::Unavailable { reason: other.to_string() },
    }
}

#[async_trait]
impl BlobAccess for AgentSide {
    async fn get(&self, _: &AgentId, digest: &BlobDigest) -> Result<BlobStream, BlobAccessError> {
        let reader = self.blobs.get(digest).await.map_err(access_error)?;
        let pieces = ReaderStream::with_capacity(reader, PIECE_BYTES);
        let pieces = pieces.map(|p| p.map_err(|e| BlobAccessError::Unavailable { reason: e.to_string() }));
        Ok(pieces.boxed())
    }

    async fn put(&self, _: &AgentId, content: BlobStream) -> Result<StoredBlob, BlobAccessError> {
        let (mut reader, too_large) = bounded(content, BLOB_BYTES_MAX);
        let stored =
            self.blobs.put(&mut reader).await.map_err(|error| match too_large.load(Ordering::Relaxed) {
                true => BlobAccessError::TooLarge { bytes_max: BLOB_BYTES_MAX },
                false => access_error(error),
            })?;
        Ok(StoredBlob { digest: stored.digest, size_bytes: stored.bytes })
    }
}

/// Reads at most `bytes_max` of a stream; more is a read error, of which the flag tells.
fn bounded(
    content: BlobStream,
    bytes_max: u64,
) -> (impl tokio::io::AsyncRead + Send + Unpin, Arc<AtomicBool>) {
    let too_large = Arc::new(AtomicBool::new(false));
    let (flag, mut seen) = (too_large.clone(), 0u64);
    let pieces = content.map(move |piece| {
        let piece = piece.map_err(std::io::Error::other)?;
        seen = seen.saturating_add(piece.len() as u64);
        if seen > bytes_max {
            flag.store(true, Ordering::Relaxed);
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
        }
        Ok(piece)
    });
    (StreamReader::new(pieces), too_large)
}

impl HeartbeatSink for AgentSide {
    fn heartbeat(&self, heartbeat: agent_api::Heartbeat) {
        self.ears.jobs(&heartbeat.agent, heartbeat.job_state == JobState::Running);
        self.ears.heard(&heartbeat.agent);
    }

    fn alert(&self, agent: &AgentId, alert: Alert) {
        info!(agent = %agent, severity = alert.severity, title = alert.title, "an agent's supervisor has noticed something");
        self.alerts.hand_in(agent, alert);
    }

    fn connected(&self, agent: &AgentId) {
        self.ears.heard(agent);
    }

    fn disconnected(&self, _agent: &AgentId) {}
}

impl Peers for AgentSide {
    fn replicas(&self) -> Vec<NodeId> {
        let view = self.log.view();
        State::new(&*view).members().into_iter().map(|m| m.node).filter(|n| *n != self.id).collect()
    }

    fn relay(&self, node: NodeId) -> Option<Arc<dyn Relay>> {
        let view = self.log.view();
        let member = State::new(&*view).member(node)?;
        self.peers.shared(node, &member.peer_address).ok().map(relay_over)
    }
}

impl Enrollment for AgentSide {
    fn bootstrap(&self, agent: &AgentId) -> AgentBootstrap {
        let view = self.log.view();
        let state = State::new(&*view);
        let generation = state.agent(agent).map(|record| record.token_generation).unwrap_or_default();
        let authorities_pem = state.cluster().map(|c| c.secrets.authority_pem).unwrap_or_default();
        AgentBootstrap {
            endpoints: self.homes().endpoints(),
            token: AgentTokens::new(&self.kek).token(agent, generation),
            mbus: self.mbus(agent),
            blobstore: self
                .nats
                .as_ref()
                .and_then(|nats| nats.blobs.blobstore(agent, authorities_pem.clone())),
            authorities_pem,
        }
    }

    fn due(&self, agent: &AgentId) -> Option<BusCertificate> {
        self.nats.as_ref().and_then(|nats| nats.due(agent))
    }

    fn mbus(&self, agent: &AgentId) -> Option<Mbus> {
        self.nats.as_ref().and_then(|nats| nats.mbus(agent))
    }
}

#[cfg(test)]
#[path = "agents_tests.rs"]
mod tests;
