//! Channels to peers, one per peer and purpose.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::connector::{ConnectError, Purpose};
use crate::peer::{Peer, PeerConnector};

/// The other replicas. Each is connected once per purpose, and reconnects by itself.
pub(crate) struct Peers {
    connector: Arc<dyn PeerConnector>,
    known: Mutex<HashMap<(u64, Purpose), Known>>,
}

/// A replica, and where it was when it was connected.
type Known = (String, Arc<dyn Peer>);

impl Peers {
    pub(crate) fn new(connector: Arc<dyn PeerConnector>) -> Self {
        Self { connector, known: Mutex::default() }
    }

    pub(crate) fn get(
        &self,
        id: u64,
        address: &str,
        purpose: Purpose,
    ) -> Result<Arc<dyn Peer>, ConnectError> {
        let mut known = self.known.lock().expect("no code panics while it holds the peers");
        if let Some((at, peer)) = known.get(&(id, purpose))
            && at == address
        {
            return Ok(peer.clone());
        }
        let peer = self.connector.peer(id, address, purpose)?;
        known.insert((id, purpose), (address.to_owned(), peer.clone()));
        Ok(peer)
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
