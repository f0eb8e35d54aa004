//! The resolver: answers names of instances on the machine, and passes other names on.
//!
//! [`query`] is the language of names, [`zone`] what is known; both are pure. How instances fare is what the directors know, who
//! watch over all agents ([decision 22](../../../../docs/decisions/0022-dns-health-comes-from-the-directors.md)). [`server`] speaks to programs, [`upstream`] to the
//! name servers of the VM's networks. Deliberately *not* here: where records come from (`actions/sync_dns`), and zones of
//! others: nothing is cached, a name server of the network does that.
//!
//! Invariants: an answer of ours has a lifetime of 0, so that who fell out is not asked for longer than its news travels;
//! a name below our root never leaves the machine.

mod query;
mod server;
mod upstream;
pub mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use agent_api::{Fare, Fares};
use model::AgentId;
use model::agent_settings::AgentSettings;
use model::dns::Records;
use owned_tasks::{OnExit, OwnedTasks};
use tracing::{info, warn};

use self::server::{Server, Sockets};
use self::upstream::Upstreams;
use self::zone::Zone;
use crate::durable;
use crate::layout::Layout;

/// The port of name servers.
const PORT: u16 = 53;

/// Pause before the address is tried again that somebody else has.
const AGAIN: Duration = Duration::from_secs(10);

/// What the machine knows of names.
#[derive(Default)]
pub struct Names {
    zone: RwLock<Arc<Zone>>,
    told: Mutex<Told>,
}

/// How instances fare: as the directors say, and of its own the machine knows best.
#[derive(Default)]
struct Told {
    /// When what is known was so.
    version: u64,
    /// By agent. Of instances that are new in the records nothing is known until it is said.
    fares: BTreeMap<String, Fare>,
    /// The agent here, and how its jobs are.
    own: Option<(String, Fare)>,
}

impl Told {
    fn of_all(&self) -> BTreeMap<String, Fare> {
        let mut all = self.fares.clone();
        all.extend(self.own.clone());
        all
    }
}

/// What is said of how instances fare is of records that the machine does not have yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is of version {said} of the DNS records, and here is version {there}")]
pub(crate) struct OtherRecords {
    said: u64,
    there: u64,
}

impl Names {
    /// Knows what an earlier life of the agent was told.
    pub fn remembered(layout: &Layout) -> Self {
        let names = Self::default();
        names.read_records(&layout.dns_records());
        if let Ok(Some(fares)) = durable::read_json::<Fares>(&layout.dns_health()) {
            // Of other records it says nothing: the directors say it again.
            let _ = names.set_fares(&fares);
        }
        names
    }

    /// Returns what is known now.
    pub fn zone(&self) -> Arc<Zone> {
        self.zone.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the records of a file. One that can't be read changes nothing.
    pub(crate) fn read_records(&self, path: &Path) {
        let Ok(bytes) = std::fs::read(path) else { return };
        match Records::read(&bytes) {
            Ok(records) => self.set_records(records),
            Err(error) => warn!(path = %path.display(), error = %error, "DNS records can't be read"),
        }
    }

    fn set_records(&self, records: Records) {
        let told = self.told();
        self.put(Zone::new(records).with_fares(told.of_all()));
    }

    /// Takes what the directors say of how instances fare, unless something newer is known. Returns whether it was taken.
    pub(crate) fn set_fares(&self, said: &Fares) -> Result<bool, OtherRecords> {
        let (mut told, zone) = (self.told(), self.zone());
        if told.version >= said.version || said.records < zone.version() {
            return Ok(false);
        }
        if said.records > zone.version() {
            return Err(OtherRecords { said: said.records, there: zone.version() });
        }
        let agents: BTreeSet<&str> =
            zone.records().records.iter().filter_map(|record| record.agent_id.as_deref()).collect();
        let letters = said.letters.chars().map(Fare::of_letter);
        told.fares = agents.into_iter().map(str::to_owned).zip(letters).collect();
        told.version = said.version;
        self.renew(&told);
        Ok(true)
    }

    /// Takes note of how the jobs here are.
    pub(crate) fn set_own(&self, agent: &AgentId, jobs_run: bool) {
        let fares = if jobs_run { Fare::Well } else { Fare::Badly };
        let own = Some((agent.to_string(), fares));
        let mut told = self.told();
        if told.own != own {
            told.own = own;
            self.renew(&told);
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, told: &Told) {
        let zone = self.zone();
        self.put(zone.with_fares(told.of_all()));
    }

    fn put(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }
}

/// Answers names for as long as the agent runs, if its machine is set up to ask it.
pub(crate) fn start(settings: &AgentSettings, names: Arc<Names>, tasks: &OwnedTasks) {
    let Some(listen) = settings.resolver else { return };
    let upstreams = Upstreams::of_networks(settings.networks.values(), listen);
    let inner = tasks.clone();
    tasks.spawn("resolver", OnExit::Ignore, move |stop| async move {
        tokio::select! {
            () = serve(listen, Server::new(names, upstreams), inner) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn serve(listen: SocketAddr, server: Server, tasks: OwnedTasks) {
    loop {
        match Sockets::bind(listen).await {
            Ok(sockets) => {
                info!(address = %listen, "names are answered");
                server.run(sockets, &tasks).await;
            }
            // A release may bring a resolver of its own.
            Err(error) => warn!(address = %listen, error = %error, "names can't be answered now"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use model::dns::Record;

    use super::zone::Found;
    use super::*;

    fn records() -> Records {
        let at = |id: &str, ip: &str| Record {
            id: id.into(),
            group: "g".into(),
            network: "a".into(),
            deployment: "p".into(),
            ip: ip.parse().ok(),
            domain: "bosh".into(),
            agent_id: Some(format!("agent-{id}")),
            ..Record::default()
        };
        Records { version: 1, records: vec![at("1", "10.0.0.1"), at("2", "10.0.0.2")], ..Records::default() }
    }

    fn healthy(names: &Names) -> Vec<String> {
        match names.zone().find("q-s3.g.a.p.bosh") {
            Found::Addresses(all) => {
                let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
                all.sort();
                all
            }
            other => panic!("{other:?}"),
        }
    }

    fn fares(version: u64, letters: &str) -> Fares {
        Fares { version, records: 1, letters: letters.into() }
    }

    #[test]
    fn the_directors_say_who_fares_well_and_of_itself_the_machine_knows_best() {
        let names = Names::default();
        let early = Err(OtherRecords { said: 1, there: 0 });
        assert_eq!(names.set_fares(&fares(4, "++")), early, "it can't tell of whom that is");
        names.set_records(records());
        assert!(healthy(&names).is_empty(), "nothing was said yet");
        assert_eq!(names.set_fares(&fares(5, "+?")), Ok(true));
        assert_eq!(healthy(&names), ["10.0.0.1"]);
        assert_eq!(names.set_fares(&fares(6, "-+")), Ok(true));
        assert_eq!(healthy(&names), ["10.0.0.2"]);
        assert_eq!(names.set_fares(&fares(4, "++")), Ok(false), "older news");
        assert_eq!(names.set_fares(&Fares { records: 0, ..fares(7, "++") }), Ok(false), "of older records");
        assert_eq!(healthy(&names), ["10.0.0.2"]);
        names.set_own(&"agent-1".into(), true);
        assert_eq!(healthy(&names), ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn what_is_known_of_instances_stays_known_when_records_change() {
        let names = Names::default();
        names.set_records(records());
        assert_eq!(names.set_fares(&fares(5, "-+")), Ok(true));
        let third =
            Record { id: "0".into(), agent_id: Some("agent-0".into()), ..records().records.remove(0) };
        let third = Record { ip: "10.0.0.3".parse().ok(), ..third };
        let more = Records { version: 2, records: [vec![third], records().records].concat(), ..records() };
        names.set_records(more);
        assert_eq!(healthy(&names), ["10.0.0.2"], "and of the new one nothing is known");
        assert_eq!(names.set_fares(&Fares { records: 2, ..fares(6, "+-+") }), Ok(true));
        assert_eq!(healthy(&names), ["10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn the_next_life_of_the_agent_knows_what_this_one_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let all = durable::Readers::All;
        durable::write(&layout.dns_records(), &records().to_bytes(), all).unwrap();
        durable::write_json(&layout.dns_health(), &fares(6, "-+"), all).unwrap();
        let names = Names::remembered(&layout);
        assert_eq!((names.zone().version(), healthy(&names)), (1, vec!["10.0.0.2".to_owned()]));
        std::fs::write(layout.dns_records(), "half a fi").unwrap();
        assert_eq!(Names::remembered(&layout).zone().version(), 0, "it is fetched again");
    }
}
