//! Blobs for BOSH's own agents, which fetch over HTTP: a port of every replica's (`blobs.listen`) that hands out what a URL names that
//! a director has signed, and takes in what they bring. An agent knows no addresses of blobs: what it has brought under which name is in the state.
//!
//! Not here: the blobs themselves (`fleet/blobs.rs`), and how our own agents come to them, over their stream.
//!
//! Invariant: without a signature that is good for just this, of an agent whose VM is there, nothing is read and nothing stored.
//!
//! Agents of older stemcells take no URLs. They come with a password, as to a WebDAV server (`dav.rs`).
//!
//! Read next: `signing.rs`, `door.rs`, `taking_in.rs`.

mod dav;
mod door;
mod signing;
mod taking_in;

use std::sync::Arc;

use agent_client_nats::{AgentBlobs, Brought, LongTexts, NotBrought};
use async_trait::async_trait;
use axum::Router;
use cpi_api::{Blobstore, Credentials};
use model::instance::Vm;
use model::{AgentId, BlobDigest};
use release::Blobstore as _;
use release::digest::MultiDigest;
use state::State;
use state::log::CommandLog as _;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;

use self::signing::{GOOD_FOR, Opens, UrlKey, Way};
use crate::config::BlobPort;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::log::RaftLog;
use crate::secrets::{AgentTokens, Kek};

/// Longest text of an agent's that is read.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The first version of a stemcell's contract whose agents take URLs.
const TAKES_URLS: u32 = 3;

/// This replica's blobs, as agents of BOSH's come to them.
pub struct BlobDesk {
    port: Option<BlobPort>,
    /// The largest blob that an agent may bring: a broken one must not fill the disks of all replicas.
    bytes_max: u64,
    log: RaftLog,
    blobs: Arc<FleetBlobs>,
    urls: UrlKey,
    passwords: AgentTokens,
}

impl BlobDesk {
    /// Makes it. Without a port nobody is given a URL.
    pub fn new(port: Option<BlobPort>, bytes_max: u64, blobs: Arc<FleetBlobs>, kek: &Kek) -> Arc<Self> {
        let log = blobs.log().clone();
        let (urls, passwords) = (UrlKey::new(kek), AgentTokens::for_blobs(kek));
        Arc::new(Self { port, bytes_max, log, blobs, urls, passwords })
    }

    /// Returns what is served on the port.
    pub fn routes(self: &Arc<Self>) -> Router {
        door::routes(self.clone())
    }

    /// Returns the blobstore of an agent's settings, with the authority that the port's certificate comes from. One that takes no URLs
    /// has a password, which is void once its VM is gone, or another one is made in its place.
    pub fn blobstore(&self, agent: &AgentId, authorities_pem: String) -> Option<Blobstore> {
        let (port, vm) = (self.port.as_ref()?, self.vm(agent).filter(|vm| vm.stemcell.has_bosh_s_agent())?);
        if takes_urls(vm) {
            let endpoint = format!("https://{}", port.port.advertise);
            return Some(Blobstore { endpoint, authorities_pem, credentials: None });
        }
        let generation = State::new(&*self.log.view()).agent(agent)?.token_generation;
        let password = self.passwords.token(agent, generation);
        let credentials = Some(Credentials { user: agent.to_string(), password });
        let host = port.dav_advertise.as_ref().unwrap_or(&port.port.advertise);
        Some(Blobstore { endpoint: format!("https://{host}/dav"), authorities_pem, credentials })
    }

    fn vm(&self, agent: &AgentId) -> Option<Vm> {
        State::new(&*self.log.view()).vm(agent)
    }

    /// Returns a URL of this replica's: whoever asks an agent is there.
    fn url(&self, way: Way, agent: &AgentId, blob: &str) -> Option<String> {
        let port = self.port.as_ref().filter(|_| self.vm(agent).is_some_and(takes_urls))?;
        let path = self.urls.path(Opens { way, agent, blob }, now_unix() + GOOD_FOR);
        Some(format!("https://{}{path}", port.port.advertise))
    }
}

#[async_trait]
impl AgentBlobs for BlobDesk {
    fn url_to_get(&self, agent: &AgentId, blob: &BlobDigest) -> Option<String> {
        self.url(Way::Get, agent, blob.as_str())
    }

    fn url_to_put(&self, agent: &AgentId, name: &str) -> Option<String> {
        self.url(Way::Put, agent, name)
    }

    async fn brought(&self, agent: &AgentId, name: &str, digest: &str) -> Result<Brought, NotBrought> {
        // Another replica may have taken it in.
        let barrier = self.log.read_barrier().await;
        barrier.map_err(|error| NotBrought::Unavailable { reason: error.to_string() })?;
        let row = State::new(&*self.log.view()).brought_by_agent(agent, name);
        let brought = row.ok_or(NotBrought::Nowhere)?.brought;
        if !is_of(&brought.digest, digest) {
            return Err(NotBrought::Different { told: digest.to_owned(), actual: brought.digest });
        }
        Ok(Brought { blob: brought.blob, size_bytes: brought.size_bytes })
    }
}

#[async_trait]
impl LongTexts for BlobDesk {
    async fn take(&self, agent: &AgentId, name: &str) -> Option<String> {
        self.log.read_barrier().await.ok()?;
        let row = State::new(&*self.log.view()).brought_by_agent(agent, name)?;
        let (mut text, content) = (Vec::new(), self.blobs.get(&row.brought.blob).await.ok()?);
        content.take(TEXT_BYTES_MAX).read_to_end(&mut text).await.ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Returns whether all digests that an agent tells are among those that its blob has.
fn is_of(actual: &str, told: &str) -> bool {
    let Ok(told) = MultiDigest::parse(told) else { return false };
    told.to_string().split(';').all(|told| actual.split(';').any(|actual| actual == told))
}

fn takes_urls(vm: Vm) -> bool {
    vm.stemcell.has_bosh_s_agent() && vm.stemcell.api_version >= TAKES_URLS
}

fn now_unix() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
pub(crate) mod judge_tests;
#[cfg(test)]
mod tests;
