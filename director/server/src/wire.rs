//! What is connected to what: a replica from its configuration to its open ports, and back down in order.

use std::sync::Arc;
use std::time::Duration;

use agent_api::Agents;
use agent_client_grpc::{AgentHub, HubOptions, HubParts, RemoteAgents};
use anyhow::Context as _;
use axum::Router;
use axum::middleware::from_fn;
use executor::Ports;
use executor::ports::{Snapshots, Vault};
use health::watcher::Ears;
use owned_tasks::{OnExit, OwnedTasks};
use proto::peer::v1::blob_copies_server::BlobCopiesServer;
use proto::peer::v1::fleet_server::FleetServer;
use raft::{Node, Timing};
use release::{LocalBlobs, RenderOptions, Renderer};
use service::Service;
use state::State;
use state::log::CommandLog as _;
use state::records::Cluster;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use crate::agent_blobs::BlobDesk;
use crate::agents::AgentSide;
use crate::alerts;
use crate::archives::{Limits, Trust, WebArchives};
use crate::auth::Doorkeeper;
use crate::clouds::Clouds;
use crate::clouds::probe::Prober;
use crate::commands::{member_of, own_names};
use crate::config::{Config, TimingProfile};
use crate::contact;
use crate::daily_snapshots;
use crate::damage::{advised, check_presence, end_the_process};
use crate::deadline;
use crate::door::Door;
use crate::fleet::blobs::FleetBlobs;
use crate::fleet::forgetting::forget;
use crate::fleet::fsm::Fsm;
use crate::fleet::gate::PeerGate;
use crate::fleet::homes::follow_shards;
use crate::fleet::leaving::finish_removals;
use crate::fleet::log::RaftLog;
use crate::fleet::membership::{FleetService, Membership};
use crate::fleet::peers::PeerChannels;
use crate::fleet::readmitting::remember_peers;
use crate::fleet::room;
use crate::fleet::scrub::{scrub, scrub_state};
use crate::fleet::settling::settle;
use crate::grpc;
use crate::identity::{Authority, IdentityFiles, NodeIdentity, keep_fresh};
use crate::janitor;
use crate::listen;
use crate::listeners::Listeners;
use crate::lock::DataLock;
use crate::metrics;
use crate::nats::{BothAgents, Nats};
use crate::output::Outputs;
use crate::probes;
use crate::rest;
use crate::secrets::{Kek, KekVault};
use crate::tls::{PortKind, TlsIdentity};
use crate::traces::task_spans;
use crate::uaa::Uaa;
use crate::world::FleetWorld;

/// What the fleet's authority is sealed under.
pub const AUTHORITY_SECRET: &str = "fleet authority";

/// Opens the fleet's authority out of the state.
pub fn open_authority(cluster: &Cluster, kek: &Kek) -> anyhow::Result<Authority> {
    let key = KekVault::new(kek.clone()).open_bytes(AUTHORITY_SECRET, &cluster.secrets.authority_key);
    let key = key.context("open the fleet's authority with this replica's key-encryption key")?;
    Ok(Authority::open(&cluster.secrets.authority_pem, std::str::from_utf8(&key)?)?)
}

/// Returns consensus options for a configuration.
pub fn raft_options(config: &Config, identity: &NodeIdentity) -> raft::Options {
    let mut options = raft::Options::new(identity.node.0, config.data_dir.join("raft"));
    options.on_fatal = Arc::new(end_the_process);
    options.timing = match config.timing {
        TimingProfile::Default => Timing::DEFAULT,
        TimingProfile::SlowDisk => Timing::SLOW_DISKS,
    };
    options
}

/// What tells a replica to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> anyhow::Result<Self> {
        let watch = |kind| signal(kind).context("watch for signals");
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    /// Waits until somebody tells us to stop.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A replica that is being put together.
struct Replica {
    config: Config,
    identity: NodeIdentity,
    files: IdentityFiles,
    tls: Arc<TlsIdentity>,
    kek: Kek,
    node: Node,
    log: RaftLog,
    peers: Arc<PeerChannels>,
    blobs: Arc<FleetBlobs>,
    agent_side: Arc<AgentSide>,
    hub: Arc<AgentHub>,
    agents: RemoteAgents,
    health: HealthReporter,
    /// Tasks that stop first: whatever takes in new work.
    doors: OwnedTasks,
    /// Tasks that stop last: consensus and what it needs.
    core: OwnedTasks,
}

/// Runs a replica until it is told to stop or something that it needs has ended.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // First: who is told to stop while it starts stops in order, too.
    let mut signals = Signals::watch()?;
    let listeners = Listeners::bind(&config).await?;
    let _lock = DataLock::take(&config.data_dir)?;
    let replica = Replica::open(config).await?;
    let ran = replica.work(listeners, &mut signals).await;
    // Also when it could not start to the end: it may be a voter, and even lead.
    replica.stop().await;
    ran
}

impl Replica {
    async fn open(config: Config) -> anyhow::Result<Self> {
        let files = IdentityFiles::new(&config.data_dir);
        anyhow::ensure!(
            files.exist(),
            "`{}` has no identity: run `directord init` for the first replica of a fleet, `directord join` for others",
            config.data_dir.display()
        );
        let identity = files.node().context("read which replica this is")?;
        check_presence(&config, &files, identity.node)?;
        let kek = Kek::load(&config.kek_file)?;
        let tls = TlsIdentity::new(&files.chain_pem()?, &files.key_pem()?, &files.authorities_pem()?)?;
        let tls = Arc::new(tls);
        let peers = Arc::new(PeerChannels::new(tls.clone()));
        let (doors, core) = (OwnedTasks::new(), OwnedTasks::new());
        let options = raft::Options { has_run: files.has_run(), ..raft_options(&config, &identity) };
        let started = Node::start(options, Arc::new(Fsm::default()), peers.clone(), &core).await;
        let node = started.map_err(advised)?;
        files.note_run().context("note that this replica has run")?;
        let log = RaftLog::new(node.clone(), identity.node);
        // After the databases: their lock keeps a second process out, which would take our unfinished blobs for a crash's.
        let opened = check_cluster(&log, &identity).and_then(|()| {
            LocalBlobs::open(config.data_dir.join("blobs")).context("open the store of blobs")
        });
        let local = match opened {
            Ok(local) => Arc::new(local.keeping_free(config.blobs.keep_free_bytes)),
            Err(error) => {
                node.shutdown().await;
                core.stop(Duration::from_secs(5)).await;
                return Err(error);
            }
        };
        let blobs = Arc::new(FleetBlobs::new(identity.node, local, log.clone(), peers.clone()));
        let (alerts, handed_in) = alerts::desk();
        let filing = log.clone();
        doors.spawn("alerts", OnExit::StopNode, move |stop| alerts::file(filing, handed_in, stop));
        let agent_side = Arc::new(AgentSide {
            id: identity.node,
            log: log.clone(),
            kek: kek.clone(),
            blobs: blobs.clone(),
            peers: peers.clone(),
            ears: Arc::new(Ears::default()),
            alerts,
            nats: nats_of(&config, &kek, &blobs),
        });
        let hub = AgentHub::new(hub_parts(&agent_side), HubOptions::default(), doors.clone());
        let agents = RemoteAgents::new(hub.clone(), agent_side.clone());
        let health = HealthReporter::new();
        // Until it is known better.
        health.set_service_status("", ServingStatus::NotServing).await;
        Ok(Self {
            config,
            identity,
            files,
            tls,
            kek,
            node,
            log,
            peers,
            blobs,
            agent_side,
            hub,
            agents,
            health,
            doors,
            core,
        })
    }

    /// Opens what is served, does its part in the fleet, and waits to be told to stop.
    async fn work(&self, listeners: Listeners, signals: &mut Signals) -> anyhow::Result<()> {
        let membership = self.membership();
        let outputs = self.start_background(&membership);
        self.start_peer_port(&membership, listeners.peer)?;
        self.start_agent_port(listeners.agent);
        self.start_api(&membership, listeners.api)?;
        self.start_blob_port(listeners.blobs);
        if let Some(listener) = listeners.probes {
            probes::start(&self.doors, listener, self.node.clone(), self.log.clone(), self.hub.clone());
        }
        // Before it asks for a place: a voter that can't run is worse than none, the others would count on it.
        let ports = tokio::select! {
            ports = self.executor_ports(outputs) => ports?,
            () = signals.told() => return Ok(()),
            name = self.core.failed() => return Err(ended(name)),
        };
        self.start_membership(membership);
        self.start_executor(ports);
        info!(node = %self.identity.node, name = self.config.name, api = %self.config.api.listen, "running");
        tokio::select! {
            () = signals.told() => Ok(()),
            name = self.doors.failed() => Err(ended(name)),
            name = self.core.failed() => Err(ended(name)),
        }
    }

    fn membership(&self) -> Membership {
        Membership {
            id: self.identity.node,
            node: self.node.clone(),
            log: self.log.clone(),
            peers: self.peers.clone(),
            hub: self.hub.clone(),
            prober: Prober::new(
                self.config.cpi.clone(),
                self.config.data_dir.clone(),
                Arc::new(self.log.clone()),
                Arc::new(KekVault::new(self.kek.clone())),
            ),
        }
    }

    fn start_background(&self, membership: &Membership) -> Arc<Outputs> {
        let outputs = Arc::new(Outputs::new(self.blobs.clone(), self.log.clone()));
        let sealer = outputs.clone();
        self.core.spawn("task output", OnExit::StopNode, |stop| sealer.run(stop));
        let blobs = (*self.blobs).clone();
        self.doors.spawn("blob healer", OnExit::StopNode, |stop| blobs.heal(stop));
        let blobs = (*self.blobs).clone();
        self.doors.spawn("forgotten blobs", OnExit::StopNode, |stop| forget(blobs, stop));
        let local = self.blobs.local();
        self.doors.spawn("blob scrubber", OnExit::StopNode, |stop| scrub(local, stop));
        let (log, kek) = (self.log.clone(), self.kek.clone());
        let authority = move || {
            let view = log.view();
            open_authority(&State::new(&*view).cluster()?, &kek).ok()
        };
        let (files, tls, names) = (self.files.clone(), self.tls.clone(), own_names(&self.config));
        let id = self.identity.node;
        self.doors.spawn("certificate renewal", OnExit::StopNode, move |stop| {
            keep_fresh(files, tls, id, names, authority, stop)
        });
        let world = FleetWorld::new(id, self.node.clone(), membership.log.clone(), self.all_agents());
        let world: Arc<dyn health::World> = Arc::new(world.with_bus(self.config.nats.is_some()));
        let (ears, watched) = (self.agent_side.ears.clone(), world.clone());
        self.doors.spawn("health watcher", OnExit::StopNode, |stop| {
            health::watcher::run(watched, ears, health::assess::Policy::default(), stop)
        });
        self.doors.spawn("resurrector", OnExit::StopNode, |stop| {
            health::resurrector::run(world, health::meltdown::Thresholds::default(), stop)
        });
        let (node, log) = (self.node.clone(), self.log.clone());
        let rounds = janitor::Rounds::default();
        self.doors.spawn("janitor", OnExit::StopNode, move |stop| janitor::run(node, log, rounds, stop));
        if let Some(at) = self.config.snapshots.daily_at {
            let (node, log) = (self.node.clone(), self.log.clone());
            self.doors.spawn("daily snapshots", OnExit::StopNode, move |stop| {
                daily_snapshots::run(node, log, at, stop)
            });
        }
        let (node, log) = (self.node.clone(), self.log.clone());
        self.doors.spawn("removals", OnExit::StopNode, |stop| finish_removals(node, log, stop));
        let (node, log) = (self.node.clone(), self.log.clone());
        let health = self.health.clone();
        self.doors.spawn("contact", OnExit::Ignore, move |stop| contact::follow(node, log, health, stop));
        let (files, own, log) = (self.files.clone(), self.identity.clone(), self.log.clone());
        self.doors.spawn("peers' addresses", OnExit::StopNode, |stop| remember_peers(files, own, log, stop));
        let (folder, member) = (self.config.data_dir.clone(), membership.clone());
        self.doors.spawn("room on the disk", OnExit::StopNode, |stop| room::watch(folder, member, stop));
        let state = self.log.clone();
        self.doors.spawn("state scrubber", OnExit::StopNode, |stop| scrub_state(state, stop));
        Nats::start(&self.agent_side, &self.hub, self.node.clone(), &self.doors);
        let (hub, log) = (self.hub.clone(), self.log.clone());
        self.doors.spawn("agent homes", OnExit::StopNode, |stop| follow_shards(hub, log, stop));
        outputs
    }

    /// Returns the agents of either kind.
    fn all_agents(&self) -> Arc<dyn Agents> {
        BothAgents::of(Arc::new(self.agents.clone()), self.agent_side.nats.clone())
    }

    fn start_peer_port(&self, membership: &Membership, listener: TcpListener) -> anyhow::Result<()> {
        let (raft, forward) = raft::peer_services(&self.node);
        let routes = self
            .hub
            .relay_routes()
            .add_service(raft)
            .add_service(forward)
            .add_service(FleetServer::new(FleetService(membership.clone(), self.kek.clone())))
            .add_service(BlobCopiesServer::new(self.blobs.copies()));
        let routes = PeerGate::new(self.node.clone(), self.log.clone()).guard(router(routes));
        self.serve(&self.core, "peer port", listener, PortKind::Peer, routes);
        Ok(())
    }

    fn start_agent_port(&self, listener: TcpListener) {
        self.serve(&self.doors, "agent port", listener, PortKind::Agent, router(self.hub.agent_routes()));
    }

    /// Serves blobs to agents of BOSH's, where there may be any.
    fn start_blob_port(&self, listener: Option<TcpListener>) {
        if let (Some(listener), Some(nats)) = (listener, &self.agent_side.nats) {
            self.serve(&self.doors, "blob port", listener, PortKind::Api, nats.blobs.routes());
        }
    }

    fn start_api(&self, membership: &Membership, listener: TcpListener) -> anyhow::Result<()> {
        let service = Service::new(Arc::new(self.log.clone()));
        let uaa = self.config.uaa.as_ref().map(Uaa::open).transpose().context("read [uaa]")?.map(Arc::new);
        if let Some(uaa) = uaa.clone() {
            self.doors.spawn("keys of the UAA", OnExit::Ignore, move |stop| uaa.keep_fresh(stop));
        }
        let door = Door {
            doorkeeper: Doorkeeper::new(service.clone()).with_uaa(uaa),
            service,
            blobs: self.blobs.clone(),
            upload_bytes_max: self.config.blobs.upload_bytes_max,
            takes_snapshots: self.config.snapshots.taken == Snapshots::On,
            agents: self.all_agents(),
            reports: self.agents.clone(),
            vault: Arc::new(KekVault::new(self.kek.clone())),
            membership: membership.clone(),
            kek: self.kek.clone(),
            health: self.health.clone(),
            tasks: self.doors.clone(),
        };
        let grpc =
            router(grpc::routes(&door)?).layer(from_fn(deadline::honour)).layer(from_fn(metrics::observe));
        let rest = rest::routes(door, self.config.cpi.name());
        let routes = rest::beside(grpc, rest);
        self.serve(&self.doors, "API port", listener, PortKind::Api, routes);
        Ok(())
    }

    fn serve(
        &self,
        tasks: &OwnedTasks,
        name: &'static str,
        listener: TcpListener,
        kind: PortKind,
        router: Router,
    ) {
        let (tls, connections) = (self.tls.clone(), tasks.clone());
        tasks.spawn(name, OnExit::StopNode, move |stop| {
            listen::serve(listener, tls, kind, router, connections, stop)
        });
    }

    /// Asks for a place in the fleet if this replica has none yet, and files its addresses where they have changed.
    fn start_membership(&self, membership: Membership) {
        let own = member_of(&self.config, self.identity.node);
        let known = self.identity.peers.clone();
        self.doors.spawn("membership", OnExit::Ignore, move |stop| async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = settle(membership, known, own) => {}
            }
        });
    }

    /// Opens what tasks are done with: Ruby and the cloud.
    async fn executor_ports(&self, outputs: Arc<Outputs>) -> anyhow::Result<Ports> {
        let renderer =
            Renderer::start(RenderOptions::default()).await.context("start the template renderer")?;
        let vault: Arc<dyn Vault> = Arc::new(KekVault::new(self.kek.clone()));
        let clouds = Arc::new(Clouds::open(&self.config, Arc::new(self.log.clone()), vault.clone()).await?);
        let (announcing, log) = (clouds.clone(), self.log.clone());
        self.doors
            .spawn("announcements", OnExit::Ignore, move |stop| announcing.announce_replicas(log, stop));
        Ok(Ports {
            log: Arc::new(self.log.clone()),
            lease: Arc::new(self.log.clone()),
            agents: self.all_agents(),
            cpis: clouds,
            blobs: self.blobs.clone(),
            archives: Arc::new(WebArchives::new(
                Limits::of_size(self.config.blobs.upload_bytes_max),
                Trust::Machine,
            )),
            renderer: Arc::new(renderer),
            vault,
            enrollment: self.agent_side.clone(),
            output: outputs,
            dns: Arc::default(),
            options: executor::Options {
                node: self.identity.node,
                late_calls: self.config.late_calls,
                snapshots: self.config.snapshots.taken,
                ssh_gateway: self.config.ssh_gateway.clone(),
                spans: task_spans(self.identity.cluster_id.clone()),
                ..executor::Options::default()
            },
        })
    }

    fn start_executor(&self, ports: Ports) {
        let (owner, wait) = (self.doors.clone(), self.node.lease_duration());
        self.doors
            .spawn("executor", OnExit::StopNode, move |stop| executor::runner::run(ports, owner, wait, stop));
    }

    /// Stops in order: no new work, leadership handed over, streams ended, consensus last. All within one deadline.
    async fn stop(&self) {
        info!(node = %self.identity.node, "stopping");
        let stopped = tokio::time::timeout(self.config.stop_timeout, async {
            // First: whoever leads next finds agents and clients still connected here for a moment.
            if self.node.leadership().is_some()
                && let Err(error) = self.node.transfer_leader(None, Duration::from_secs(5)).await
            {
                warn!(error = %error, "leadership was not handed over");
            }
            self.doors.stop(Duration::from_secs(5)).await;
            self.node.shutdown().await;
            self.core.stop(Duration::from_secs(5)).await
        });
        match stopped.await {
            Ok(true) => info!(node = %self.identity.node, "stopped in order"),
            // What still runs has been named.
            Ok(false) => {}
            Err(_) => error!("the stop took too long; what is committed is safe"),
        }
    }
}

fn nats_of(config: &Config, kek: &Kek, blobs: &Arc<FleetBlobs>) -> Option<Arc<Nats>> {
    let nats = config.nats.clone()?;
    let desk = BlobDesk::new(config.blob_port.clone(), config.blobs.upload_bytes_max, blobs.clone(), kek);
    Some(Nats::new(nats, &config.data_dir, blobs.log().clone(), kek.clone(), desk))
}

fn hub_parts(side: &Arc<AgentSide>) -> HubParts {
    let placement = Arc::new(side.homes());
    HubParts { identity: side.clone(), blobs: side.clone(), placement, sink: side.clone() }
}

fn router(routes: Routes) -> Router {
    routes.prepare().into_axum_router()
}

/// Refuses data of another fleet: whoever copied a folder here should know at once.
fn check_cluster(log: &RaftLog, identity: &NodeIdentity) -> anyhow::Result<()> {
    let view = log.view();
    match State::new(&*view).cluster() {
        Some(cluster) if cluster.cluster_id != identity.cluster_id => anyhow::bail!(
            "the data belongs to fleet {}, this replica to fleet {}: restore the folder that belongs together, or join anew \
             with an empty one",
            cluster.cluster_id,
            identity.cluster_id
        ),
        _ => Ok(()),
    }
}

fn ended(name: &str) -> anyhow::Error {
    anyhow::anyhow!("'{name}' has ended, which this replica needs: see the log")
}
