//! How fast a cloud is asked: so many calls side by side, so many in a minute, and none for a while once it has said that it
//! is asked too often.
//!
//! Only the leader calls clouds, so what holds for one replica holds for the fleet; a new leader begins with a full bucket.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cpi_api::{CpiError, CpiErrorKind};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use retry::Policy;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Calls that one cloud gets side by side, if nobody says otherwise.
const CALLS_AT_ONCE: usize = 32;

/// Waits after a cloud has said that it is asked too often.
const AGAIN: Policy = Policy {
    initial: Duration::from_secs(2),
    max: Duration::from_secs(60),
    total: Some(Duration::from_secs(15 * 60)),
};

/// In what words clouds say that they are asked too often, in lower case: those of AWS, Google, Azure, OpenStack, Alibaba.
const TOO_OFTEN: [&str; 9] = [
    "requestlimitexceeded",
    "request limit exceeded",
    "throttl",
    "rate exceeded",
    "ratelimitexceeded",
    "rate limit exceeded",
    "toomanyrequests",
    "too many requests",
    "overlimit",
];

/// How fast a cloud may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Calls side by side; 0 counts as 1.
    pub calls_at_once: usize,
    /// Calls in a minute: as many may come together, then they wait for their turn. Not limited if none.
    pub calls_per_minute: Option<NonZeroU32>,
    /// Waits after the cloud has said that it is asked too often.
    pub again: Policy,
}

impl Default for Pace {
    fn default() -> Self {
        Self { calls_at_once: CALLS_AT_ONCE, calls_per_minute: None, again: AGAIN }
    }
}

impl Pace {
    /// Returns whether the limits are the same.
    pub fn is_as(&self, other: &Self) -> bool {
        (self.calls_at_once, self.calls_per_minute) == (other.calls_at_once, other.calls_per_minute)
    }
}

/// Where calls wait for their turn.
pub(crate) struct Gate {
    slots: Semaphore,
    bucket: Option<DefaultDirectRateLimiter>,
    /// Nobody asks before that.
    quiet_until: Mutex<Option<Instant>>,
}

impl Gate {
    pub(crate) fn new(pace: &Pace) -> Self {
        let bucket = pace.calls_per_minute.map(|calls| RateLimiter::direct(Quota::per_minute(calls)));
        Self { slots: Semaphore::new(pace.calls_at_once.max(1)), bucket, quiet_until: Mutex::default() }
    }

    /// Waits for a turn, which lasts until what is returned is dropped.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        let slot = self.slots.acquire().await.ok();
        while let Some(until) = self.quiet() {
            tokio::time::sleep_until(until).await;
        }
        if let Some(bucket) = &self.bucket {
            bucket.until_ready().await;
        }
        slot
    }

    /// Lets nobody in for so long.
    pub(crate) fn hush(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = Some(quiet.map_or(until, |known| known.max(until)));
    }

    fn quiet(&self) -> Option<Instant> {
        let quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.filter(|until| *until > Instant::now())
    }
}

/// Returns whether a cloud says that it is asked too often, and has done nothing therefore.
pub(crate) fn is_too_often(error: &CpiError) -> bool {
    if !matches!(error.kind, CpiErrorKind::Other | CpiErrorKind::VmCreationFailed) {
        return false;
    }
    let said = format!("{} {}", error.type_name, error.message).to_lowercase();
    TOO_OFTEN.iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_words_for_too_often_are_known() {
        let said = |kind, message: &str| is_too_often(&CpiError::new(kind, "create_vm", message));
        for message in [
            "Request limit exceeded. Account has been throttled",
            "#<Aws::EC2::Errors::RequestLimitExceeded: …>",
            "googleapi: Error 403: Rate Limit Exceeded, rateLimitExceeded",
            "http_code: 429, Azure error code: TooManyRequests",
            "Expected([200]) <=> Actual(413 Request Entity Too Large) overLimit",
        ] {
            assert!(said(CpiErrorKind::Other, message), "{message}");
            assert!(said(CpiErrorKind::VmCreationFailed, message), "{message}");
            assert!(!said(CpiErrorKind::TimedOut, message), "what became of that is not known");
        }
        for message in ["Quota 'CPUS' exceeded. Limit: 24.0", "cannot generate limits", ""] {
            assert!(!said(CpiErrorKind::Other, message), "{message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_comes_in_while_it_is_quiet_nor_more_than_may() {
        let gate = Gate::new(&Pace { calls_at_once: 2, ..Pace::default() });
        let (_first, _second) = (gate.enter().await, gate.enter().await);
        let third = tokio::time::timeout(Duration::from_secs(1), gate.enter()).await;
        assert!(third.is_err(), "two are inside");
        drop(_first);
        let begun = Instant::now();
        gate.hush(Duration::from_secs(30));
        gate.hush(Duration::from_secs(1));
        let _third = gate.enter().await;
        assert!(begun.elapsed() >= Duration::from_secs(30), "the longer wait counts");
    }

    #[tokio::test]
    async fn what_is_more_than_may_come_in_a_minute_waits_for_its_turn() {
        let gate = Gate::new(&Pace { calls_per_minute: NonZeroU32::new(240), ..Pace::default() });
        let begun = std::time::Instant::now();
        // Those of a minute may come together; each further one waits for a quarter of a second.
        for _ in 0..243 {
            gate.enter().await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    }
}
