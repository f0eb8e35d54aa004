//! Who may call what on the peer port. A certificate says which replica calls; whether it still belongs to the fleet is
//! looked up with each request, so that a removed replica is out at once, connections that it holds included.
//!
//! Consensus itself and the request for a place stay open to every replica that was not removed: one that lags must be
//! able to learn of members that it does not know yet, and a new one has no place before it asks.

use std::sync::Arc;

use agent_client_grpc::PeerCertificates;
use axum::Router;
use axum::extract::{Request, State as Extract};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use model::NodeId;
use raft::Node;
use state::State;
use state::log::CommandLog as _;
use tonic::Status;
use tracing::warn;

use super::log::RaftLog;
use crate::tls::replica_named_in;

/// What is open to replicas that are not members (yet).
const OPEN: &[&str] = &["/directorate.peer.v1.Raft/", "/directorate.peer.v1.Fleet/Promote"];

/// Looks at every request on the peer port.
#[derive(Clone)]
pub struct PeerGate {
    node: Node,
    log: RaftLog,
}

/// What a replica is to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It belongs to the fleet.
    Member,
    /// It was removed, for good.
    Removed,
    /// Neither is known here.
    Unknown,
}

/// Returns whether a replica of some standing may ask for `path`.
fn may(standing: Standing, path: &str) -> bool {
    match standing {
        Standing::Member => true,
        Standing::Removed => false,
        Standing::Unknown => OPEN.iter().any(|open| path.starts_with(open)),
    }
}

impl PeerGate {
    /// Makes the gate of a replica.
    pub fn new(node: Node, log: RaftLog) -> Self {
        Self { node, log }
    }

    /// Puts the gate before `routes`.
    pub fn guard(self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(Arc::new(self), check))
    }

    fn standing(&self, replica: NodeId) -> Standing {
        let view = self.log.view();
        let state = State::new(&*view);
        if state.is_removed_member(replica) {
            return Standing::Removed;
        }
        // A new replica knows nobody until the state has arrived; it has nothing that its peers do not have.
        let no_state_yet = || state.cluster().is_none();
        let in_consensus = || self.node.status().members.iter().any(|m| m.id == replica.0);
        match state.member(replica).is_some() || no_state_yet() || in_consensus() {
            true => Standing::Member,
            false => Standing::Unknown,
        }
    }
}

async fn check(Extract(gate): Extract<Arc<PeerGate>>, request: Request, next: Next) -> Response {
    let certificates = request.extensions().get::<PeerCertificates>();
    let replica = certificates.and_then(|c| c.0.first()).and_then(replica_named_in);
    let Some(replica) = replica else {
        return Status::permission_denied("only replicas may ask this")
            .into_http::<axum::body::Body>()
            .into_response();
    };
    let standing = gate.standing(replica);
    if may(standing, request.uri().path()) {
        return next.run(request).await;
    }
    let path = request.uri().path();
    warn!(node = %replica, ?standing, path, "refused on the peer port");
    let text = format!("replica {replica} does not belong to this fleet");
    Status::permission_denied(text).into_http::<axum::body::Body>().into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use rcgen::KeyPair;
    use rustls_pki_types::pem::PemObject as _;
    use state::command::Command;
    use tower::ServiceExt as _;

    use super::*;
    use crate::identity::{Authority, Names};
    use crate::test_support::replica::Replica;
    use crate::test_support::state::member;

    fn certificate_of(replica: u64) -> rustls_pki_types::CertificateDer<'static> {
        let (authority, _) = Authority::create("test").unwrap();
        let issued = authority
            .issue_replica(NodeId(replica), &Names::default(), &KeyPair::generate().unwrap())
            .unwrap();
        rustls_pki_types::CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap()
    }

    async fn let_in(gate: &Router, replica: Option<u64>, path: &str) -> bool {
        let mut request = Request::post(path).body(Body::empty()).unwrap();
        if let Some(replica) = replica {
            let leaf = certificate_of(replica);
            request.extensions_mut().insert(PeerCertificates(Arc::new(vec![leaf])));
        }
        let answer = gate.clone().oneshot(request).await.unwrap();
        answer.headers().get("grpc-status").is_none_or(|s| s != "7")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_removed_replica_is_out_and_a_new_one_may_only_ask_for_its_place() {
        let replica = Replica::start().await;
        replica.must(Command::MemberPut { member: member(2) }).await;
        replica.must(Command::MemberPut { member: member(3) }).await;
        replica.must(Command::MemberRemove { node: NodeId(3) }).await;
        let node = replica.door.membership.node.clone();
        let gate = PeerGate::new(node, replica.log.clone()).guard(Router::new());
        let (relay, raft) = ("/directorate.peer.v1.AgentRelay/Call", "/directorate.peer.v1.Raft/Vote");
        let (propose, promote) =
            ("/directorate.peer.v1.Forward/Propose", "/directorate.peer.v1.Fleet/Promote");
        for path in [relay, raft, propose, promote, "/directorate.peer.v1.BlobCopies/Get"] {
            assert!(let_in(&gate, Some(2), path).await, "a member: {path}");
            assert!(!let_in(&gate, Some(3), path).await, "removed: {path}");
            assert!(!let_in(&gate, None, path).await, "not a replica: {path}");
            assert_eq!(let_in(&gate, Some(4), path).await, path == raft || path == promote, "new: {path}");
        }
        assert!(!let_in(&gate, Some(4), "/directorate.peer.v1.Fleet/Remove").await);
        replica.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_removed_replica_does_not_become_a_voter_again() {
        use proto::peer::v1::PromoteRequest;
        use proto::peer::v1::fleet_server::Fleet as _;
        let replica = Replica::start().await;
        replica.must(Command::MemberPut { member: member(3) }).await;
        replica.must(Command::MemberRemove { node: NodeId(3) }).await;
        let mut request =
            tonic::Request::new(PromoteRequest { peer_address: "127.0.0.1:9".into(), ..Default::default() });
        request.extensions_mut().insert(PeerCertificates(Arc::new(vec![certificate_of(3)])));
        let membership = replica.door.membership.clone();
        let node = membership.node.clone();
        let refused =
            crate::fleet::membership::FleetService(membership, replica.kek.clone()).promote(request).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
        assert_eq!(node.status().members.len(), 1);
        replica.stop().await;
    }
}
