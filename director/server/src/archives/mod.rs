//! Archives by URL: fetched over HTTP or TLS, with a bound for everything: redirects, waiting, stalling, size.
//!
//! What opens the place where an archive lies (a password, a signature in the query) goes there alone: not to where it is
//! redirected to, and into no error. Addresses of which clouds tell machines their secrets are never asked.
//!
//! Deliberately *not* here: digests, and what becomes of the archive (`executor`, `tasks/remote.rs`).

mod exchange;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use async_trait::async_trait;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, LOCATION};
use executor::ports::{ArchiveError, Archives};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::io::StreamReader;

use crate::door::at_most;
use exchange::Exchange;
use target::Target;

/// As in BOSH.
const REDIRECTS_MAX: u32 = 9;

/// How long, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection, with the agreement on TLS.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// For the next piece of the content.
    pub stall: Duration,
    /// For all of the content.
    pub whole: Duration,
    /// The largest content.
    pub bytes_max: u64,
}

impl Limits {
    /// Returns the usual ones: stemcells are large, and some links slow.
    pub fn of_size(bytes_max: u64) -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: minute / 2, answer: minute, stall: minute, whole: 120 * minute, bytes_max }
    }
}

/// Who signs the certificates of those who keep archives.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Whom this machine trusts, or `SSL_CERT_FILE` names; read each time, since such lists are renewed.
    Machine,
    /// These.
    Only(Arc<RootCertStore>),
}

/// Fetches archives.
#[derive(Clone, Debug)]
pub struct WebArchives {
    limits: Limits,
    trust: Trust,
}

impl WebArchives {
    /// Fetches within limits, and from those who can show who they are.
    pub fn new(limits: Limits, trust: Trust) -> Self {
        Self { limits, trust }
    }

    /// Asks for a target, and says whether the answer leads to another one.
    async fn ask(&self, target: &Target) -> anyhow::Result<Exchange> {
        let tls = if target.is_tls { Some(self.connector()?) } else { None };
        let connected = timeout(self.limits.connect, exchange::connect(target, tls));
        let connected = connected.await.map_err(|_| anyhow!("no connection in time"))??;
        let asked = timeout(self.limits.answer, Exchange::begin(connected, target));
        asked.await.map_err(|_| anyhow!("no answer in time"))?
    }

    fn connector(&self) -> anyhow::Result<TlsConnector> {
        let roots = match &self.trust {
            Trust::Only(roots) => roots.clone(),
            Trust::Machine => {
                let mut roots = RootCertStore::empty();
                // Some lists have entries that nobody can read; whose they are can't be shown then.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                ensure!(
                    !roots.is_empty(),
                    "this machine trusts nobody: install its list of certificate authorities, or name one in SSL_CERT_FILE"
                );
                Arc::new(roots)
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn content(&self, exchange: Exchange) -> anyhow::Result<Box<dyn AsyncRead + Send + Unpin>> {
        let length =
            exchange.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes_max = self.limits.bytes_max;
        ensure!(
            length.is_none_or(|length: u64| length <= bytes_max),
            "it is larger than {} MiB (blobs.upload_mib_max)",
            bytes_max >> 20
        );
        let pieces = exchange.pieces(self.limits.stall, Instant::now() + self.limits.whole);
        Ok(Box::new(StreamReader::new(Box::pin(at_most(bytes_max, pieces)))))
    }
}

#[async_trait]
impl Archives for WebArchives {
    async fn open(&self, url: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, ArchiveError> {
        let failed = |url: &str, source: anyhow::Error| ArchiveError::Failed {
            url: url.to_owned(),
            source: source.into(),
        };
        // What can't be read as a URL is not shown: it may be one with credentials in it.
        let mut target = Target::parse(url).map_err(|error| failed("the given URL", error.into()))?;
        for _ in 0..=REDIRECTS_MAX {
            let shown = target.shown();
            let failed = |source| failed(&shown, source);
            let exchange = self.ask(&target).await.map_err(failed)?;
            match exchange.status() {
                StatusCode::OK => return self.content(exchange).map_err(failed),
                StatusCode::NOT_FOUND => return Err(ArchiveError::NotFound { url: shown }),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    target = next(&target, &exchange).map_err(failed)?;
                }
                other => return Err(failed(anyhow!("it is answered with {other}"))),
            }
        }
        Err(ArchiveError::TooManyRedirects { url: target.shown() })
    }
}

fn next(target: &Target, exchange: &Exchange) -> anyhow::Result<Target> {
    let location = exchange.headers().get(LOCATION).context("a redirect without a location")?;
    let location = location.to_str().ok().context("a redirect to what is no URL")?;
    target.follow(location).context("a redirect that is not followed")
}
