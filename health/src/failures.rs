//! Which failures count now, and which are old enough to be acted upon. Pure: times come in as durations on one monotonic
//! clock of one process, so that no wall clock, however wrong, hides a meltdown or feigns one.
//!
//! Every replica keeps these from what the fleet agreed on, leader or not: a new leader knows what came before it.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{DeploymentName, InstanceId};

use crate::world::{Failed, Unhealthy};

/// How long after the first death the others of the same accident may still come to be known: agents beat at different
/// moments of an interval, are judged every second, and what is found takes a moment to be agreed on.
pub const SETTLED_AFTER: Duration = Duration::from_secs(7);

/// How long an instance may be without a VM before that is a failure. A task that makes VMs has ended by then, or an
/// operator has begun to put right what it left.
pub const MISSING_AFTER: Duration = Duration::from_secs(60);

/// What is remembered of an instance's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    /// When it began.
    began: Duration,
    /// When it was last seen.
    seen: Duration,
    is_over: bool,
    /// Whether it is one by now: a VM may be missing for a while.
    counts: bool,
}

/// The failures of some while.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<DeploymentName, BTreeMap<InstanceId, Failure>>);

/// What is the matter with a deployment now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matter {
    /// How much has failed.
    pub failed: Failed,
    /// Those that need a new VM.
    pub ill: Vec<InstanceId>,
    /// Whether what has failed together is known by now.
    pub is_settled: bool,
}

impl Failures {
    /// Takes in all failures of now, and forgets those that have been over for longer than `window`.
    pub fn note(&mut self, found: &[Unhealthy], window: Duration, now: Duration) {
        for failure in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            failure.is_over = true;
        }
        for found in found {
            let failures = self.0.entry(found.deployment.clone()).or_default();
            for instance in &found.dead {
                let new = Failure { began: now, seen: now, is_over: false, counts: true };
                let known = failures.entry(instance.clone()).or_insert(new);
                // Not seen at the last looks, and here again: that is another death.
                let is_another = now.saturating_sub(known.seen) > SETTLED_AFTER;
                *known = Failure { began: if is_another { now } else { known.began }, ..new };
            }
            // A task takes VMs away to put others in their place.
            for instance in found.missing.iter().filter(|_| !found.in_work) {
                let new = Failure { began: now, seen: now, is_over: false, counts: false };
                let known = failures.entry(instance.clone()).or_insert(new);
                // It counted before if it was dead and has been deleted by an attempt to replace it.
                let counts = known.counts || now.saturating_sub(known.began) >= MISSING_AFTER;
                *known = Failure { began: known.began, counts, ..new };
            }
        }
        for failures in self.0.values_mut() {
            failures.retain(|_, failure| {
                !failure.is_over || failure.counts && now.saturating_sub(failure.seen) < window
            });
        }
        self.0.retain(|_, failures| !failures.is_empty());
    }

    /// Returns what is the matter with a deployment that was just [noted](Self::note).
    pub fn of(&self, found: &Unhealthy, now: Duration) -> Matter {
        let failure = |id: &InstanceId| self.0.get(&found.deployment)?.get(id);
        let counts = |id: &&InstanceId| failure(id).is_some_and(|failure| failure.counts);
        let is_settled = |id: &InstanceId| {
            failure(id).is_some_and(|failure| now.saturating_sub(failure.began) >= SETTLED_AFTER)
        };
        let ill: Vec<InstanceId> =
            found.dead.iter().chain(found.missing.iter().filter(counts)).cloned().collect();
        Matter {
            failed: Failed {
                // Also those that are healed by now.
                unhealthy: found.wanted.iter().filter(counts).count(),
                total: found.wanted.len(),
            },
            is_settled: ill.iter().any(is_settled),
            ill,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<InstanceId> {
        numbers.into_iter().map(|n| InstanceId::new(n.to_string())).collect()
    }

    fn web(dead: &[usize], missing: &[usize]) -> Unhealthy {
        Unhealthy {
            deployment: "web".into(),
            in_work: false,
            wanted: ids(0..10),
            dead: ids(dead.iter().copied()),
            missing: ids(missing.iter().copied()),
            meltdown: None,
        }
    }

    /// Looks every second up to a moment, and says how many count, how many are ill and whether that is settled.
    fn look(
        failures: &mut Failures,
        found: &Unhealthy,
        seconds: std::ops::RangeInclusive<u64>,
    ) -> (usize, usize, bool) {
        let end = at(*seconds.end());
        for second in seconds {
            failures.note(std::slice::from_ref(found), WINDOW, at(second));
        }
        let matter = failures.of(found, end);
        (matter.failed.unhealthy, matter.ill.len(), matter.is_settled)
    }

    #[test]
    fn deaths_count_at_once_and_are_acted_upon_when_the_others_are_known() {
        let mut failures = Failures::default();
        assert_eq!(look(&mut failures, &web(&[1], &[]), 0..=4), (1, 1, false));
        assert_eq!(look(&mut failures, &web(&[1, 2, 3], &[]), 5..=6), (3, 3, false));
        assert_eq!(look(&mut failures, &web(&[1, 2, 3], &[]), 7..=7), (3, 3, true));
    }

    #[test]
    fn the_healed_count_for_a_while_and_the_ill_as_long_as_they_are() {
        let mut failures = Failures::default();
        look(&mut failures, &web(&[1, 2], &[]), 0..=10);
        assert_eq!(look(&mut failures, &web(&[3], &[]), 11..=500), (3, 1, true), "two are healed");
        assert_eq!(look(&mut failures, &web(&[3], &[]), 501..=611), (1, 1, true), "and have been for long");
        assert_eq!(look(&mut failures, &web(&[3], &[]), 612..=5000), (1, 1, true), "one is ill for ever");
        assert_eq!(look(&mut failures, &web(&[1], &[]), 5001..=5002), (2, 1, false), "another failure of 1");
    }

    #[test]
    fn one_that_falls_ill_again_is_a_new_case() {
        let mut failures = Failures::default();
        look(&mut failures, &web(&[1], &[]), 0..=10);
        look(&mut failures, &web(&[], &[]), 11..=50);
        assert_eq!(look(&mut failures, &web(&[1], &[]), 51..=52), (1, 1, false));
    }

    #[test]
    fn a_missing_vm_is_a_failure_after_a_while() {
        let mut failures = Failures::default();
        assert_eq!(look(&mut failures, &web(&[], &[1]), 0..=59), (0, 0, false));
        assert_eq!(look(&mut failures, &web(&[], &[1]), 60..=60), (1, 1, true));
    }

    #[test]
    fn a_vm_that_was_deleted_because_it_was_dead_is_missed_at_once() {
        let mut failures = Failures::default();
        look(&mut failures, &web(&[1], &[]), 0..=20);
        look(&mut failures, &Unhealthy { in_work: true, ..web(&[], &[1]) }, 21..=40);
        assert_eq!(look(&mut failures, &web(&[], &[1]), 41..=41), (1, 1, true));
    }

    #[test]
    fn vms_that_a_task_replaces_are_no_failures() {
        let mut failures = Failures::default();
        let working = Unhealthy { in_work: true, ..web(&[], &[1, 2, 3, 4, 5]) };
        look(&mut failures, &working, 0..=600);
        assert_eq!(look(&mut failures, &web(&[], &[]), 601..=601), (0, 0, false));
        assert_eq!(look(&mut failures, &web(&[], &[1]), 602..=630), (0, 0, false));
        assert_eq!(look(&mut failures, &web(&[], &[]), 631..=632), (0, 0, false), "it was none yet");
    }

    #[test]
    fn only_instances_that_are_wanted_count() {
        let mut failures = Failures::default();
        look(&mut failures, &web(&[1, 2], &[]), 0..=10);
        let fewer = Unhealthy { wanted: ids(2..10), ..web(&[2], &[]) };
        assert_eq!(look(&mut failures, &fewer, 11..=12), (1, 1, true));
    }
}
