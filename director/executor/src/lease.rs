//! The fence: nobody touches the world under an epoch that may be over.
//!
//! The state refuses records of an older epoch, and agents refuse its requests; clouds can't compare. So every deed asks
//! first whether this replica still provably leads, and a new leader waits until the old one's proof has run out.

use known_bugs::Bug;
use model::Epoch;
use tokio::time::Instant;

/// Leadership that has been proven until a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The epoch it is about.
    pub epoch: Epoch,
    /// Nobody else leads before this moment.
    pub until: Instant,
}

/// Where the proof comes from: the consensus crate's count of answers from a quorum.
pub trait Lease: Send + Sync {
    /// Returns the lease, if this replica leads.
    fn held(&self) -> Option<Held>;
}

/// This replica may no longer act under `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} is over: another director may be leading")]
pub struct Lost {
    /// The epoch that is over.
    pub epoch: Epoch,
}

/// One leader's right to act.
#[derive(Clone)]
pub struct Fence {
    lease: std::sync::Arc<dyn Lease>,
    epoch: Epoch,
    /// When it was made: by somebody who had the lease then.
    looked: Instant,
}

/// How long [`Bug::StaleLease`] makes an old look count.
const STALE: std::time::Duration = std::time::Duration::from_secs(20);

impl Fence {
    /// Makes the fence of `epoch`.
    pub fn new(lease: std::sync::Arc<dyn Lease>, epoch: Epoch) -> Self {
        Self { lease, epoch, looked: Instant::now() }
    }

    /// Returns the epoch that records and requests carry.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Fails unless this replica provably leads under this fence's epoch right now. Call it before every deed.
    pub fn check(&self) -> Result<(), Lost> {
        if known_bugs::is(Bug::StaleLease) && self.looked.elapsed() < STALE {
            return Ok(());
        }
        match self.lease.held() {
            Some(held) if held.epoch == self.epoch && Instant::now() < held.until => Ok(()),
            _ => Err(Lost { epoch: self.epoch }),
        }
    }

    /// Waits until the right is lost: for deeds that must be broken off then.
    pub async fn lost(&self) -> Lost {
        if known_bugs::is(Bug::StaleLease) {
            tokio::time::sleep_until(self.looked + STALE).await;
        }
        loop {
            let Some(held) = self.lease.held().filter(|held| held.epoch == self.epoch) else {
                return Lost { epoch: self.epoch };
            };
            let now = Instant::now();
            if now >= held.until {
                return Lost { epoch: self.epoch };
            }
            // The lease is renewed with every heartbeat; looking again when it would end costs nothing in between.
            tokio::time::sleep_until(held.until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    struct Fixed(Mutex<Option<Held>>);

    impl Lease for Fixed {
        fn held(&self) -> Option<Held> {
            *self.0.lock().unwrap()
        }
    }

    fn fence(epoch: u64, held: Option<(u64, Duration)>) -> Fence {
        let held = held.map(|(epoch, left)| Held { epoch: Epoch(epoch), until: Instant::now() + left });
        Fence::new(Arc::new(Fixed(Mutex::new(held))), Epoch(epoch))
    }

    #[test]
    fn only_the_lease_of_the_same_epoch_counts() {
        let minute = Duration::from_secs(60);
        assert_eq!(fence(3, Some((3, minute))).check(), Ok(()));
        assert_eq!(fence(3, Some((4, minute))).check(), Err(Lost { epoch: Epoch(3) }));
        assert_eq!(fence(3, None).check(), Err(Lost { epoch: Epoch(3) }));
    }

    #[test]
    fn a_lease_that_has_run_out_does_not_count() {
        assert!(fence(3, Some((3, Duration::ZERO))).check().is_err());
    }

    #[tokio::test]
    async fn the_end_of_a_lease_is_noticed() {
        assert_eq!(fence(3, Some((3, Duration::from_millis(20)))).lost().await, Lost { epoch: Epoch(3) });
    }
}
