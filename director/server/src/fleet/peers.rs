//! Connections to the other replicas: mTLS, each checked to be the replica that was meant.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::NodeId;
use raft::{ConnectError, PeerConnector, Purpose};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls::{OutOfTime, TlsIdentity, expected_name};

/// How long a peer may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

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

    /// Returns the channel to a peer for fleet calls, relays and blobs. Lazy, shared.
    pub fn shared(&self, node: NodeId, address: &str) -> Result<Channel, ConnectError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = shared.get(&node)
            && known == address
        {
            return Ok(channel.clone());
        }
        // A peer that has moved leaves nothing behind.
        let channel = self.open(node, address)?;
        shared.insert(node, (address.to_owned(), channel.clone()));
        Ok(channel)
    }

    fn open(&self, node: NodeId, address: &str) -> Result<Channel, ConnectError> {
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
            let (identity, address) = (identity.clone(), address.clone());
            async move {
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

impl PeerConnector for PeerChannels {
    fn channel(&self, node_id: u64, address: &str, _purpose: Purpose) -> Result<Channel, ConnectError> {
        // Consensus keeps what it is given, one channel per purpose: nothing is shared here.
        self.open(NodeId(node_id), address)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;
    use crate::identity::{Authority, Names};

    #[tokio::test]
    async fn a_peer_that_moves_leaves_no_channel_behind() {
        let (authority, _) = Authority::create("test").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = authority.issue_replica(NodeId(1), &Names::default(), &key).unwrap();
        let identity =
            TlsIdentity::new(&issued.chain_pem, &key.serialize_pem(), authority.certificate_pem()).unwrap();
        let channels = PeerChannels::new(Arc::new(identity));
        for port in 1..50 {
            channels.shared(NodeId(2), &format!("127.0.0.1:{port}")).unwrap();
            channels.shared(NodeId(3), "127.0.0.1:1").unwrap();
        }
        assert_eq!(channels.shared.lock().unwrap().len(), 2);
    }
}
