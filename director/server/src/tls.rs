//! TLS: one identity, three kinds of port, and the client side between replicas. Certificates are replaced while running.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use model::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::warn;

use crate::identity::replica_tls_name;

/// How often it is said that certificates are refused for their dates. Peers try many times a second.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Which port a server configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// People and programs: they prove who they are by password or token.
    Api,
    /// Replicas: a certificate of the fleet's authority with a replica's name.
    Peer,
    /// Agents: a certificate, except for the one call that gives them one.
    Agent,
}

/// Returns whether a handshake failed because one side's certificate has ended or has not begun, for the other's clock.
pub fn is_out_of_time(error: &std::io::Error) -> bool {
    use rustls::CertificateError as Bad;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(bad)) => matches!(
            bad,
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. }
        ),
        Some(rustls::Error::AlertReceived(alert)) => *alert == rustls::AlertDescription::CertificateExpired,
        _ => false,
    }
}

/// Says so, but not with each of the many attempts that follow.
pub struct OutOfTime {
    told: Mutex<Option<Instant>>,
}

impl OutOfTime {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self { told: Mutex::new(None) }
    }

    /// Logs a failed handshake if it failed for this reason and that was not said lately; returns whether it was that.
    pub fn tell(&self, error: &std::io::Error, other: &dyn std::fmt::Display) -> bool {
        if !is_out_of_time(error) {
            return false;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            warn!(%other, error = %error, "a certificate has ended or not begun: is the clock right, here and there?");
        }
        true
    }
}

impl Default for OutOfTime {
    fn default() -> Self {
        Self::new()
    }
}

struct Material {
    api: Arc<ServerConfig>,
    peer: Arc<ServerConfig>,
    agent: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// From when to when the certificate is good, by the Unix clock.
    valid_unix: (i64, i64),
}

/// This replica's certificate and whom it trusts, replaceable as a whole.
pub struct TlsIdentity {
    current: ArcSwap<Material>,
}

impl TlsIdentity {
    /// Reads PEM texts.
    pub fn new(chain_pem: &str, key_pem: &str, authorities_pem: &str) -> anyhow::Result<Self> {
        Ok(Self { current: ArcSwap::from_pointee(material(chain_pem, key_pem, authorities_pem)?) })
    }

    /// Replaces everything; connections made from now on use it.
    pub fn replace(&self, chain_pem: &str, key_pem: &str, authorities_pem: &str) -> anyhow::Result<()> {
        self.current.store(Arc::new(material(chain_pem, key_pem, authorities_pem)?));
        Ok(())
    }

    /// Returns the configuration for the next connection to a port.
    pub fn server(&self, kind: PortKind) -> Arc<ServerConfig> {
        let current = self.current.load();
        match kind {
            PortKind::Api => current.api.clone(),
            PortKind::Peer => current.peer.clone(),
            PortKind::Agent => current.agent.clone(),
        }
    }

    /// Returns the configuration for the next connection to another replica.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }

    /// Returns when the certificate ends, by the Unix clock.
    pub fn ends_at_unix(&self) -> i64 {
        self.current.load().valid_unix.1
    }

    /// Returns how long the certificate is still good, by our own clock; nothing if it has not even begun.
    pub fn seconds_left(&self) -> i64 {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let (begin, end) = self.current.load().valid_unix;
        if now < begin { 0 } else { end - now }
    }
}

fn material(chain_pem: &str, key_pem: &str, authorities_pem: &str) -> anyhow::Result<Material> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("read the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("read the private key")?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
        roots
            .add(authority.context("read the fleet's authorities")?)
            .context("trust the fleet's authorities")?;
    }
    let roots = Arc::new(roots);
    let leaf = chain.first().context("the certificate file is empty")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).context("read the certificate")?;
    let validity = parsed.validity();
    let valid_unix = (validity.not_before.timestamp(), validity.not_after.timestamp());

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server =
        |verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>| -> anyhow::Result<_> {
            let versions: &[&rustls::SupportedProtocolVersion] = match verifier {
                // Browsers, old tools: whoever reads the API may speak 1.2.
                None => &[&rustls::version::TLS13, &rustls::version::TLS12],
                Some(_) => &[&rustls::version::TLS13],
            };
            let builder =
                ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_single_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Ok(Arc::new(config))
        };
    let clients = || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Material {
        api: server(None)?,
        peer: server(Some(clients().build()?))?,
        agent: server(Some(clients().allow_unauthenticated().build()?))?,
        client: Arc::new(client),
        valid_unix,
    })
}

/// Returns the replica that a certificate belongs to.
pub fn replica_named_in(leaf: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    name.strip_prefix("replica:")?.parse().ok().map(NodeId)
}

/// Returns the name to expect of replica `node`.
pub fn expected_name(node: NodeId) -> rustls_pki_types::ServerName<'static> {
    replica_tls_name(node).try_into().expect("the name is made of letters, digits, dashes and dots")
}
