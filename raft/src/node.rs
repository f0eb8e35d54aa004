//! The handle to one replica.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use owned_tasks::{OnExit, OwnedTasks};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::acks::Acks;
use crate::carrier::Carrier;
use crate::disk::{self, DiskError};
use crate::engine_config;
use crate::examine;
use crate::fatal::Fatal;
use crate::heard::Heard;
use crate::leader::{Leaders, Office};
use crate::log_db::{Expected, LogDb};
use crate::log_store::LogStore;
use crate::network::Network;
use crate::peers::Peers;
use crate::propose::Road;
use crate::room::Told;
use crate::state_machine::StateMachine;
use crate::state_store::{Gaps, StateStore};
use crate::status;
use crate::type_config::TypeConfig;
use crate::{Application, Leadership, Options, PeerConnector, StartError, StateView, Status, Timing};

/// The consensus engine with our storage.
pub(crate) type Engine = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type MetricsReceiver = openraft::alias::WatchReceiverOf<TypeConfig, Metrics>;

/// The handle to one replica; clones are handles to the same one.
///
/// The databases close when the last clone, and the last [`StateView`], is gone.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) node_id: u64,
    pub(crate) timing: Timing,
    pub(crate) engine: Engine,
    pub(crate) store: Arc<StateStore>,
    pub(crate) heard: Arc<Heard>,
    acks: Arc<Acks>,
    pub(crate) leaders: Leaders,
    pub(crate) carrier: Carrier,
    pub(crate) road: Road,
    pub(crate) stopping: CancellationToken,
    pub(crate) room: Arc<Told>,
    status: watch::Receiver<Status>,
    /// The term that this replica leads, and when it noticed.
    noticed: Arc<Mutex<Option<(u64, Instant)>>>,
}

impl Node {
    /// Opens the data and starts the replica. A fresh one waits to be [bootstrapped](Node::bootstrap) or
    /// [added](Node::add_member) to a cluster; its [`peer_services`](crate::peer_services) must be served then.
    pub async fn start(
        options: Options,
        application: Arc<dyn Application>,
        connector: Arc<dyn PeerConnector>,
        tasks: &OwnedTasks,
    ) -> Result<Self, StartError> {
        let config = engine_config::engine_config(&options)?;
        let fatal = Fatal::new(options.on_fatal.clone());
        let (node_id, timing) = (options.node_id, options.timing);
        let opened = {
            let fatal = fatal.clone();
            let disk = options.disk.clone();
            disk::run(&*disk, move || open(&options, application, fatal)).await
        };
        let (log, store) = opened.map_err(|error| StartError::Engine(error.into()))??;
        let acks = Arc::new(Acks::default());
        let peers = Arc::new(Peers::new(connector));
        let network = Network {
            acks: acks.clone(),
            peers: peers.clone(),
            stall: (timing.election_max * 4).max(Duration::from_secs(2)),
        };
        let machine = StateMachine { store: store.clone(), fatal, gaps: Gaps::Refused };
        let engine = Engine::new(node_id, config, network, log, machine)
            .await
            .map_err(|error| StartError::Engine(error.into()))?;
        let (status, status_receiver) = watch::channel(status::status_of(&engine.metrics().borrow_watched()));
        let stopping = CancellationToken::new();
        let noticed = Arc::new(Mutex::new(None));
        let (office, leaders) = watch::channel(Office::of(&engine.metrics().borrow_watched()));
        let watching = Watching {
            metrics: engine.metrics(),
            status,
            office,
            stopping: stopping.clone(),
            noticed: noticed.clone(),
        };
        tasks.spawn("raft", OnExit::StopNode, |stop| watching.run(stop));
        let road = Road { peers, gate: Arc::default() };
        let (carrier, deliveries) = Carrier::new();
        let calls = road.clone();
        tasks.spawn("carrier", OnExit::Ignore, |stop| deliveries.run(calls, stop));
        let inner = Inner {
            node_id,
            timing,
            engine,
            store,
            heard: Arc::default(),
            acks,
            leaders: Leaders::new(leaders),
            carrier,
            road,
            stopping,
            room: Arc::default(),
            status: status_receiver,
            noticed,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns a consistent view of the local state, as it is now. How current that is, only
    /// [`read_barrier`](Node::read_barrier) can say.
    pub fn view(&self) -> StateView {
        self.inner.store.view()
    }

    /// Returns a receiver that follows the index of the last entry in the local state.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.inner.store.watch_applied()
    }

    /// Returns what this replica knows about itself and its cluster.
    pub fn status(&self) -> Status {
        status::status_of(&self.metrics().borrow_watched())
    }

    /// Returns a receiver that follows [`Node::status`]; it is not woken for heartbeats alone.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Returns whether this replica leads right now, of which term, and until when that provably holds.
    ///
    /// Check [`Leadership::holds`] before every side effect on the world, and wait out
    /// [`lease_duration`](Node::lease_duration) from [`Leadership::since`] before the first one of a term. Then no two
    /// leaders ever act at the same time, because: *t* is when the last message was sent that a quorum acknowledged. Who
    /// acknowledged it had not voted for a newer leader yet, and any newer leader needs a vote from one of them. So
    /// the newer leader's `since` is after *t*, it acts after *t* + the lease at the earliest, and the lease of the
    /// older one ends a margin before that. No clocks are compared, only the speed at which they run; the margin
    /// covers its error. A transfer of leadership or a restart of voters changes nothing in this.
    pub fn leadership(&self) -> Option<Leadership> {
        let metrics = self.metrics();
        let metrics = metrics.borrow_watched();
        let term = led_term(&metrics)?;
        let configs = metrics.membership_config.membership().get_joint_config();
        let acknowledged = self.inner.acks.by_quorum(self.inner.node_id, term, configs)?;
        let since = notice(&self.inner.noticed, Some(term))?;
        // Clocks may run at different speeds, and between a check and the deed there is always a moment.
        let margin = self.lease_duration() / 10;
        Some(Leadership { term, since, until: acknowledged + self.lease_duration() - margin })
    }

    /// Returns what a new leader waits out, counted from [`Leadership::since`], before it touches the world.
    pub fn lease_duration(&self) -> Duration {
        self.inner.timing.election_max
    }

    /// Hands leadership over if this replica leads, then stops. Bounded by a few election timeouts.
    ///
    /// What was acknowledged is on the disk already; this only saves the others an election.
    pub async fn shutdown(&self) {
        if !self.inner.stopping.is_cancelled() && led_term(&self.metrics().borrow_watched()).is_some() {
            // Best effort: without it the others notice by themselves.
            if let Err(error) = self.transfer_leader(None, self.inner.timing.election_max * 2).await {
                tracing::info!(node = self.inner.node_id, %error, "stopping without handing over leadership");
            }
        }
        self.inner.stopping.cancel();
        if let Err(error) = self.inner.engine.shutdown().await {
            tracing::warn!(node = self.inner.node_id, %error, "the consensus engine did not end well");
        }
        if let Err(error) = self.inner.store.sync().await {
            tracing::warn!(node = self.inner.node_id, %error, "the state was not synced; the log will be replayed");
        }
    }

    pub(crate) fn metrics(&self) -> MetricsReceiver {
        self.inner.engine.metrics()
    }

    pub(crate) fn engine(&self) -> Engine {
        self.inner.engine.clone()
    }

    pub(crate) fn store(&self) -> Arc<StateStore> {
        self.inner.store.clone()
    }
}

fn open(
    options: &Options,
    application: Arc<dyn Application>,
    fatal: Fatal,
) -> Result<(LogStore, Arc<StateStore>), StartError> {
    let (disk, data_dir, node_id) = (options.disk.clone(), &*options.data_dir, options.node_id);
    let dir_error = |source| StartError::DataDir { path: data_dir.to_owned(), source };
    disk.create_dir_all(data_dir).map_err(dir_error)?;
    // The log first: it knows whose directory this is.
    let path = data_dir.join("log");
    let expected = match options.has_run || StateStore::is_there(&*disk, data_dir) {
        true => Expected::Old,
        false => Expected::Any,
    };
    let log = LogStore::open_db(&*disk, &path, node_id, expected)?;
    // Its name, too, before anything relies on it: without its log a state does not begin anew.
    disk.sync_dir(data_dir).map_err(dir_error)?;
    let store = StateStore::open(disk.clone(), data_dir, application, fatal.clone())?;
    check(&log, &store).map_err(|source| StartError::Database { database: "log", path, source })?;
    // An entry may be committed by others and applied here before its place in our log is on the disk. Who stops then has a
    // state that is ahead of the log, and which the engine can go on from only if a snapshot has it all, too.
    let last = log.last().map_err(|error| StartError::Engine(error.into()))?;
    if store.position().0 > last {
        store.build_snapshot().map_err(dir_error)?;
    }
    let log = LogStore::start(disk, log, store.clone(), fatal).map_err(dir_error)?;
    Ok((log, store))
}

/// Reads the whole log, while there is somebody to tell: a replica must not find out that it has lost what it promised to
/// keep when others rely on it.
fn check(log: &LogDb, store: &StateStore) -> Result<(), DiskError> {
    log.check()?;
    examine::agree(log, store.position().0)
}

/// Returns the term that this replica leads, if it does.
pub(crate) fn led_term(metrics: &Metrics) -> Option<u64> {
    let leads = metrics.state == ServerState::Leader
        && metrics.running_state.is_ok()
        && metrics.vote.committed
        && metrics.vote.leader_id.voted_for == metrics.id;
    leads.then_some(metrics.vote.leader_id.term)
}

/// Remembers when `term` was first seen to be led, and returns that.
fn notice(noticed: &Mutex<Option<(u64, Instant)>>, term: Option<u64>) -> Option<Instant> {
    let mut noticed = noticed.lock().expect("no code panics while it holds this");
    if noticed.map(|(known, _)| known) != term {
        *noticed = term.map(|term| (term, Instant::now()));
    }
    noticed.map(|(_, since)| since)
}

/// Follows the engine, for those who wait for its status.
struct Watching {
    metrics: MetricsReceiver,
    status: watch::Sender<Status>,
    office: watch::Sender<Office>,
    stopping: CancellationToken,
    noticed: Arc<Mutex<Option<(u64, Instant)>>>,
}

impl Watching {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let failed = {
                let metrics = self.metrics.borrow_and_update();
                notice(&self.noticed, led_term(&metrics));
                self.office.send_if_modified(|known| {
                    let now = Office::of(&metrics);
                    let changed = *known != now;
                    *known = now;
                    changed
                });
                let status = status::status_of(&metrics);
                self.status.send_if_modified(|known| {
                    let changed = !known.equals_but_for_heartbeats(&status);
                    *known = status;
                    changed
                });
                metrics.running_state.is_err()
            };
            if failed {
                break;
            }
            tokio::select! {
                changed = self.metrics.changed() => if changed.is_err() { break },
                () = stop.cancelled() => return,
            }
        }
        let stopping = self.stopping.clone();
        drop(self);
        // Asked to stop, it is no failure that the engine ended. Otherwise the end of this task reports one.
        if stopping.is_cancelled() {
            stop.cancelled().await;
        }
    }
}
