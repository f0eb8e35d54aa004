//! Agents of BOSH's, on a NATS that the operator runs (`[nats]`): who they are, what their VMs are given, and who may speak on
//! the bus.
//!
//! The fleet's authority issues the certificates of all who speak there: the directors, and each agent when its VM is made, and
//! again before its certificate ends. Which agents may speak is no list of its own: those whose VMs the state has, from before
//! they are created until they are deleted.
//!
//! Not here: how they are spoken to (`agent-client-nats`), and how they come to blobs (`agent_blobs`).
//!
//! Read next: `certificates.rs`, `rotation.rs`, then `book.rs`, `both.rs`, `users.rs`.

mod book;
mod both;
mod certificates;
mod own_ears;
mod rotation;
mod users;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_client_grpc::AgentHub;
use agent_client_nats::users::{DIRECTOR, HEALTH, common_name};
use agent_client_nats::{NatsAgents, Options, Reports};
use anyhow::Context as _;
use cpi_api::Mbus;
use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use raft::Node;
use state::State;
use state::log::CommandLog as _;
use state::records::BusCertificate;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use both::BothAgents;

pub use self::certificates::until;

use self::book::Book;
use self::certificates::Terms;
use self::own_ears::OwnEars;
use crate::agent_blobs::BlobDesk;
use crate::agents::AgentSide;
use crate::config::NatsConfig;
use crate::files::write_private;
use crate::fleet::log::RaftLog;
use crate::identity::{Authority, NatsValid};
use crate::secrets::Kek;
use crate::wire::open_authority;

/// How often our own certificates are renewed, long before their end.
const RENEW_EVERY: Duration = Duration::from_secs(12 * 3600);

/// Pause before what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// This replica's side of the agents of BOSH's.
pub struct Nats {
    config: NatsConfig,
    folder: PathBuf,
    log: RaftLog,
    kek: Kek,
    /// How they come to blobs.
    pub blobs: Arc<BlobDesk>,
    /// There once the fleet's authority is known.
    agents: OnceLock<NatsAgents>,
}

impl Nats {
    /// Makes it, connected to nothing yet.
    pub fn new(
        config: NatsConfig,
        data_dir: &Path,
        log: RaftLog,
        kek: Kek,
        blobs: Arc<BlobDesk>,
    ) -> Arc<Self> {
        Arc::new(Self { config, folder: data_dir.join("nats"), log, kek, blobs, agents: OnceLock::new() })
    }

    /// Returns whether an agent is one of BOSH's, by the stemcell that its VM was made from.
    pub fn is_bosh_s(&self, agent: &AgentId) -> bool {
        let view = self.log.view();
        State::new(&*view).vm(agent).is_some_and(|vm| vm.stemcell.has_bosh_s_agent())
    }

    /// Returns how one of BOSH's agents finds the bus and proves who it is, with the certificate that it is offered; none for
    /// others.
    pub fn mbus(&self, agent: &AgentId) -> Option<Mbus> {
        self.is_bosh_s(agent).then(|| self.issue_mbus(agent)).and_then(|mbus| told(agent, mbus))
    }

    fn issue_mbus(&self, agent: &AgentId) -> anyhow::Result<Mbus> {
        let offered = {
            let view = self.log.view();
            State::new(&*view).agent(agent).and_then(|record| record.offered)
        };
        // Nobody remembers one that was not offered: there are members that can't.
        let certificate = match offered {
            Some(offered) => offered.certificate,
            None => self.new_certificate(&self.terms()?),
        };
        let valid = NatsValid::Agent { serial: &certificate.serial, until_unix: certificate.until.seconds() };
        let (certificate_pem, private_key_pem) = self.authority()?.issue_nats(&common_name(agent), valid)?;
        let authorities_pem = self.servers_authority()?;
        Ok(Mbus { urls: self.config.urls.clone(), authorities_pem, certificate_pem, private_key_pem })
    }

    /// Returns the certificate that one of BOSH's agents is to be offered, if it needs one; none for others.
    pub fn due(&self, agent: &AgentId) -> Option<BusCertificate> {
        let (vm, record) = {
            let view = self.log.view();
            let state = State::new(&*view);
            (state.vm(agent).filter(|vm| vm.stemcell.has_bosh_s_agent())?, state.agent(agent)?)
        };
        let terms = told(agent, self.terms())?;
        terms.is_due(&record, &vm, self.log.clock()).then(|| self.new_certificate(&terms))
    }

    fn new_certificate(&self, terms: &Terms) -> BusCertificate {
        terms.certificate(uuid::Uuid::new_v4().as_u128(), self.log.clock())
    }

    /// Returns what certificates are given on today.
    fn terms(&self) -> anyhow::Result<Terms> {
        let (servers, own) = (self.servers_authority()?, self.authority()?);
        Ok(Terms::of(&self.config, [&servers, own.certificate_pem()]))
    }

    fn servers_authority(&self) -> anyhow::Result<String> {
        let file = &self.config.ca_file;
        std::fs::read_to_string(file).with_context(|| format!("read nats.ca_file `{}`", file.display()))
    }

    fn authority(&self) -> anyhow::Result<Authority> {
        let view = self.log.view();
        let cluster = State::new(&*view).cluster().context("this replica has no place in a fleet yet")?;
        open_authority(&cluster, &self.kek)
    }

    /// Starts it, where `[nats]` is configured.
    pub fn start(side: &Arc<AgentSide>, hub: &Arc<AgentHub>, node: Node, tasks: &OwnedTasks) {
        let Some(nats) = side.nats.clone() else { return };
        let rotated = nats.clone();
        tasks.spawn("certificates of agents", OnExit::StopNode, |stop| rotation::run(node, rotated, stop));
        let ears = OwnEars { nats: nats.clone(), homes: side.homes(), sink: side.clone(), hub: hub.clone() };
        let owner = tasks.clone();
        tasks.spawn("NATS", OnExit::StopNode, move |stop| nats.run(Arc::new(ears), owner, stop));
    }

    /// Connects, and keeps certificates and users up to date until it is told to stop.
    async fn run(self: Arc<Self>, ears: Arc<OwnEars>, tasks: OwnedTasks, stop: CancellationToken) {
        let work = async {
            while let Err(error) = self.connect(ears.clone(), &tasks).await {
                warn!(error = format!("{error:#}"), "agents on NATS can't be reached yet");
                tokio::time::sleep(AGAIN).await;
            }
            tokio::join!(self.renew(), users::keep(&self.config, self.log.clone()))
        };
        tokio::select! {
            _ = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn connect(&self, ears: Arc<OwnEars>, tasks: &OwnedTasks) -> anyhow::Result<()> {
        self.issue_own()?;
        if self.agents.get().is_none() {
            let book = Arc::new(Book(self.log.clone()));
            let (options, blobs) = (self.options(DIRECTOR), self.blobs.clone());
            let agents = NatsAgents::connect(options, book, blobs.clone(), blobs, tasks).await?;
            // Nobody else sets it.
            let _ = self.agents.set(agents);
        }
        Ok(Reports::listen(&self.options(HEALTH), ears, tasks).await?)
    }

    fn options(&self, name: &str) -> Options {
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        Options::new(self.config.urls.clone(), self.config.ca_file.clone(), file("pem"), file("key"))
    }

    /// Writes our own certificates, and the authority that servers must know us by. They are read at every connect.
    fn issue_own(&self) -> anyhow::Result<()> {
        let authority = self.authority()?;
        std::fs::create_dir_all(&self.folder).context("make the folder of certificates for NATS")?;
        let write = |name: &str, pem: &str| {
            let path = self.folder.join(name);
            write_private(&path, pem.as_bytes()).with_context(|| format!("write `{}`", path.display()))
        };
        write("authority.pem", authority.certificate_pem())?;
        for name in [DIRECTOR, HEALTH] {
            let (certificate, key) = authority.issue_nats(name, NatsValid::Director)?;
            // A connect in between gets a pair that does not match, and is tried again.
            write(&format!("{name}.key"), &key)?;
            write(&format!("{name}.pem"), &certificate)?;
        }
        Ok(())
    }

    async fn renew(&self) {
        let mut next = RENEW_EVERY;
        loop {
            tokio::time::sleep(next).await;
            next = match self.issue_own() {
                Ok(()) => RENEW_EVERY,
                Err(error) => {
                    warn!(error = format!("{error:#}"), "certificates for NATS are not renewed");
                    AGAIN
                }
            };
        }
    }
}

/// Tells of what an agent can't be given.
fn told<T>(agent: &AgentId, given: anyhow::Result<T>) -> Option<T> {
    let unable = |error| {
        error!(agent = %agent, error = format!("{error:#}"), "an agent gets no certificate for NATS");
    };
    given.map_err(unable).ok()
}

#[cfg(test)]
mod judge_tests;
#[cfg(test)]
pub(crate) mod tests;
