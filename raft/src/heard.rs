//! Whether this replica is in touch with a leader. Who *was* elected last stays known for as long as nobody else is, with
//! Pre-Vote also to a replica that is cut off; this is about now.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;

use crate::Node;

/// The leader that was heard last, and when.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Option<(u64, Instant)>>);

impl Heard {
    /// Notes a heartbeat that was accepted.
    pub(crate) fn note(&self, leader: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((leader, Instant::now()));
    }

    /// Returns whether `leader` was heard within `limit`.
    fn within(&self, leader: u64, limit: Duration) -> bool {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|(known, at)| known == leader && at.elapsed() < limit)
    }
}

impl Node {
    /// Returns the leader, provided that this replica is in touch with it: it is itself the leader and a quorum hears
    /// it, or it has heard the leader lately. Only then can it answer a request that needs one.
    pub fn leader_in_touch(&self) -> Option<u64> {
        let leader = self.metrics().borrow_watched().current_leader?;
        let in_touch = match leader == self.inner.node_id {
            true => self.leadership().is_some_and(|leads| leads.holds()),
            // After so long it stands for election itself; twice, since a busy machine is no dead leader.
            false => self.inner.heard.within(leader, self.inner.timing.election_max * 2),
        };
        in_touch.then_some(leader)
    }
}
