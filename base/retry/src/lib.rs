//! Retry with exponential back-off and jitter: the one place that knows which crate does it.
//!
//! The `backoff` crate is unmaintained (see `deny.toml`); nothing outside this module names it, so that it can be
//! replaced here alone. Not here: what is worth retrying. The caller says so with [`Verdict`].

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;

/// Whether a failed attempt is worth another one.
#[derive(Debug)]
pub enum Verdict<E> {
    /// May go better next time.
    Again(E),
    /// Will not get better.
    Fatal(E),
}

/// How long to wait between attempts, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Wait before the second attempt; later ones grow by half, with ±50 % jitter.
    pub initial: Duration,
    /// Longest wait between two attempts.
    pub max: Duration,
    /// Give up once this long has passed since the first attempt; `None` never does.
    pub total: Option<Duration>,
}

impl Policy {
    /// Returns an endless sequence of jittered waits, for loops that pace themselves.
    pub fn waits(&self) -> Waits {
        Waits(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(self.initial)
                .with_max_interval(self.max)
                .with_max_elapsed_time(self.total)
                .build(),
        )
    }
}

/// Waits to use one after the other; see [`Policy::waits`].
pub struct Waits(backoff::ExponentialBackoff);

impl Waits {
    /// Starts again from the first wait, after something went well.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next_backoff()
    }
}

/// Calls `attempt` until it succeeds, fails for good, or the policy's time is over; returns the last error then.
pub async fn with_backoff<T, E, F>(policy: Policy, mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, Verdict<E>>>,
{
    let mut waits = policy.waits();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(Verdict::Fatal(error)) => return Err(error),
            Err(Verdict::Again(error)) => match waits.next() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Policy = Policy {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(2),
        total: Some(Duration::from_millis(200)),
    };

    #[tokio::test]
    async fn tries_again_until_it_works() {
        let mut left = 3;
        let result: Result<&str, &str> = with_backoff(QUICK, || {
            left -= 1;
            let answer = if left == 0 { Ok("there") } else { Err(Verdict::Again("not yet")) };
            async move { answer }
        })
        .await;
        assert_eq!(result, Ok("there"));
    }

    #[tokio::test]
    async fn a_fatal_error_is_not_retried() {
        let mut calls = 0;
        let result: Result<(), &str> = with_backoff(QUICK, || {
            calls += 1;
            async { Err(Verdict::Fatal("no")) }
        })
        .await;
        assert_eq!((result, calls), (Err("no"), 1));
    }

    #[tokio::test]
    async fn gives_up_with_the_last_error_when_time_is_over() {
        let result: Result<(), &str> = with_backoff(QUICK, || async { Err(Verdict::Again("busy")) }).await;
        assert_eq!(result, Err("busy"));
    }

    #[test]
    fn a_thousand_who_fail_together_come_back_at_moments_that_fill_the_interval_evenly() {
        const PARTS: usize = 8;
        let policy = Policy { initial: Duration::from_secs(8), max: Duration::from_secs(60), total: None };
        let mut callers = [0; PARTS];
        for _ in 0..1000 {
            let wait = policy.waits().next().unwrap().as_secs_f64();
            assert!((4.0..=12.0).contains(&wait), "{wait} s is not 8 s, give or take half of it");
            callers[((wait - 4.0) as usize).min(PARTS - 1)] += 1;
        }
        // 125 in each, give or take six standard deviations: this chance has no seed.
        assert!(callers.iter().all(|count| (62..=188).contains(count)), "{callers:?}");
    }

    #[test]
    fn waits_grow_to_the_longest_and_start_again_when_told() {
        let policy = Policy { initial: Duration::from_secs(1), max: Duration::from_secs(10), total: None };
        let mut waits = policy.waits();
        let (mut longest, mut middle) = (Duration::ZERO, 1.0_f64);
        for _ in 0..50 {
            let wait = waits.next().unwrap();
            assert!((middle * 0.499..=middle * 1.501).contains(&wait.as_secs_f64()), "{wait:?} of {middle}");
            longest = longest.max(wait);
            middle = (middle * 1.5).min(10.0);
        }
        assert!(longest > Duration::from_secs(8), "{longest:?}");
        waits.reset();
        assert!(waits.next().unwrap() <= Duration::from_millis(1500));
    }
}
