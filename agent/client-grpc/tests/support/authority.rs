//! A certificate authority.

use std::time::{Duration, SystemTime};

use model::AgentId;
use model::agent_settings::DIRECTOR_TLS_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyPair,
};
use tonic::transport::Identity;

/// Issues certificates to directors and agents.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// Returns a director's key and certificate.
    pub fn director(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![DIRECTOR_TLS_NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        super::identity_of(certificate.pem(), key.serialize_pem())
    }

    /// Signs an agent's request; whose it is comes from the caller, not from the request.
    pub fn agent(&self, agent: &AgentId, csr_der: &[u8], life: Duration) -> String {
        let der = csr_der.to_vec().into();
        let mut request = CertificateSigningRequestParams::from_der(&der).unwrap();
        request.params.distinguished_name = DistinguishedName::new();
        request.params.distinguished_name.push(DnType::CommonName, format!("agent:{agent}"));
        request.params.not_after = (SystemTime::now() + life).into();
        request.signed_by(&self.issuer).unwrap().pem()
    }
}
