//! `directord join`: one more replica of a fleet that runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::rt::TokioIo;
use model::NodeId;
use proto::v1 as pb;
use proto::v1::join_client::JoinClient;
use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::commands::own_names;
use crate::config::Config;
use crate::files::check_owner;
use crate::identity::{IdentityFiles, NodeIdentity};
use crate::lock::DataLock;
use crate::secrets::Kek;

/// How long a replica may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to answer: longer than the fleet holds a request during an election.
const ANSWER: Duration = Duration::from_secs(30);

/// Joins the fleet behind `endpoints`; the replica gets its place when it first runs.
pub async fn join(config: &Config, token: &str, endpoints: &[String]) -> anyhow::Result<()> {
    check_owner(&config.data_dir)?;
    let _lock = DataLock::take(&config.data_dir)?;
    join_locked(config, token, endpoints).await
}

/// Joins it for whoever has the folder's lock.
pub(super) async fn join_locked(config: &Config, token: &str, endpoints: &[String]) -> anyhow::Result<()> {
    let files = IdentityFiles::new(&config.data_dir);
    ensure!(
        !files.exist(),
        "`{}` belongs to a fleet already: empty it to join another one",
        config.data_dir.display()
    );
    let fingerprint = token.rsplit('.').next().filter(|_| token.split('.').count() == 3);
    let fingerprint = fingerprint.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let fingerprint =
        fingerprint.context("this is not a join token: get one with `dctl cluster join-token`")?;
    let key = KeyPair::generate().context("make this replica's key")?;
    let csr = CertificateParams::default().serialize_request(&key).context("make the certificate request")?;
    let request = pb::JoinRequest {
        token: token.to_owned(),
        name: config.name.clone(),
        csr_der: csr.der().to_vec().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        feature_level: config.feature_level,
        hosts: own_names(config).hosts,
    };
    let answer = ask(endpoints, &fingerprint, &request).await?;
    let kek = Kek::from_bytes(&answer.kek).context("the fleet sent no usable key")?;
    ensure!(
        !config.kek_file.exists() || Kek::load(&config.kek_file)?.bytes() == kek.bytes(),
        "`{}` holds another fleet's key: move it away, it may be the only copy",
        config.kek_file.display()
    );
    kek.store(&config.kek_file)?;
    let peers = answer.members.iter().map(|m| (NodeId(m.id), m.peer_address.clone())).collect();
    let identity = NodeIdentity { cluster_id: answer.cluster_id, node: NodeId(answer.node_id), peers };
    files.store(&identity, &key.serialize_pem(), &answer.chain_pem, &answer.authorities_pem)?;
    println!("Replica '{}' is number {} of its fleet. Next: `directord run`.", config.name, identity.node);
    Ok(())
}

async fn ask(
    endpoints: &[String],
    fingerprint: &[u8],
    request: &pb::JoinRequest,
) -> anyhow::Result<pb::JoinResponse> {
    ensure!(!endpoints.is_empty(), "name at least one replica of the fleet with --endpoint HOST:PORT");
    let mut failures = Vec::new();
    for endpoint in endpoints {
        let mut client = JoinClient::new(channel(endpoint, fingerprint.to_vec())?);
        match tokio::time::timeout(ANSWER, client.join(request.clone())).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == tonic::Code::Unauthenticated => {
                bail!(
                    "the fleet refused the token: {} (each is good once, and for a while)",
                    status.message()
                );
            }
            Ok(Err(status)) => failures.push(format!("  {endpoint}: {}", status.message())),
            Err(_) => failures.push(format!("  {endpoint}: no answer within {} s", ANSWER.as_secs())),
        }
    }
    bail!("no replica of the fleet could be reached:\n{}", failures.join("\n"))
}

/// A connection that trusts whoever presents the authority that the token names, and nobody else.
fn channel(endpoint: &str, fingerprint: Vec<u8>) -> anyhow::Result<Channel> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Pinned { fingerprint, provider: provider.clone() };
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let (tls, address) = (Arc::new(tls), endpoint.to_owned());
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let name = ServerName::try_from(model::agent_settings::DIRECTOR_TLS_NAME)
                .map_err(std::io::Error::other)?;
            let stream = TcpStream::connect(&address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(TlsConnector::from(tls).connect(name, stream).await?))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))
        .with_context(|| format!("`{endpoint}` is not HOST:PORT"))?;
    Ok(endpoint.connect_timeout(CONNECT).connect_with_connector_lazy(connector))
}

/// Accepts a server whose chain ends in the authority with this fingerprint.
#[derive(Debug)]
struct Pinned {
    fingerprint: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn authority(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<WebPkiServerVerifier>> {
        let found = chain.iter().find(|c| digest(&SHA256, c).as_ref() == self.fingerprint)?;
        let mut roots = RootCertStore::empty();
        roots.add(found.clone().into_owned()).ok()?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build().ok()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = self.authority(intermediates).ok_or_else(|| {
            rustls::Error::General(
                "this is not the fleet that the token is for: its authority is another one".into(),
            )
        })?;
        authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
