//! What the hub needs from the replica it lives in.

use std::sync::Arc;

pub use agent_api::{Alert, HeartbeatSink};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{AgentId, BlobDigest, Epoch, NodeId};
use proto::peer::v1::{
    RelayCallEvent, RelayCallRequest, RelayCancelRequest, RelayCancelResponse, RelayLocateRequest,
    RelayLocateResponse, RelayReportsRequest, RelayReportsResponse,
};
use tonic::Status;

/// A certificate for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Leaf first. Its common name, or a URI among its alternative names, is `agent:<id>`.
    pub chain_pem: String,
    /// Every authority that directors' certificates may come from.
    pub authorities_pem: String,
    /// End of validity, seconds since the Unix epoch.
    pub not_after_unix: i64,
}

/// Why no certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The token is unknown, used with another key, replaced, or bound to another agent; or the certificate has outlived
    /// its VM. Does not say which.
    #[error("this is not agent {agent}, or not any more")]
    Refused {
        /// Who asked.
        agent: AgentId,
    },
    /// The request can't be read, or its signature is wrong.
    #[error("the certificate request of agent {agent} is not valid: {reason}")]
    BadRequest {
        /// Who asked.
        agent: AgentId,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer now; another try may help.
    #[error("no certificate can be issued for agent {agent} now: {reason}")]
    Unavailable {
        /// Who asked.
        agent: AgentId,
        /// What is missing.
        reason: String,
    },
}

/// Who a connection belongs to, by its verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAgent {
    /// The agent that the certificate names.
    pub agent: AgentId,
    /// The public key that it was issued for, as it stands in the certificate.
    pub public_key: Vec<u8>,
}

/// Issues certificates to agents, and knows which ones still count.
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// Exchanges a single-use token for a certificate. A repeat with the same token and the same public key gives one again.
    async fn enroll(
        &self,
        agent: &AgentId,
        token: &str,
        csr_der: &[u8],
    ) -> Result<IssuedCertificate, IdentityError>;

    /// Renews the certificate of an agent that has proved who it is by its present one, for the same key.
    async fn renew(&self, peer: &PeerAgent, csr_der: &[u8]) -> Result<IssuedCertificate, IdentityError>;

    /// Fails for an agent whose certificate has outlived its VM, or its place in it. Asked on every dial and for every
    /// blob: answers from memory where it can.
    async fn admit(&self, peer: &PeerAgent) -> Result<(), IdentityError>;
}

/// A blob's bytes in pieces.
pub type BlobStream = BoxStream<'static, Result<Bytes, BlobAccessError>>;

/// A blob that is stored for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its address.
    pub digest: BlobDigest,
    /// Its length.
    pub size_bytes: u64,
}

/// Why a blob can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobAccessError {
    /// There is none with this digest, or the agent has no business with it.
    #[error("no blob {digest}")]
    NotFound {
        /// What was asked for.
        digest: BlobDigest,
    },
    /// The content is larger than is allowed.
    #[error("the blob is larger than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// No answer now; another try may help.
    #[error("blobs can't be reached now: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
}

/// Blobs, streamed both ways; nothing is held in memory whole.
#[async_trait]
pub trait BlobAccess: Send + Sync + 'static {
    /// Opens a blob for `agent`.
    async fn get(&self, agent: &AgentId, digest: &BlobDigest) -> Result<BlobStream, BlobAccessError>;

    /// Stores what an agent sends; answers once a majority of replicas holds it.
    async fn put(&self, agent: &AgentId, content: BlobStream) -> Result<StoredBlob, BlobAccessError>;
}

/// Where an agent belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// On this replica, or nowhere in particular.
    Here,
    /// On the replica whose agent port is this `host:port`.
    Elsewhere(String),
}

/// Which replica watches which agent. Answers from memory: it is asked on every dial.
pub trait Placement: Send + Sync + 'static {
    /// Returns the agent's home.
    fn home_of(&self, agent: &AgentId) -> Home;

    /// Returns `host:port` of every replica's agent port; agents keep the list for their next dial.
    fn endpoints(&self) -> Vec<String>;

    /// Returns the leader's epoch as far as this replica knows.
    fn epoch(&self) -> Epoch;
}

/// The other replicas.
pub trait Peers: Send + Sync + 'static {
    /// Returns every other replica.
    fn replicas(&self) -> Vec<NodeId>;

    /// Returns the way to the agents of a replica; `None` for one that has left.
    fn relay(&self, node: NodeId) -> Option<Arc<dyn Relay>>;
}

/// Events of a call under way at another replica; the last one is how it ended.
pub type RelayCallEvents = BoxStream<'static, Result<RelayCallEvent, Status>>;

/// A replica, as others reach the agents whose streams it holds: what is said on the wire.
#[async_trait]
pub trait Relay: Send + Sync {
    /// Waits for an agent, for as long as the request says, and tells whether it is heard there.
    async fn locate(&self, request: RelayLocateRequest) -> Result<RelayLocateResponse, Status>;

    /// Has an agent do something.
    async fn call(&self, request: RelayCallRequest) -> Result<RelayCallEvents, Status>;

    /// Has an agent give something up.
    async fn cancel(&self, request: RelayCancelRequest) -> Result<RelayCancelResponse, Status>;

    /// Tells what agents said of themselves.
    async fn reports(&self, request: RelayReportsRequest) -> Result<RelayReportsResponse, Status>;
}
