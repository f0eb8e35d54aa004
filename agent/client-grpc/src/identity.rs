//! `AgentIdentity`: the only service that answers without a client certificate.

use std::sync::Arc;

use model::AgentId;
use proto::agent::v1::agent_identity_server::AgentIdentity;
use proto::agent::v1::{Certificate, EnrollRequest, RenewRequest};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::hub::AgentHub;
use crate::peer_certificate::agent_of;
use crate::ports::{IdentityError, IssuedCertificate};

/// The service; see the module's header.
pub(crate) struct IdentityService {
    hub: Arc<AgentHub>,
}

impl IdentityService {
    pub(crate) fn new(hub: Arc<AgentHub>) -> Self {
        Self { hub }
    }
}

#[tonic::async_trait]
impl AgentIdentity for IdentityService {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<Certificate>, Status> {
        let request = request.into_inner();
        let agent = AgentId::from(request.agent_id);
        let issued = self.hub.parts.identity.enroll(&agent, &request.token, &request.csr_der).await;
        answer(&agent, issued)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let peer = agent_of(&request)?;
        let issued = self.hub.parts.identity.renew(&peer, &request.into_inner().csr_der).await;
        answer(&peer.agent, issued)
    }
}

fn answer(
    agent: &AgentId,
    issued: Result<IssuedCertificate, IdentityError>,
) -> Result<Response<Certificate>, Status> {
    match issued {
        Ok(issued) => {
            info!(agent = %agent, not_after_unix = issued.not_after_unix, "agent got a certificate");
            Ok(Response::new(Certificate {
                chain_pem: issued.chain_pem,
                authorities_pem: issued.authorities_pem,
                not_after_unix: issued.not_after_unix,
            }))
        }
        Err(error) => {
            warn!(agent = %agent, error = %error, "agent got no certificate");
            Err(status(&error))
        }
    }
}

pub(crate) fn status(error: &IdentityError) -> Status {
    match error {
        IdentityError::Refused { .. } => Status::unauthenticated(error.to_string()),
        IdentityError::BadRequest { .. } => Status::invalid_argument(error.to_string()),
        IdentityError::Unavailable { .. } => Status::unavailable(error.to_string()),
    }
}
