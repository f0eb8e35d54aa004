//! Asking a UAA for its keys: one GET, bounded in time and size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use axum::body::{Body, to_bytes};
use axum::http::header::{ACCEPT, HOST};
use axum::http::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::keys::{self, Key};

/// How long a UAA may take to tell its keys.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer.
const BYTES_MAX: usize = 256 * 1024;

/// Where keys are asked for.
pub(super) struct Source {
    /// Each knows the same keys: who does not answer is passed over.
    urls: Vec<String>,
    tls: Option<TlsConnector>,
}

impl Source {
    /// Makes it; `authority` signs the certificates of these URLs.
    pub fn new(urls: &[String], authority: Option<&Path>) -> anyhow::Result<Self> {
        let tls = authority.map(connector).transpose()?;
        Ok(Self { urls: urls.to_vec(), tls })
    }

    /// Returns the keys of the first UAA that answers.
    pub async fn keys(&self) -> anyhow::Result<Vec<Key>> {
        let mut why = anyhow!("there is nobody to ask");
        for url in &self.urls {
            let asked = tokio::time::timeout(TIMEOUT, self.ask(url)).await;
            match asked.unwrap_or_else(|_| Err(anyhow!("it has not answered in time"))) {
                Ok(keys) => return Ok(keys),
                Err(error) => why = error.context(format!("ask {url} for its keys")),
            }
        }
        Err(why)
    }

    async fn ask(&self, url: &str) -> anyhow::Result<Vec<Key>> {
        let target: Uri = format!("{}/token_keys", url.trim_end_matches('/')).parse()?;
        let host = target.host().context("it has no host")?.to_owned();
        let is_tls = target.scheme_str() == Some("https");
        let port = target.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        // Addresses of the sixth version stand in brackets in a URL, and nowhere else.
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let connected = TcpStream::connect((bare.as_str(), port)).await.context("connect")?;
        let content = match (is_tls, &self.tls) {
            (true, Some(tls)) => {
                let name = ServerName::try_from(bare)?;
                get(tls.connect(name, connected).await.context("agree on TLS")?, &target).await?
            }
            (true, None) => return Err(anyhow!("there is no `ca_file` to know it by")),
            (false, _) => get(connected, &target).await?,
        };
        keys::answered(&content)
    }
}

fn connector(authority: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let read = || format!("read the UAA's authority `{}`", authority.display());
    for certificate in CertificateDer::pem_file_iter(authority).with_context(read)? {
        roots.add(certificate.with_context(read)?).with_context(read)?;
    }
    ensure!(!roots.is_empty(), "`{}` has no certificate", authority.display());
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Returns the body that a server answers with.
async fn get(
    connected: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Uri,
) -> anyhow::Result<Vec<u8>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connected)).await?;
    let authority = target.authority().context("it has no host")?.as_str();
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let request =
        Request::get(path).header(HOST, authority).header(ACCEPT, "application/json").body(Body::empty())?;
    let asking = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        ensure!(status == StatusCode::OK, "it answers {status}");
        Ok(to_bytes(Body::new(answer.into_body()), BYTES_MAX).await?.to_vec())
    };
    // The connection ends when its only user has its answer, or has given up.
    let (content, _) = tokio::join!(asking, connection);
    content
}
