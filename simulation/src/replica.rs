//! A replica in the simulated world: the real consensus, state, executor and health; simulated where the world outside begins.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cpi_api::Cpi;
use directord::fleet::log::RaftLog;
use directord::janitor;
use executor::Ports;
use executor::clouds::NoCloud;
use executor::ports::Cpis;
use model::{CpiName, NodeId, Revision};
use owned_tasks::{OnExit, OwnedTasks};
use raft::{Application, Node, Options, SnapshotPolicy, Timing, local_peer};
use service::Service;
use state::State;

use crate::agents::side;
use crate::clock;
use crate::disk::Handle;
use crate::invariants::Observer;
use crate::net::{Net, Place};
use crate::outside::{SimAgents, SimCloudPort};
use crate::parts::{BackwardsVault, MemoryBlobs, NoArchives, NoOutput, PlainTemplates, PlainTokens};
use crate::peers::SimPeers;
use crate::services::{Replica, Services, Slot};
use crate::workload::is_prepared;

/// How long the cloud may take for a call that nobody waits for; it takes less ([`crate::outside`]).
const LATE_CALLS: Duration = Duration::from_secs(30);

/// How often orphans are deleted: worlds are short, and what appears late may have an address that is needed.
const ROUNDS: janitor::Rounds = janitor::Rounds {
    dns_blobs: Duration::from_secs(3600),
    blobs: Duration::from_secs(3600),
    bundles: Duration::from_secs(3600),
    disks: Duration::from_secs(3600),
    networks: Duration::from_secs(3600),
    vms: Duration::from_secs(5),
    late_vms: Duration::from_secs(3600),
};

/// What ended a process: nothing, or what it said.
#[derive(Clone, Default)]
pub struct Fatality(Arc<Mutex<Option<String>>>);

impl Fatality {
    fn say(&self, message: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| message.to_owned());
    }

    /// Returns what the process said, once.
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a replica is made of.
pub struct Parts {
    /// Which life of which replica.
    pub me: Place,
    /// Who sees what it does.
    pub observer: Observer,
    /// Its network.
    pub net: Net,
    /// Its disk.
    pub disk: Handle,
    /// What it applies entries with.
    pub application: Arc<dyn Application>,
    /// Where everybody's blobs are.
    pub blobs: Arc<MemoryBlobs>,
    /// When it cuts its log.
    pub snapshots: SnapshotPolicy,
    /// Where it puts what it serves with.
    pub slot: Slot,
    /// Where it says why it can't go on.
    pub fatality: Fatality,
}

/// Runs a replica, for as long as it lives.
pub async fn run(parts: Parts, tasks: OwnedTasks) {
    let Parts { me, observer, net, disk, application, blobs, snapshots, slot, fatality } = parts;
    let mut options = Options::new(me.process, "/data");
    options.timing = Timing::DEFAULT;
    options.disk = Arc::new(disk);
    options.snapshots = snapshots;
    let dying = fatality.clone();
    options.on_fatal = Arc::new(move |message| dying.say(message));
    let peers = Arc::new(SimPeers { net: net.clone(), me, tasks: tasks.clone() });
    let node = match Node::start(options, application, peers, &tasks).await {
        Ok(node) => node,
        Err(error) => return fatality.say(&format!("it does not start: {error:?}")),
    };
    let log = RaftLog::with_clock(node.clone(), NodeId(me.process), clock::timestamp);
    let service = Service::new(Arc::new(log.clone()));
    let peer = local_peer(&node);
    let hub = side::start(side::Parts {
        me,
        node: node.clone(),
        log: log.clone(),
        net: net.clone(),
        observer: observer.clone(),
        tasks: tasks.clone(),
    });
    slot.put(Services::Replica(Replica { peer, log: log.clone(), service, hub, node: node.clone() }));
    let ports = Ports {
        log: Arc::new(log.clone()),
        lease: Arc::new(log.clone()),
        agents: Arc::new(SimAgents { observer: observer.clone(), net: net.clone(), me }),
        cpis: Arc::new(OneCloud(Arc::new(SimCloudPort { observer, net, me }))),
        blobs,
        archives: Arc::new(NoArchives),
        renderer: Arc::new(PlainTemplates),
        vault: Arc::new(BackwardsVault),
        enrollment: Arc::new(PlainTokens(log.clone())),
        output: Arc::new(NoOutput),
        dns: Arc::default(),
        options: executor::Options {
            node: NodeId(me.process),
            late_calls: LATE_CALLS,
            ..executor::Options::default()
        },
    };
    let (owner, stop, mut seen) = (tasks.clone(), tasks.stop_token(), Revision(0));
    while !is_prepared(&State::new(&*ports.log.view())) {
        seen = ports.log.changed(seen).await;
    }
    let (janitors, their_log) = (node.clone(), log);
    tasks.spawn("janitor", OnExit::Ignore, move |stop| janitor::run(janitors, their_log, ROUNDS, stop));
    executor::runner::run(ports, owner, node.lease_duration(), stop).await;
}

/// One cloud, under the empty name.
struct OneCloud(Arc<dyn Cpi>);

impl Cpis for OneCloud {
    fn get(&self, name: &CpiName) -> Result<Arc<dyn Cpi>, NoCloud> {
        name.as_str().is_empty().then(|| self.0.clone()).ok_or_else(|| NoCloud::Unknown(name.clone()))
    }

    fn names(&self) -> Vec<CpiName> {
        vec![CpiName::default()]
    }
}
