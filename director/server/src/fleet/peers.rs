//! Connections to the other replicas: mTLS, each checked to be the replica that was meant.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use model::NodeId;
use raft::{ConnectError, Peer, PeerConnector, Purpose, grpc_peer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls::{OutOfTime, TlsIdentity, expected_name};

/// How long a peer may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Time between two attempts to reach a peer for what is not consensus, which paces itself.
const DIAL_EVERY: Duration = Duration::from_millis(50);

/// How often an idle connection is checked, so that a peer that vanished is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Remembers for all peers when it was last said that a certificate was refused for its dates.
static OUT_OF_TIME: OutOfTime = OutOfTime::new();

/// Makes channels to peers.
pub struct PeerChannels {
    identity: Arc<TlsIdentity>,
    /// One channel per peer for everything that is not consensus, with the address that it leads to.
    shared: Mutex<BTreeMap<NodeId, (String, Channel)>>,
}

impl PeerChannels {
    /// Makes the channels of a replica.
    pub fn new(identity: Arc<TlsIdentity>) -> Self {
        Self { identity, shared: Mutex::default() }
    }

    /// Returns this replica's certificate, as it is now.
    pub fn identity(&self) -> &TlsIdentity {
        &self.identity
    }

    /// Returns the channel to a peer for fleet calls, relays and blobs. Lazy, shared.
    pub fn shared(&self, node: NodeId, address: &str) -> Result<Channel, ConnectError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = shared.get(&node)
            && known == address
        {
            return Ok(channel.clone());
        }
        // A peer that has moved leaves nothing behind.
        let channel = self.open(node, address, Some(Arc::default()))?;
        shared.insert(node, (address.to_owned(), channel.clone()));
        Ok(channel)
    }

    fn open(&self, node: NodeId, address: &str, dials: Option<Arc<Dials>>) -> Result<Channel, ConnectError> {
        let failed = |source| ConnectError { node_id: node.0, address: address.to_owned(), source };
        // The scheme is plain to tonic: TLS is the connector's, so that it is renewed without tonic knowing.
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|e| failed(Box::new(e) as _))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let (identity, address) = (self.identity.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (identity, address, dials) = (identity.clone(), address.clone(), dials.clone());
            async move {
                if dials.is_some_and(|dials| !dials.may()) {
                    return Err(std::io::Error::new(
                        std::io::ErrorKind::WouldBlock,
                        "this peer was dialled a moment ago",
                    ));
                }
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let tls = TlsConnector::from(identity.client()).connect(expected_name(node), stream).await;
                let tls = tls.inspect_err(|error| {
                    // The layers above only say that there is no connection.
                    OUT_OF_TIME.tell(error, &address);
                })?;
                Ok::<_, std::io::Error>(TokioIo::new(tls))
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

/// Dials of one peer. Hundreds of calls may wait for one that is dead, and each would dial it anew at once.
#[derive(Default)]
struct Dials(Mutex<Option<Instant>>);

impl Dials {
    /// Returns whether the peer may be dialled now; if so, it may not again for a moment.
    fn may(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= DIAL_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

impl PeerConnector for PeerChannels {
    fn peer(&self, node_id: u64, address: &str, _purpose: Purpose) -> Result<Arc<dyn Peer>, ConnectError> {
        // Consensus keeps what it is given, one channel per purpose: nothing is shared here.
        Ok(grpc_peer(self.open(NodeId(node_id), address, None)?))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;
    use crate::identity::{Authority, Names};

    fn channels() -> PeerChannels {
        let (authority, _) = Authority::create("test").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = authority.issue_replica(NodeId(1), &Names::default(), &key).unwrap();
        let identity =
            TlsIdentity::new(&issued.chain_pem, &key.serialize_pem(), authority.certificate_pem()).unwrap();
        PeerChannels::new(Arc::new(identity))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dead_peer_is_dialled_a_few_times_however_many_wait_for_it() {
        use proto::peer::v1::WatchingRequest;
        use proto::peer::v1::fleet_client::FleetClient;
        // It takes connections and breaks them at once: so they can be counted.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = owned_tasks::OwnedTasks::new();
        let (dialled, counted) = (Arc::new(std::sync::atomic::AtomicU32::new(0)), Instant::now());
        let count = dialled.clone();
        tasks.spawn("dying peer", owned_tasks::OnExit::Ignore, async move |_| {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                drop(stream);
            }
        });
        let channels = channels();
        let calls = (0..500).map(|_| {
            let mut client = FleetClient::new(channels.shared(NodeId(2), &address).unwrap());
            async move { assert!(client.watching(WatchingRequest {}).await.is_err()) }
        });
        futures::future::join_all(calls).await;
        let allowed = 2 + counted.elapsed().as_millis() / DIAL_EVERY.as_millis();
        let dialled = dialled.load(std::sync::atomic::Ordering::Relaxed);
        assert!(dialled >= 1 && u128::from(dialled) <= allowed, "{dialled} of {allowed}");
    }

    #[tokio::test]
    async fn a_peer_that_moves_leaves_no_channel_behind() {
        let channels = channels();
        for port in 1..50 {
            channels.shared(NodeId(2), &format!("127.0.0.1:{port}")).unwrap();
            channels.shared(NodeId(3), "127.0.0.1:1").unwrap();
        }
        assert_eq!(channels.shared.lock().unwrap().len(), 2);
    }
}
