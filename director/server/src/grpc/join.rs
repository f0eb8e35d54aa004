//! Letting a replica join: a single-use token against a number, a certificate and the fleet's key.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::v1 as pb;
use proto::v1::join_server::Join;
use ring::digest::{SHA256, digest};
use service::ServiceError;
use state::State;
use state::command::Refusal;
use state::log::CommandLog as _;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::cluster::TOKEN_PREFIX;
use crate::door::Door;
use crate::error_map::{bad_request, internal, status, unauthenticated, unavailable};
use crate::identity::Names;
use crate::secrets::hash_of_secret;
use crate::wire::open_authority;

/// Strangers for whose tokens the fleet is asked at once.
const ASKED_FOR_AT_ONCE: usize = 4;

/// How long that may take.
const ASKING: Duration = Duration::from_secs(5);

/// Where replicas join.
#[derive(Clone)]
pub struct JoinDesk(Door, Arc<Semaphore>);

impl JoinDesk {
    /// Opens the desk.
    pub fn new(door: Door) -> Self {
        Self(door, Arc::new(Semaphore::new(ASKED_FOR_AT_ONCE)))
    }

    fn knows(&self, hash: &str) -> bool {
        let view = self.0.membership.log.view();
        State::new(&*view).join_token(hash).is_some()
    }

    /// Fails unless the token exists. Only then is anything written: nobody who merely reaches this port may fill the log.
    async fn check_token(&self, hash: &str) -> Result<(), Status> {
        if self.knows(hash) {
            return Ok(());
        }
        // This replica may lag. A few strangers at a time have the fleet asked; it costs the leader a round of heartbeats.
        let _place = self.1.try_acquire().map_err(|_| status(ServiceError::Busy("replicas are joining")))?;
        let asked = tokio::time::timeout(ASKING, self.0.membership.log.read_barrier()).await;
        asked.map_err(|_| unavailable("the fleet does not answer"))?.map_err(|e| status(e.into()))?;
        match self.knows(hash) {
            true => Ok(()),
            false => {
                warn!("a replica was refused: its join token is unknown");
                Err(status(Refusal::BadToken.into()))
            }
        }
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
        return Err(bad_request("the certificate request is not valid"));
    }
    let ours =
        |host: &String| host.to_ascii_lowercase().trim_end_matches('.').ends_with(".directorate.internal");
    match wish.hosts.iter().find(|host| ours(host)) {
        Some(host) => Err(bad_request(format!("`{host}` is a name that replicas have among themselves"))),
        None if wish.hosts.len() > HOSTS_MAX => Err(bad_request("too many host names")),
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
                return Err(unauthenticated(
                    "this is not a join token: get one with `dctl cluster join-token`",
                ));
            }
        };
        // First what can be checked without using the token up.
        check(&wish)?;
        let hash = hash_of_secret(secret);
        self.check_token(&hash).await?;
        // Bound to the request's key: a repeat after a lost answer gets the same number, a thief gets nothing.
        let key_digest = hex::encode(digest(&SHA256, &wish.csr_der));
        let node = self.0.service.use_join_token(hash, key_digest).await.map_err(|error| {
            warn!(name = wish.name, error = %error, "a replica was refused");
            status(error)
        })?;
        let view = self.0.membership.log.view();
        let state = State::new(&*view);
        // A repeat gets its first answer, but not after the replica that it made was removed.
        if state.is_removed_member(node) {
            warn!(node = %node, name = wish.name, "a removed replica was refused");
            return Err(unauthenticated(format!("replica {node} was removed: get a new join token")));
        }
        let cluster = state.cluster().ok_or_else(|| unavailable("the fleet is not initialised yet"))?;
        let authority = open_authority(&cluster, &self.0.kek).map_err(|e| internal(e.to_string()))?;
        let names = Names { hosts: wish.hosts };
        let issued = authority.issue_replica_csr(node, &names, &wish.csr_der);
        let issued = issued.map_err(|e| bad_request(format!("the certificate request is not valid: {e}")))?;
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
