//! Blobs for BOSH's own agents, which fetch over HTTP: a port of every replica's (`blobs.listen`) that hands out what a URL names that
//! a director has signed, and takes in what they bring. An agent knows no addresses of blobs: what it has brought under which name is in the state.
//!
//! Not here: the blobs themselves (`fleet/blobs.rs`), and how our own agents come to them, over their stream.
//!
//! Invariant: without a signature that is good for just this, of an agent whose VM is there, nothing is read and nothing stored.
//!
//! Read next: `signing.rs`, `door.rs`, `taking_in.rs`.

mod door;
mod signing;
mod taking_in;

use std::sync::Arc;

use agent_client_nats::{AgentBlobs, Brought, NotBrought};
use async_trait::async_trait;
use axum::Router;
use cpi_api::Blobstore;
use model::instance::Vm;
use model::{AgentId, BlobDigest};
use release::digest::MultiDigest;
use state::State;
use state::log::CommandLog as _;
use time::OffsetDateTime;

use self::signing::{GOOD_FOR, Opens, UrlKey, Way};
use crate::config::BlobPort;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::log::RaftLog;
use crate::secrets::Kek;

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
}

impl BlobDesk {
    /// Makes it. Without a port nobody is given a URL.
    pub fn new(port: Option<BlobPort>, bytes_max: u64, blobs: Arc<FleetBlobs>, kek: &Kek) -> Arc<Self> {
        let log = blobs.log().clone();
        Arc::new(Self { port, bytes_max, log, blobs, urls: UrlKey::new(kek) })
    }

    /// Returns what is served on the port.
    pub fn routes(self: &Arc<Self>) -> Router {
        door::routes(self.clone())
    }

    /// Returns the blobstore of an agent's settings, with the authority that the port's certificate comes from.
    pub fn blobstore(&self, agent: &AgentId, authorities_pem: String) -> Option<Blobstore> {
        let port = self.port.as_ref().filter(|_| self.vm(agent).is_some_and(takes_urls))?;
        Some(Blobstore { endpoint: format!("https://{}", port.port.advertise), authorities_pem })
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
mod judge_tests;
#[cfg(test)]
mod tests;
