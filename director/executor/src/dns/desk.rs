//! Where those meet who publish records, who tell agents of them, and who wait for one to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::{AgentError, Fares, Method, Mode, Request};
use model::{AgentId, BlobDigest, RequestId, Revision};
use tokio::sync::{Notify, watch};
use tracing::debug;

use crate::lease::{Fence, Lost};
use crate::ports::Ports;

/// How long whoever applies jobs waits for records, all in all: jobs start without them then, and get them later.
pub const WITHIN: Duration = Duration::from_secs(10);

/// A document that agents may fetch: it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its version.
    pub version: u64,
    /// Where it is.
    pub blob: BlobDigest,
    /// The agents of the instances in it.
    pub agents: BTreeSet<AgentId>,
}

/// How far the leader is.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// Whether somebody publishes at all.
    pub(super) is_open: bool,
    /// The newest document says what this revision of the state says.
    pub(super) looked_at: Revision,
    pub(super) document: Option<Arc<Document>>,
    /// How the instances in it fare.
    pub(super) fares: Arc<Fares>,
}

/// What an agent has said it has.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    records: u64,
    fares: Option<u64>,
}

/// See the module's header. One for each process; what it knows is of the time in which this replica leads.
pub struct Desk {
    published: watch::Sender<Published>,
    /// The versions that agents have said they have.
    have: Mutex<BTreeMap<AgentId, Has>>,
    pub(super) asked: Notify,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            published: watch::channel(Published::default()).0,
            have: Mutex::default(),
            asked: Notify::new(),
        }
    }
}

/// Open until it is dropped.
pub(super) struct Open<'a>(&'a Desk);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.published.send_replace(Published::default());
        self.0.have().clear();
    }
}

impl Desk {
    /// Begins anew: what agents had heard from an earlier leader, they say again.
    pub(super) fn open(&self) -> Open<'_> {
        self.have().clear();
        self.published.send_replace(Published { is_open: true, ..Published::default() });
        Open(self)
    }

    fn have(&self) -> MutexGuard<'_, BTreeMap<AgentId, Has>> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Notes what the state says at a revision: a new document, if there is one, and how the instances fare.
    pub(super) fn publish(&self, looked_at: Revision, news: Option<(Option<Arc<Document>>, String)>) {
        if let Some((Some(document), _)) = &news {
            self.have().retain(|agent, _| document.agents.contains(agent));
        }
        self.published.send_modify(|published| {
            published.looked_at = looked_at;
            let Some((document, letters)) = news else { return };
            if document.is_some() {
                published.document = document;
            }
            let records = published.document.as_ref().map_or(0, |document| document.version);
            if (published.fares.records, &published.fares.letters) != (records, &letters) {
                published.fares = Arc::new(Fares { version: looked_at.0, records, letters });
            }
        });
    }

    /// Returns whether an agent has said that it has all this, or something newer.
    pub(super) fn has(&self, agent: &AgentId, document: &Document, fares: &Fares) -> bool {
        let have = self.have();
        have.get(agent).is_some_and(|has| has.records >= document.version && has.fares >= Some(fares.version))
    }

    fn note(&self, agent: &AgentId, note: impl FnOnce(&mut Has)) {
        note(self.have().entry(agent.clone()).or_default());
    }

    /// Tells an agent what it does not have yet; of how instances fare it can make something only once it has the records.
    pub(super) async fn tell(
        &self,
        ports: &Ports,
        fence: &Fence,
        agent: &AgentId,
        (document, fares): (&Document, &Fares),
        timeout: Duration,
    ) -> Result<(), NotTold> {
        let has = self.have().get(agent).copied().unwrap_or_default();
        if has.records < document.version {
            let (blob, version) = (document.blob.clone(), document.version);
            let method = Method::SyncDns { digest: format!("sha256:{blob}"), blob, version };
            ask(ports, fence, agent, method, (version, timeout)).await?;
            self.note(agent, |has| has.records = has.records.max(version));
        }
        if has.fares < Some(fares.version) {
            let method = Method::SyncDnsHealth { health: fares.clone() };
            ask(ports, fence, agent, method, (fares.version, timeout)).await?;
            self.note(agent, |has| has.fares = has.fares.max(Some(fares.version)));
        }
        Ok(())
    }

    /// Sees to it that an agent has records in which it is itself, before its jobs start. Bounded, and no failure is anybody's
    /// business but the log's: the agent is told again.
    pub(crate) async fn bring(&self, ports: &Ports, fence: &Fence, agent: &AgentId) -> Result<(), NotTold> {
        let bring = async {
            match self.news_with(ports, agent).await {
                Some((document, fares)) => self.tell(ports, fence, agent, (&document, &fares), WITHIN).await,
                None => Ok(()),
            }
        };
        tokio::time::timeout(WITHIN, bring).await.unwrap_or(Err(NotTold::TooLate))
    }

    /// Waits for a document with an agent in it. None if there is nobody who publishes, or the agent is in none.
    async fn news_with(&self, ports: &Ports, agent: &AgentId) -> Option<(Arc<Document>, Arc<Fares>)> {
        let (mut published, now) = (self.follow(), ports.log.revision());
        let is_in = |published: &Published| {
            published.document.as_ref().is_some_and(|document| document.agents.contains(agent))
        };
        let is_waiting = {
            let published = published.borrow();
            published.is_open && !is_in(&published)
        };
        if is_waiting {
            self.asked.notify_one();
        }
        let settled = published
            .wait_for(|published| !published.is_open || is_in(published) || published.looked_at >= now);
        // The sender is ours.
        let settled = settled.await.ok()?;
        let document = settled.document.clone().filter(|_| is_in(&settled))?;
        Some((document, settled.fares.clone()))
    }
}

/// Asks an agent to take something. One that does not know what that is needs nothing of it.
async fn ask(
    ports: &Ports,
    fence: &Fence,
    agent: &AgentId,
    method: Method,
    (version, timeout): (u64, Duration),
) -> Result<(), NotTold> {
    fence.check()?;
    let id = RequestId::new(format!("{}-{version}-e{}", method.name(), fence.epoch()));
    let request = Request { id, epoch: fence.epoch(), mode: Mode::Submit, timeout, method };
    let told = tokio::select! {
        told = ports.agents.call(agent, request) => told,
        lost = fence.lost() => return Err(lost.into()),
    };
    match told {
        Ok(_) => Ok(()),
        Err(AgentError::UnknownMethod { method }) => {
            debug!(agent = %agent, method, "an agent knows nothing of DNS records");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Why an agent has not been told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTold {
    /// This replica does not lead any more.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// It said no, or nothing.
    #[error("the agent was not told of DNS records")]
    Agent(#[from] AgentError),
    /// There were none in time.
    #[error("there were no new DNS records within {} s", WITHIN.as_secs())]
    TooLate,
}
