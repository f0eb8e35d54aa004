//! A fleet of replicas without their directors, and real agents: sockets, TLS and processes, on loopback.

#![allow(dead_code, reason = "each test file uses its own part")]

mod authority;
mod ports;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_api::{AgentError, Agents as _, Method, Mode, Reply, Request};
use agent_client_grpc::{AgentHub, HubOptions, HubParts, RemoteAgents};
use dagent::Settings;
use health::watcher::Ears;
use model::agent_settings::AgentPlatform;
use model::{AgentId, Epoch, NodeId};
use owned_tasks::{OnExit, OwnedTasks};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

pub use authority::Authority;
use ports::{EarsAndMemory, FleetPeers, FleetPlacement, MemoryBlobs, TokenIdentity};
pub use ports::{Heard, Homes};
use wire::Wire;

/// Longest that anything may take on a busy machine. Every wait ends with its condition, long before.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A hub with quick heartbeats.
pub const OPTIONS: HubOptions = HubOptions {
    heartbeat_interval: Duration::from_millis(200),
    silence_max: Duration::from_secs(5),
    rehome_per_second: 500,
};

/// The token of every agent.
pub const TOKEN: &str = "a-single-use-token";

/// What all replicas share.
pub struct Shared {
    pub authority: Authority,
    pub blobs: Arc<MemoryBlobs>,
    pub homes: Arc<Homes>,
    pub heard: Arc<Heard>,
    pub life: Mutex<Duration>,
    /// The key that each agent enrolled with. Taken out, its certificate counts no more.
    pub keys: Mutex<HashMap<AgentId, Vec<u8>>>,
    peer_ports: Mutex<HashMap<NodeId, SocketAddr>>,
}

/// One replica: its hub, served on an agent port and a peer port by a runtime of its own, so that it can die at once.
pub struct Replica {
    pub hub: Arc<AgentHub>,
    pub agents: RemoteAgents,
    /// Where agents reach it: the near end of the wire.
    pub agent_port: SocketAddr,
    /// The way from the agents to this replica.
    pub wire: Wire,
    /// What this replica alone has heard.
    pub ears: Arc<Ears>,
    runtime: Option<Runtime>,
}

/// Replicas, numbered from 0.
pub struct Fleet {
    pub shared: Arc<Shared>,
    pub replicas: Vec<Replica>,
}

impl Fleet {
    /// Starts so many replicas.
    pub fn start(count: u64) -> Self {
        Self::start_with(count, OPTIONS)
    }

    /// Starts so many replicas, whose hubs have these options.
    pub fn start_with(count: u64, options: HubOptions) -> Self {
        let shared = Arc::new(Shared {
            authority: Authority::new(),
            blobs: Arc::default(),
            homes: Arc::default(),
            heard: Arc::default(),
            life: Mutex::new(Duration::from_secs(3600)),
            keys: Mutex::default(),
            peer_ports: Mutex::default(),
        });
        let replicas = (0..count).map(|node| Replica::start(NodeId(node), &shared, options)).collect();
        Self { shared, replicas }
    }

    /// Ends a replica as a crash would: every connection to it breaks, nobody is told.
    pub fn kill(&mut self, place: usize) {
        let endpoint = self.replicas[place].agent_port.to_string();
        self.shared.homes.gone(&endpoint);
        if let Some(runtime) = self.replicas[place].runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Makes a replica the home of every agent and sends those of the others there.
    pub async fn rehome(&self, place: usize) {
        self.shared.homes.set(self.replicas[place].agent_port.to_string());
        for replica in &self.replicas {
            if replica.runtime.is_some() {
                replica.hub.rehome().await;
            }
        }
    }

    /// Waits until an agent's stream is at a replica.
    pub async fn until_at(&self, agent: &AgentId, place: usize) {
        until("the agent's stream", || self.replicas[place].hub.holds(agent)).await;
    }

    /// Sends a request through a replica.
    pub async fn call(
        &self,
        place: usize,
        agent: &AgentId,
        id: &str,
        method: Method,
    ) -> Result<Reply, AgentError> {
        let request =
            Request { id: id.into(), epoch: Epoch(7), mode: Mode::Submit, timeout: PATIENCE, method };
        self.replicas[place].agents.call(agent, request).await
    }

    /// Returns the endpoints of the replicas that live.
    pub fn endpoints(&self) -> Vec<String> {
        let live = self.replicas.iter().filter(|replica| replica.runtime.is_some());
        live.map(|replica| replica.agent_port.to_string()).collect()
    }
}

impl Replica {
    fn start(node: NodeId, shared: &Arc<Shared>, options: HubOptions) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = || runtime.block_on_anywhere(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let (agent_listener, peer_listener, wire_listener) = (listen(), listen(), listen());
        let peer_port = peer_listener.local_addr().unwrap();
        shared.peer_ports.lock().unwrap().insert(node, peer_port);
        let (tasks, ears) = (OwnedTasks::new(), Arc::new(Ears::default()));
        let wire = {
            let _context = runtime.enter();
            Wire::lay(wire_listener, agent_listener.local_addr().unwrap(), &tasks)
        };
        let agent_port = wire.address;
        shared.homes.add(agent_port.to_string());
        let parts = HubParts {
            identity: Arc::new(TokenIdentity(shared.clone())),
            blobs: shared.blobs.clone(),
            placement: Arc::new(FleetPlacement { homes: shared.homes.clone(), own: agent_port.to_string() }),
            sink: Arc::new(EarsAndMemory { ears: ears.clone(), memory: shared.heard.clone() }),
        };
        let hub = AgentHub::new(parts, options, tasks.clone());
        let agents = RemoteAgents::new(hub.clone(), Arc::new(FleetPeers { node, shared: shared.clone() }));

        let tls = ServerTlsConfig::new()
            .identity(shared.authority.director())
            .client_ca_root(Certificate::from_pem(shared.authority.pem()))
            .client_auth_optional(true);
        let agent_server = Server::builder().tls_config(tls).unwrap().add_routes(hub.agent_routes());
        let peer_server = Server::builder().add_routes(hub.relay_routes());
        let _context = runtime.enter();
        tasks.spawn("agent port", OnExit::Ignore, |_| async move {
            agent_server.serve_with_incoming(TcpListenerStream::new(agent_listener)).await.unwrap();
        });
        tasks.spawn("peer port", OnExit::Ignore, |_| async move {
            peer_server.serve_with_incoming(TcpListenerStream::new(peer_listener)).await.unwrap();
        });
        Self { hub, agents, agent_port, wire, ears, runtime: Some(runtime) }
    }
}

/// A runtime can't be blocked on from within another one's thread; a thread of its own can.
trait BlockOnAnywhere {
    fn block_on_anywhere<T: Send, E: std::fmt::Debug + Send>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send,
    ) -> T;
}

impl BlockOnAnywhere for Runtime {
    fn block_on_anywhere<T: Send, E: std::fmt::Debug + Send>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send,
    ) -> T {
        std::thread::scope(|scope| scope.spawn(|| self.block_on(future).unwrap()).join().unwrap())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A real agent in this process, with a directory of its own, that can be ended and started again.
pub struct TestAgent {
    pub id: AgentId,
    pub dir: tempfile::TempDir,
    settings: Settings,
    running: Mutex<Option<OwnedTasks>>,
    /// Whether it has come to its end by itself.
    pub has_ended: Arc<AtomicBool>,
}

impl TestAgent {
    /// Starts an agent that knows these directors.
    pub fn start(fleet: &Fleet, id: &str) -> Self {
        let settings = Settings {
            agent_id: id.into(),
            endpoints: fleet.endpoints(),
            authorities_pem: fleet.shared.authority.pem(),
            token: TOKEN.into(),
            platform: AgentPlatform::Process,
            path_rewrite: true,
            ..Settings::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let (running, has_ended) = (Mutex::new(None), Arc::default());
        let agent = Self { id: id.into(), dir, settings, running, has_ended };
        agent.run();
        agent
    }

    pub fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn run(&self) {
        let tasks = OwnedTasks::new();
        let (settings, base, inside) = (self.settings.clone(), self.base(), tasks.clone());
        let has_ended = self.has_ended.clone();
        tasks.spawn("agent", OnExit::Ignore, |stop| async move {
            let off = CancellationToken::new();
            let agent = dagent::agent_of_this_machine(settings, &base, inside, off).unwrap();
            agent.run(stop).await.unwrap();
            has_ended.store(true, Ordering::SeqCst);
        });
        *self.running.lock().unwrap() = Some(tasks);
    }

    /// Ends the agent and what it runs, and starts it again.
    pub async fn restart(&self) {
        let tasks = self.running.lock().unwrap().take();
        if let Some(tasks) = tasks {
            assert!(tasks.stop(PATIENCE).await, "the agent ends");
        }
        self.run();
    }

    /// Puts an errand where an apply would.
    pub fn install_errand(&self, name: &str, script: &str) {
        let bin = self.base().join("jobs").join(name).join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        write_program(&bin.join("run"), script);
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        if let Some(tasks) = self.running.lock().unwrap().take() {
            tasks.stop_token().cancel();
        }
    }
}

/// Writes a bash script that can be run.
pub fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/bash\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A director's TLS identity.
pub fn identity_of(certificate_pem: String, key_pem: String) -> Identity {
    Identity::from_pem(certificate_pem, key_pem)
}
