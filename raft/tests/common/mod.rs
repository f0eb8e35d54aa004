//! A cluster in one process: real gRPC on loopback, real RocksDB in temporary directories.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use owned_tasks::{OnExit, OwnedTasks};
use raft::{
    Application, ConnectError, Direction, Node, OnFatal, Options, Peer, PeerConnector, Purpose,
    SnapshotPolicy, StartError, StateBatch, Timing, grpc_peer, peer_services,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};

/// How long a test waits for what should happen soon; only failures wait that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A map of strings. An entry is `request-id key value`; one that was seen is answered as the first time.
pub struct Map;

impl Application for Map {
    fn apply(&self, store: &mut StateBatch<'_>, index: u64, _term: u64, entry: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(entry).into_owned();
        let mut words = text.splitn(3, ' ');
        let (Some(request), Some(key), Some(value)) = (words.next(), words.next(), words.next()) else {
            return b"malformed".to_vec();
        };
        let seen = format!("request/{request}").into_bytes();
        if let Some(answer) = store.get(&seen) {
            return answer;
        }
        store.put(format!("key/{key}").into_bytes(), value.as_bytes().to_vec());
        let answer = format!("put {key} at {index}").into_bytes();
        store.put(seen, answer.clone());
        answer
    }
}

/// Plain TCP.
pub struct Plain;

impl PeerConnector for Plain {
    fn peer(&self, node_id: u64, address: &str, _purpose: Purpose) -> Result<Arc<dyn Peer>, ConnectError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|source| ConnectError {
            node_id,
            address: address.to_owned(),
            source: source.into(),
        })?;
        Ok(grpc_peer(endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy()))
    }
}

/// What a test may change about a cluster.
#[derive(Clone)]
pub struct Setup {
    pub connector: Arc<dyn PeerConnector>,
    pub timing: Timing,
    pub snapshots: SnapshotPolicy,
    pub on_fatal: Option<OnFatal>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            connector: Arc::new(Plain),
            timing: Timing::TESTS,
            snapshots: SnapshotPolicy::default(),
            on_fatal: None,
        }
    }
}

/// One running replica, in a runtime of its own: so it can be killed with everything that belongs to it, open
/// connections included.
pub struct Replica {
    pub node: Node,
    pub address: SocketAddr,
    runtime: Runtime,
}

impl Replica {
    pub async fn start(id: u64, dir: &Path, address: Option<SocketAddr>, setup: &Setup) -> Replica {
        Self::try_start(id, dir, address, setup).await.unwrap()
    }

    pub async fn try_start(
        id: u64,
        dir: &Path,
        address: Option<SocketAddr>,
        setup: &Setup,
    ) -> Result<Replica, StartError> {
        let mut options = Options::new(id, dir);
        options.timing = setup.timing;
        options.snapshots = setup.snapshots;
        if let Some(on_fatal) = &setup.on_fatal {
            options.on_fatal = on_fatal.clone();
        }
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        match runtime.spawn(serve(options, address, setup.connector.clone())).await.unwrap() {
            Ok((node, address)) => Ok(Replica { node, address, runtime }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Ends everything at once; nothing is handed over. Returns when its threads have ended: a test's process must not
    /// exit while one of them still closes a database.
    pub fn kill(self) {
        let Self { node, runtime, .. } = self;
        drop(node);
        // A runtime may not be waited for in another one.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }

    /// Shuts down in order.
    pub async fn stop(self) {
        self.node.shutdown().await;
        self.kill();
    }

    pub fn read(&self, key: &str) -> Option<String> {
        self.node.view().get(format!("key/{key}").as_bytes()).map(|value| String::from_utf8(value).unwrap())
    }

    /// Everything in the state.
    pub fn dump(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.node.view().scan(b"", None, Direction::Forward).collect()
    }
}

async fn serve(
    options: Options,
    address: Option<SocketAddr>,
    connector: Arc<dyn PeerConnector>,
) -> Result<(Node, SocketAddr), StartError> {
    let tasks = OwnedTasks::new();
    let node = Node::start(options, Arc::new(Map), connector, &tasks).await?;
    let address = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (raft, forward) = peer_services(&node);
    tasks.spawn("serve", OnExit::Ignore, |_| async move {
        // The server's own setting does not reach connections that it did not accept itself.
        let accepted =
            TcpListenerStream::new(listener).inspect_ok(|stream| stream.set_nodelay(true).unwrap());
        let server = Server::builder().add_service(raft).add_service(forward);
        server.serve_with_incoming(accepted).await.unwrap();
    });
    Ok((node, address))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        std::mem::take(&mut self.replicas).into_values().for_each(Replica::kill);
    }
}

/// Replicas by id.
pub struct Cluster {
    pub setup: Setup,
    pub replicas: BTreeMap<u64, Replica>,
    pub dirs: BTreeMap<u64, TempDir>,
    /// Where those that were killed listened.
    pub addresses: BTreeMap<u64, SocketAddr>,
}

impl Cluster {
    /// Starts `size` replicas that form one cluster, led by replica 1 at first.
    pub async fn start(size: u64, setup: Setup) -> Cluster {
        let mut cluster =
            Cluster { setup, replicas: BTreeMap::new(), dirs: BTreeMap::new(), addresses: BTreeMap::new() };
        cluster.launch(1).await;
        let first = &cluster.replicas[&1];
        first.node.bootstrap(&first.address.to_string()).await.unwrap();
        cluster.leader().await;
        for id in 2..=size {
            cluster.launch(id).await;
            cluster.join(id).await;
        }
        cluster
    }

    /// Starts replica `id` with the data it has, at the address it had.
    pub async fn launch(&mut self, id: u64) {
        let dir = self.dirs.entry(id).or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned();
        let address = self.addresses.get(&id).copied();
        let deadline = Instant::now() + PATIENCE;
        let replica = loop {
            match Replica::try_start(id, &dir, address, &self.setup).await {
                Ok(replica) => break replica,
                // The one that was killed closes its databases when the last of its tasks is gone.
                Err(error) if Instant::now() > deadline => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.addresses.insert(id, replica.address);
        self.replicas.insert(id, replica);
    }

    pub async fn join(&self, id: u64) {
        let address = self.replicas[&id].address.to_string();
        let leader = self.leader().await;
        self.replicas[&leader].node.add_member(id, &address, PATIENCE).await.unwrap();
    }

    pub fn kill(&mut self, id: u64) {
        self.replicas.remove(&id).unwrap().kill();
    }

    /// Waits until some living replica leads with a lease, and returns its id.
    pub async fn leader(&self) -> u64 {
        let mut found = None;
        eventually("a leader", || {
            let leads = |replica: &&Replica| replica.node.leadership().is_some_and(|leads| leads.holds());
            found = self.replicas.values().find(leads).map(|replica| replica.node.status().node_id);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.replicas.keys().find(|id| **id != leader).unwrap()
    }

    pub fn node(&self, id: u64) -> Node {
        self.replicas[&id].node.clone()
    }

    /// Waits until all replicas hold the same state, and returns it.
    pub async fn converged(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let leader = self.leader().await;
        let index = self.replicas[&leader].node.read_barrier(PATIENCE).await.unwrap();
        for replica in self.replicas.values() {
            let node = &replica.node;
            eventually("the state to catch up", || node.view().applied_index() >= index).await;
        }
        let states: Vec<_> = self.replicas.values().map(Replica::dump).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "the replicas differ");
        states.into_iter().next().unwrap()
    }
}

pub async fn put(node: &Node, request: &str, key: &str, value: &str) -> raft::Proposed {
    node.propose(format!("{request} {key} {value}").into_bytes(), PATIENCE).await.unwrap()
}

/// Waits for `reached`.
pub async fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Notes what is fatal instead of ending the process.
pub fn noted_fatal() -> (OnFatal, Arc<Mutex<Vec<String>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let sink = noted.clone();
    (Arc::new(move |message: &str| sink.lock().unwrap().push(message.to_owned())), noted)
}
