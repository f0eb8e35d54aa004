//! Who is at the other end of a connection, by its certificate.

use std::sync::Arc;

use model::AgentId;
use rustls_pki_types::CertificateDer;
use tonic::{Request, Status};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ports::PeerAgent;

/// What an agent's name in a certificate starts with.
const AGENT_PREFIX: &str = "agent:";

/// The client's verified certificates, leaf first.
///
/// tonic's own TLS and `serve_with_incoming` leave them where the hub finds them. A server that does TLS in another
/// way puts this into the extensions of each HTTP request.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<Vec<CertificateDer<'static>>>);

/// Returns the agent that a request's connection belongs to.
pub(crate) fn agent_of<T>(request: &Request<T>) -> Result<PeerAgent, Status> {
    let certificates = request
        .peer_certs()
        .or_else(|| request.extensions().get::<PeerCertificates>().map(|found| found.0.clone()))
        .ok_or_else(|| Status::unauthenticated("an agent's certificate is needed"))?;
    let leaf =
        certificates.first().ok_or_else(|| Status::unauthenticated("the certificate chain is empty"))?;
    agent_in(leaf).ok_or_else(|| Status::permission_denied("the certificate does not belong to an agent"))
}

fn agent_in(leaf: &CertificateDer<'_>) -> Option<PeerAgent> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let public_key = certificate.public_key().subject_public_key.data.to_vec();
    Some(PeerAgent { agent: name_in(&certificate)?, public_key })
}

fn name_in(certificate: &X509Certificate<'_>) -> Option<AgentId> {
    let common_name =
        certificate.subject().iter_common_name().find_map(|name| name.as_str().ok()).map(str::to_owned);
    let alternative = || {
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(AGENT_PREFIX) => Some((*uri).to_owned()),
            _ => None,
        })
    };
    let name = common_name.filter(|name| name.starts_with(AGENT_PREFIX)).or_else(alternative)?;
    name.strip_prefix(AGENT_PREFIX).filter(|id| !id.is_empty()).map(AgentId::from)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[track_caller]
    fn check(common_name: &str, uri: Option<&str>, expect: Option<&str>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let found = agent_in(params.self_signed(&key).unwrap().der());
        assert_eq!(found.as_ref().map(|peer| peer.agent.as_str()), expect);
        assert!(found.is_none_or(|peer| peer.public_key == key.public_key_raw()));
    }

    #[test]
    fn only_an_agent_s_name_counts() {
        check("agent:a-1", None, Some("a-1"));
        check("whoever", Some("agent:a-2"), Some("a-2"));
        check("a-3", None, None);
        check("agent:", None, None);
        check("director:1", Some("spiffe://x/agent:a-4"), None);
    }
}
