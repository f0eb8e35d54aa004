//! When each peer last acknowledged this leader: what a lease is counted from.
//!
//! The engine keeps such times, too, but it takes an answer for that to the newest request that it covers. After a pause, the
//! answer to an old request then counts as one to a request that was sent a moment ago, and a leader that others have
//! replaced long since has a lease. Here an answer is the answer to its own request: on a stream they come in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// By peer: the latest term in which it acknowledged anything, and when the latest such request was sent.
#[derive(Default)]
pub(crate) struct Acks(Mutex<BTreeMap<u64, (u64, Instant)>>);

impl Acks {
    /// Notes that `peer` has acknowledged what was sent to it at `sent` in `term`.
    pub(crate) fn note(&self, peer: u64, term: u64, sent: Instant) {
        let mut acks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = acks.entry(peer).or_insert((term, sent));
        *known = (*known).max((term, sent));
    }

    /// Returns the latest moment after which a majority of each of `configs` still followed `me` in `term`.
    pub(crate) fn by_quorum(&self, me: u64, term: u64, configs: &[BTreeSet<u64>]) -> Option<Instant> {
        let acks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let followed = |id: &u64| match acks.get(id) {
            _ if *id == me => Some(now),
            Some((of, sent)) if *of == term => Some(*sent),
            _ => None,
        };
        let by_majority = |voters: &BTreeSet<u64>| {
            let mut times: Vec<Option<Instant>> = voters.iter().map(followed).collect();
            // Those that never did come first.
            times.sort();
            times.get((voters.len().checked_sub(1)?) / 2).copied().flatten()
        };
        configs.iter().map(by_majority).min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_counted_from_what_a_majority_of_every_config_has_acknowledged() {
        let (acks, begun) = (Acks::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        tokio::time::advance(Duration::from_millis(100)).await;
        let three = [BTreeSet::from([1, 2, 3])];
        assert_eq!(acks.by_quorum(1, 7, &three), None, "nobody follows yet");
        acks.note(2, 7, at(10));
        assert_eq!(acks.by_quorum(1, 7, &three), Some(at(10)));
        acks.note(3, 7, at(30));
        acks.note(3, 7, at(20));
        assert_eq!(acks.by_quorum(1, 7, &three), Some(at(30)), "an older answer takes nothing back");
        assert_eq!(acks.by_quorum(1, 8, &three), None, "of another term");
        let joint = [BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4, 5, 6])];
        assert_eq!(acks.by_quorum(1, 7, &joint), None);
        acks.note(4, 7, at(5));
        assert_eq!(acks.by_quorum(1, 7, &joint), Some(at(5)));
        assert_eq!(acks.by_quorum(1, 7, &[BTreeSet::from([1])]), Some(at(100)), "alone, it follows itself");
        assert_eq!(acks.by_quorum(1, 7, &[BTreeSet::from([1, 2])]), Some(at(10)), "two of two");
    }
}
