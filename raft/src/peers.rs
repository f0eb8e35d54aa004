//! Channels to peers, one per peer and purpose.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::peer::v1::forward_client::ForwardClient;
use proto::peer::v1::raft_client::RaftClient;
use tonic::transport::Channel;

use crate::connector::{ConnectError, PeerConnector, Purpose};

/// Above the largest message: a chunk of the log plus one entry.
pub(crate) const MESSAGE_MAX_BYTES: usize = 8 << 20;

/// Channels to peers. A channel is made once and reconnects by itself.
pub(crate) struct Peers {
    connector: Arc<dyn PeerConnector>,
    channels: Mutex<HashMap<(u64, Purpose), (String, Channel)>>,
}

impl Peers {
    pub(crate) fn new(connector: Arc<dyn PeerConnector>) -> Self {
        Self { connector, channels: Mutex::default() }
    }

    pub(crate) fn raft(
        &self,
        id: u64,
        address: &str,
        purpose: Purpose,
    ) -> Result<RaftClient<Channel>, ConnectError> {
        let client = RaftClient::new(self.channel(id, address, purpose)?);
        Ok(client.max_decoding_message_size(MESSAGE_MAX_BYTES).max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    pub(crate) fn forward(&self, id: u64, address: &str) -> Result<ForwardClient<Channel>, ConnectError> {
        let client = ForwardClient::new(self.channel(id, address, Purpose::Forward)?);
        Ok(client.max_decoding_message_size(MESSAGE_MAX_BYTES).max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    fn channel(&self, id: u64, address: &str, purpose: Purpose) -> Result<Channel, ConnectError> {
        let mut channels = self.channels.lock().expect("no code panics while it holds the channels");
        if let Some((known, channel)) = channels.get(&(id, purpose))
            && known == address
        {
            return Ok(channel.clone());
        }
        let channel = self.connector.channel(id, address, purpose)?;
        channels.insert((id, purpose), (address.to_owned(), channel.clone()));
        Ok(channel)
    }
}

/// Keeps many waiting callers from dialling one dead leader all at once.
///
/// While a peer is down, one caller at a time tries it, and not more often than every [`PROBE_EVERY`]; the others
/// are told to wait at once.
#[derive(Default)]
pub(crate) struct Gate {
    down: Mutex<HashMap<u64, Instant>>,
}

/// Time between two attempts to reach a leader that is down.
const PROBE_EVERY: Duration = Duration::from_millis(50);

impl Gate {
    /// Returns whether `id` may be called now.
    pub(crate) fn pass(&self, id: u64) -> bool {
        let mut down = self.down.lock().expect("no code panics while it holds this");
        match down.get_mut(&id) {
            None => true,
            Some(next) if *next <= Instant::now() => {
                // This caller tries; the others wait for its result, or for the next turn.
                *next = Instant::now() + PROBE_EVERY;
                true
            }
            Some(_) => false,
        }
    }

    /// Notes whether a call reached `id`.
    pub(crate) fn reached(&self, id: u64, reached: Reached) {
        let mut down = self.down.lock().expect("no code panics while it holds this");
        match reached {
            Reached::Yes => drop(down.remove(&id)),
            Reached::No => drop(down.insert(id, Instant::now() + PROBE_EVERY)),
        }
    }
}

/// Whether a call reached its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    No,
}
