//! The fleet's certificate authority. Its key is in the state, encrypted; so every replica can give certificates.

use std::net::IpAddr;

use model::agent_settings::DIRECTOR_TLS_NAME;
use model::{AgentId, NodeId};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;
use time::{Duration, OffsetDateTime};

/// How far the clocks of two machines of a fleet may be apart. Somebody who sets a date by hand is a day off, not more.
pub(super) const CLOCKS_APART: Duration = Duration::hours(25);

/// How long a replica's certificate is valid. Renewed once only two thirds are left, without a restart: what is left must
/// do for a peer whose clock is ahead, with a day to spare for a renewal that does not work.
pub(super) const REPLICA_VALID: Duration = Duration::hours(72);

/// How long an agent's certificate is valid: it must outlive a long loss of all directors, but not a lost VM by much.
/// Agents renew theirs when a third is left, which must do for a director whose clock is ahead.
const AGENT_VALID: Duration = Duration::hours(96);

/// Whose certificate for NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatsValid<'a> {
    /// An agent's, who can't renew it: with a number and an end that are remembered.
    Agent {
        /// The number, in hex.
        serial: &'a str,
        /// The end, seconds since the Unix epoch.
        until_unix: i64,
    },
    /// A director's, who renews it.
    Director,
}

/// How long the authority itself is valid.
const AUTHORITY_VALID: Duration = Duration::days(3650);

/// Something could not be issued or read.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct AuthorityError {
    operation: &'static str,
    #[source]
    source: rcgen::Error,
}

fn failed(operation: &'static str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError { operation, source }
}

/// A certificate as it was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf first.
    pub chain_pem: String,
    /// End of validity, seconds since the Unix epoch.
    pub not_after_unix: i64,
}

/// The names in a replica's certificate.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Host names and addresses under which it is reached.
    pub hosts: Vec<String>,
}

impl Names {
    /// Collects the hosts of `host:port` addresses; loopback is always among them.
    pub fn of_addresses<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let hosts = addresses.into_iter().filter_map(|a| a.rsplit_once(':')).map(|(host, _)| host.to_owned());
        let mut hosts: Vec<String> = hosts.chain(["localhost".into(), "127.0.0.1".into()]).collect();
        hosts.sort();
        hosts.dedup();
        Self { hosts }
    }
}

/// The authority: its certificate and key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// Makes a new authority.
    pub fn create(fleet: &str) -> Result<(Self, String), AuthorityError> {
        let failed = failed("create the fleet's authority");
        let key = KeyPair::generate().map_err(&failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("{fleet} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, AUTHORITY_VALID);
        let certificate_pem = params.self_signed(&key).map_err(&failed)?.pem();
        let key_pem = key.serialize_pem();
        Ok((Self { issuer: Issuer::new(params, key), certificate_pem }, key_pem))
    }

    /// Takes the authority out of what the state keeps.
    pub fn open(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let failed = failed("read the fleet's authority");
        let key = KeyPair::from_pem(key_pem).map_err(&failed)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(&failed)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned() })
    }

    /// Returns the authority's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Gives a replica a certificate for its own key.
    pub fn issue_replica(
        &self,
        node: NodeId,
        names: &Names,
        key: &KeyPair,
    ) -> Result<Issued, AuthorityError> {
        let failed = failed("issue a replica's certificate");
        let params = replica_params(node, names).map_err(&failed)?;
        let certificate = params.signed_by(key, &self.issuer).map_err(&failed)?;
        Ok(self.with_authority(issued(certificate.pem(), &params)))
    }

    /// Puts the authority behind the leaf: a replica that joins knows only the authority's fingerprint, and must be
    /// shown the certificate to check it.
    fn with_authority(&self, issued: Issued) -> Issued {
        Issued { chain_pem: format!("{}{}", issued.chain_pem, self.certificate_pem), ..issued }
    }

    /// Gives a joining replica a certificate for the key of its request. The request's own wishes are ignored.
    pub fn issue_replica_csr(
        &self,
        node: NodeId,
        names: &Names,
        csr: &[u8],
    ) -> Result<Issued, AuthorityError> {
        let failed = failed("issue a replica's certificate");
        let params = replica_params(node, names).map_err(&failed)?;
        self.sign(csr, params, failed).map(|issued| self.with_authority(issued))
    }

    /// Gives an agent a certificate for the key of its request.
    pub fn issue_agent(&self, agent: &AgentId, csr: &[u8]) -> Result<Issued, AuthorityError> {
        let failed = failed("issue an agent's certificate");
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("agent:{agent}"));
        params.subject_alt_names = vec![SanType::URI(uri(&format!("agent:{agent}")).map_err(&failed)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        validity(&mut params, AGENT_VALID);
        self.sign(csr, params, failed)
    }

    /// Gives somebody a key and a certificate of this name for NATS, whose servers know users by the subjects that BOSH gives
    /// them.
    pub fn issue_nats(
        &self,
        common_name: &str,
        valid: NatsValid<'_>,
    ) -> Result<(String, String), AuthorityError> {
        let failed = failed("issue a certificate for NATS");
        let key = KeyPair::generate().map_err(&failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "USA");
        params.distinguished_name.push(DnType::OrganizationName, "Cloud Foundry");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        validity(&mut params, REPLICA_VALID);
        if let NatsValid::Agent { serial, until_unix } = valid {
            // What can't be read is no number that was drawn here: any other will do.
            params.serial_number = hex::decode(serial).ok().map(|bytes| SerialNumber::from_slice(&bytes));
            params.not_after = OffsetDateTime::from_unix_timestamp(until_unix).unwrap_or(params.not_after);
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(&failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn sign(
        &self,
        csr: &[u8],
        params: CertificateParams,
        failed: impl Fn(rcgen::Error) -> AuthorityError,
    ) -> Result<Issued, AuthorityError> {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let request = CertificateSigningRequestParams::from_der(&csr).map_err(&failed)?;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(&failed)?;
        Ok(issued(certificate.pem(), &params))
    }
}

fn issued(chain_pem: String, params: &CertificateParams) -> Issued {
    Issued { chain_pem, not_after_unix: params.not_after.unix_timestamp() }
}

fn replica_params(node: NodeId, names: &Names) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("replica:{node}"));
    params.subject_alt_names = vec![
        SanType::URI(uri(&format!("replica:{node}"))?),
        SanType::DnsName(uri(DIRECTOR_TLS_NAME)?),
        SanType::DnsName(uri(&replica_tls_name(node))?),
    ];
    for host in &names.hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(uri(host)?),
        });
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    validity(&mut params, REPLICA_VALID);
    Ok(params)
}

/// The DNS name that only replica `node` has: whoever dials a peer checks that it reached the right one.
pub fn replica_tls_name(node: NodeId) -> String {
    format!("replica-{node}.directorate.internal")
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn uri(text: &str) -> Result<Ia5String, rcgen::Error> {
    text.to_owned().try_into()
}

fn validity(params: &mut CertificateParams, valid: Duration) {
    let now = OffsetDateTime::now_utc();
    // The reader's clock may be behind ours, and ours ahead of everybody's.
    params.not_before = now - CLOCKS_APART;
    params.not_after = now + valid;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_being_stored() {
        let (made, key_pem) = Authority::create("test").unwrap();
        let opened = Authority::open(made.certificate_pem(), &key_pem).unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = opened.issue_replica(NodeId(3), &Names::of_addresses(["d3.example:1"]), &key).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let text = format!("{:?}", certificate.subject_alternative_name().unwrap().unwrap().value);
        for expected in ["replica:3", "d3.example", "replica-3.directorate.internal", DIRECTOR_TLS_NAME] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    /// Has a verifier whose clock differs from ours look at a chain.
    fn good_for(authority: &Authority, chain_pem: &str, clock: Duration) -> Result<(), rustls::Error> {
        use rustls::server::WebPkiClientVerifier;
        use rustls_pki_types::pem::PemObject as _;
        use rustls_pki_types::{CertificateDer, UnixTime};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).unwrap();
        let now = (OffsetDateTime::now_utc() + clock).unix_timestamp();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now as u64));
        verifier.verify_client_cert(&leaf, &[], now).map(|_| ())
    }

    #[test]
    fn a_clock_that_is_a_day_wrong_refuses_no_certificate() {
        let (authority, _) = Authority::create("test").unwrap();
        let key = KeyPair::generate().unwrap();
        let replica = authority.issue_replica(NodeId(1), &Names::default(), &key).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let agent = authority.issue_agent(&AgentId::new("a1"), csr.der()).unwrap();
        let day = Duration::days(1);
        for (name, chain) in [("replica", &replica.chain_pem), ("agent", &agent.chain_pem)] {
            // The reader is behind by a day, or the writer was ahead; then the same the other way round.
            for clock in [-day, Duration::ZERO, day] {
                assert_eq!(good_for(&authority, chain, clock), Ok(()), "{name} at {clock}");
            }
        }
        // At the last moment before it is renewed.
        let age = REPLICA_VALID - Duration::seconds(super::super::renewal::LEFT_MIN);
        assert_eq!(good_for(&authority, &replica.chain_pem, age + day), Ok(()));
        let age = AGENT_VALID * 2 / 3;
        assert_eq!(good_for(&authority, &agent.chain_pem, age + day), Ok(()));
        assert!(good_for(&authority, &replica.chain_pem, REPLICA_VALID + day).is_err(), "some day it ends");
    }

    #[test]
    fn an_agent_gets_its_own_name_whatever_it_asks_for() {
        let (authority, _) = Authority::create("test").unwrap();
        let key = KeyPair::generate().unwrap();
        let mut wish = CertificateParams::new(vec![DIRECTOR_TLS_NAME.to_owned()]).unwrap();
        wish.distinguished_name.push(DnType::CommonName, "replica:1");
        let csr = wish.serialize_request(&key).unwrap();
        let issued = authority.issue_agent(&AgentId::new("a1"), csr.der()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.chain_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=agent:a1");
        let names = format!("{:?}", certificate.subject_alternative_name().unwrap().unwrap().value);
        assert!(!names.contains(DIRECTOR_TLS_NAME), "{names}");
        assert!(authority.issue_agent(&AgentId::new("a1"), b"nonsense").is_err());
    }
}
