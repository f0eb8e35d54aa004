//! Blobs as BOSH's agent gets them: by URLs that are signed for one of them, or from a DAV server that its settings name.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use sha1::{Digest as _, Sha1};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::roots;

/// What settings say of a blobstore.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Blobstore {
    #[serde(default)]
    options: Options,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Options {
    endpoint: String,
    user: String,
    password: String,
    tls: Tls,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Tls {
    cert: Authority,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Authority {
    ca: String,
}

impl Blobstore {
    /// Fetches from a signed URL.
    pub async fn get_signed(&self, url: &str) -> Result<Bytes> {
        self.exchange(Method::GET, url, None, Bytes::new()).await
    }

    /// Stores at a signed URL.
    pub async fn put_signed(&self, url: &str, content: Vec<u8>) -> Result<()> {
        self.exchange(Method::PUT, url, None, content.into()).await.map(drop)
    }

    /// Fetches by id.
    pub async fn get(&self, id: &str) -> Result<Bytes> {
        self.exchange(Method::GET, &self.place(id), Some(self.login()), Bytes::new()).await
    }

    /// Stores under an id.
    pub async fn put(&self, id: &str, content: Vec<u8>) -> Result<()> {
        self.exchange(Method::PUT, &self.place(id), Some(self.login()), content.into()).await.map(drop)
    }

    /// Returns where an id is: in a folder that is named by the beginning of its digest.
    fn place(&self, id: &str) -> String {
        format!("{}/{:02x}/{id}", self.options.endpoint.trim_end_matches('/'), Sha1::digest(id)[0])
    }

    fn login(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.options.user, self.options.password)))
    }

    async fn exchange(&self, method: Method, url: &str, login: Option<String>, body: Bytes) -> Result<Bytes> {
        let uri: Uri = url.parse().context("the URL of a blob")?;
        ensure!(uri.scheme_str() == Some("https"), "a blob's URL is not https");
        let authority = uri.authority().context("a blob's URL names no server")?.clone();
        let name = ServerName::try_from(authority.host().trim_matches(['[', ']']).to_owned())?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots(&self.options.tls.cert.ca)?)
            .with_no_client_auth();
        let tcp = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(443))).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(&method).uri(path).header(HOST, authority.as_str());
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login);
        }
        let request = request.body(Full::new(body))?;
        let exchanged = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Ok::<_, anyhow::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::pin!(connection);
        tokio::pin!(exchanged);
        let (status, content) = tokio::select! {
            exchanged = &mut exchanged => exchanged?,
            // Its end may come together with the answer's.
            _ = &mut connection => exchanged.await?,
        };
        // A signature is as good as a password: the path is all that may be told.
        if !status.is_success() {
            bail!("{method} of `{}` was answered {status}", uri.path());
        }
        Ok(content)
    }
}
