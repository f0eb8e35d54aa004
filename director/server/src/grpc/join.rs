//! Letting a replica join: a single-use token against a number, a certificate and the fleet's key.

use async_trait::async_trait;
use proto::v1 as pb;
use proto::v1::join_server::Join;
use ring::digest::{SHA256, digest};
use state::State;
use state::log::CommandLog as _;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::Door;
use super::cluster::{TOKEN_PREFIX, token_hash};
use crate::error_map::status;
use crate::identity::Names;
use crate::wire::open_authority;

/// Where replicas join.
#[derive(Clone)]
pub struct JoinDesk(Door);

impl JoinDesk {
    /// Opens the desk.
    pub fn new(door: Door) -> Self {
        Self(door)
    }
}

/// Host names of one replica; it has three ports and a few names for each.
const HOSTS_MAX: usize = 32;

/// Refuses a request that no certificate could be given for. Names of our own are never given on request: by those
/// replicas recognize each other.
fn check(wish: &pb::JoinRequest) -> Result<(), Status> {
    use x509_parser::prelude::FromDer as _;
    let csr = x509_parser::certification_request::X509CertificationRequest::from_der(&wish.csr_der);
    if !csr.is_ok_and(|(_, csr)| csr.verify_signature().is_ok()) {
        return Err(Status::invalid_argument("the certificate request is not valid"));
    }
    let ours =
        |host: &String| host.to_ascii_lowercase().trim_end_matches('.').ends_with(".directorate.internal");
    match wish.hosts.iter().find(|host| ours(host)) {
        Some(host) => {
            Err(Status::invalid_argument(format!("`{host}` is a name that replicas have among themselves")))
        }
        None if wish.hosts.len() > HOSTS_MAX => Err(Status::invalid_argument("too many host names")),
        None => Ok(()),
    }
}

#[async_trait]
impl Join for JoinDesk {
    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let wish = request.into_inner();
        let mut parts = wish.token.split('.');
        let secret = match (parts.next(), parts.next()) {
            (Some(TOKEN_PREFIX), Some(secret)) => secret,
            _ => {
                return Err(Status::unauthenticated(
                    "this is not a join token: get one with `dctl cluster join-token`",
                ));
            }
        };
        // First what can be checked without using the token up.
        check(&wish)?;
        // Bound to the request's key: a repeat after a lost answer gets the same number, a thief gets nothing.
        let key_digest = hex::encode(digest(&SHA256, &wish.csr_der));
        let node = self.0.service.use_join_token(token_hash(secret), key_digest).await.map_err(|error| {
            warn!(name = wish.name, error = %error, "a replica was refused");
            status(error)
        })?;
        let view = self.0.membership.log.view();
        let state = State::new(&*view);
        // A repeat gets its first answer, but not after the replica that it made was removed.
        if state.is_removed_member(node) {
            warn!(node = %node, name = wish.name, "a removed replica was refused");
            return Err(Status::unauthenticated(format!("replica {node} was removed: get a new join token")));
        }
        let cluster =
            state.cluster().ok_or_else(|| Status::unavailable("the fleet is not initialised yet"))?;
        let authority = open_authority(&cluster, &self.0.kek).map_err(|e| Status::internal(e.to_string()))?;
        let names = Names { hosts: wish.hosts };
        let issued = authority.issue_replica_csr(node, &names, &wish.csr_der);
        let issued = issued
            .map_err(|e| Status::invalid_argument(format!("the certificate request is not valid: {e}")))?;
        info!(node = %node, name = wish.name, "a replica joins");
        let members = state.members().into_iter().map(|m| pb::MemberStatus {
            id: m.node.0,
            name: m.name,
            api_address: m.api_address,
            peer_address: m.peer_address,
            agent_address: m.agent_address,
            ..pb::MemberStatus::default()
        });
        Ok(Response::new(pb::JoinResponse {
            node_id: node.0,
            cluster_id: cluster.cluster_id,
            chain_pem: issued.chain_pem,
            authorities_pem: authority.certificate_pem().to_owned(),
            kek: self.0.kek.bytes().to_vec().into(),
            members: members.collect(),
        }))
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
