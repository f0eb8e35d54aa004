//! Publishing: the state's records become a document that agents can fetch.
//!
//! The document's version is remembered before it is stored. A leader that dies in between leaves a row without a blob;
//! the next one makes the same bytes again, or a newer version if the records have changed: nothing leaks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::dns::{DnsSubject, Records};
use model::{AgentId, BlobDigest, Revision};
use release::BlobError;
use sha2::{Digest as _, Sha256};
use state::State;
use state::command::{Command, Refusal, SECOND_LEVEL};
use state::log::{LogError, Proposal};
use state::query::DnsRecords;
use state::records::DnsBlob;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::desk::Document;
use super::{DOMAIN, NUMBERED_MAX, fares};
use crate::lease::{Fence, Lost};
use crate::ports::Ports;

/// Looks take one part in so many of the leader's time, at most: each one reads all instances, and a large deploy changes
/// the state all the time.
const SHARE: u32 = 20;

/// The same while somebody waits for it.
const SHARE_WHEN_ASKED: u32 = 2;

/// Pauses between looks, however long one takes. The shortest lets what changes together be told together.
const PAUSES: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(10);

/// The same while somebody waits.
const PAUSES_WHEN_ASKED: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_secs(2);

/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Why there is no new document.
#[derive(Debug, thiserror::Error)]
enum NotPublished {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the log did not take it")]
    Log(#[from] LogError),
    #[error("the state refused it: {0}")]
    Refused(#[from] Refusal),
    #[error("the document was not stored")]
    Store(#[from] BlobError),
    #[error("the state could not be read: {0}")]
    Unread(String),
}

/// What a look has found.
struct Look {
    /// Without a version yet.
    records: Records,
    unnumbered: Vec<DnsSubject>,
    /// The agents of the instances in the records.
    agents: BTreeSet<AgentId>,
    /// How those fare.
    fares: String,
    /// What was published last, by whomever.
    last: Option<DnsBlob>,
}

/// Publishes for as long as this replica leads.
pub(super) async fn run(ports: &Ports, fence: &Fence, changed: &Notify) {
    while fence.check().is_ok() {
        let begun = Instant::now();
        let mut pause = PAUSES.start;
        match look(ports, fence).await {
            Ok(()) => {}
            Err(NotPublished::Lost(_)) => return,
            Err(error) => {
                warn!(error = %error, "DNS records could not be published, trying again");
                pause = AGAIN;
            }
        }
        let took = begun.elapsed();
        let rest = begun + took + (took * SHARE).clamp(pause, PAUSES.end);
        let short =
            begun + took + (took * SHARE_WHEN_ASKED).clamp(PAUSES_WHEN_ASKED.start, PAUSES_WHEN_ASKED.end);
        let is_due = async {
            if pause != AGAIN {
                changed.notified().await;
            }
            tokio::time::sleep_until(rest).await;
        };
        let is_asked = async {
            ports.dns.asked.notified().await;
            tokio::time::sleep_until(if pause == AGAIN { rest } else { short }).await;
        };
        tokio::select! {
            biased;
            _ = fence.lost() => return,
            () = is_asked => {}
            () = is_due => {}
        }
    }
}

/// Reads the records and publishes them if they are new.
async fn look(ports: &Ports, fence: &Fence) -> Result<(), NotPublished> {
    loop {
        // Before the look: what is read may be newer than that, never older.
        let revision = ports.log.revision();
        let view = ports.log.view();
        let read = move || {
            let state = State::new(&*view);
            let is_ready = state.feature_level().is_none_or(|level| level >= SECOND_LEVEL);
            is_ready.then(|| {
                let DnsRecords { records, aliases, unnumbered } = state.dns_records(DOMAIN);
                let agents = records.iter().filter_map(|r| r.agent_id.as_deref().map(AgentId::from));
                let agents: BTreeSet<AgentId> = agents.collect();
                let fares = fares::read(&state, &agents);
                let records = Records { version: 0, records, aliases };
                Look { records, unnumbered, agents, fares, last: state.dns_blob() }
            })
        };
        let found =
            owned_tasks::aside(read).await.map_err(|error| NotPublished::Unread(error.to_string()))?;
        let Some(look) = found else {
            debug!("DNS records wait until every member of the fleet knows them");
            ports.dns.publish(revision, None);
            return Ok(());
        };
        if look.unnumbered.is_empty() {
            return publish(ports, fence, revision, look).await;
        }
        number(ports, fence, look.unnumbered).await?;
    }
}

async fn number(ports: &Ports, fence: &Fence, subjects: Vec<DnsSubject>) -> Result<(), NotPublished> {
    for subjects in subjects.chunks(NUMBERED_MAX) {
        let number = Command::DnsNumber { epoch: fence.epoch(), subjects: subjects.to_vec() };
        propose(ports, fence, number).await?;
    }
    Ok(())
}

async fn propose(ports: &Ports, fence: &Fence, command: Command) -> Result<(), NotPublished> {
    fence.check()?;
    match ports.log.propose(Proposal::own(command)).await?.outcome.accepted() {
        Ok(_) => Ok(()),
        Err(Refusal::StaleEpoch { given, .. }) => Err(Lost { epoch: given }.into()),
        Err(refusal) => Err(refusal.into()),
    }
}

async fn publish(ports: &Ports, fence: &Fence, looked_at: Revision, look: Look) -> Result<(), NotPublished> {
    let Look { records, agents, fares, last, .. } = look;
    if records.records.is_empty() && last.is_none() {
        ports.dns.publish(looked_at, None);
        return Ok(());
    }
    let content = digest(&records.to_bytes());
    let is_told = |row: &DnsBlob| {
        let published = ports.dns.follow();
        let document = published.borrow().document.clone();
        document.is_some_and(|document| document.version == row.version)
    };
    match last.as_ref().filter(|row| row.content == content) {
        Some(row) if is_told(row) => ports.dns.publish(looked_at, Some((None, fares))),
        known => {
            let next = last.as_ref().map_or(0, |row| row.version) + 1;
            let version = known.map_or(next, |row| row.version);
            let mut bytes = Records { version, ..records.clone() }.to_bytes();
            let mut version = version;
            // An earlier version of this program has written it in other bytes.
            if known.is_some_and(|row| row.blob.as_str() != digest(&bytes)) {
                version = next;
                bytes = Records { version, ..records }.to_bytes();
            }
            let blob = BlobDigest::new(digest(&bytes));
            let put = Command::DnsPut { epoch: fence.epoch(), version, content, blob: blob.clone() };
            propose(ports, fence, put).await?;
            ports.blobs.put(&mut bytes.as_slice()).await?;
            info!(version, agents = agents.len(), "DNS records published");
            let document = Document { version, blob, agents };
            ports.dns.publish(looked_at, Some((Some(Arc::new(document)), fares)));
        }
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
