//! A few dead VMs are replaced; when much of a deployment dies at once, something else is wrong, and replacing VMs would
//! make it worse. Thresholds are BOSH's.

use std::time::Duration;

use crate::world::Failed;

/// When failures count as a meltdown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// At least so many unhealthy instances …
    pub minimum_down: usize,
    /// … and at least this share of all.
    pub share: f64,
    /// How long a failure counts after it is over. One that lasts counts as long as it lasts.
    pub window: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { minimum_down: 5, share: 0.2, window: Duration::from_secs(600) }
    }
}

/// What to do about a deployment's failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All is well.
    Normal,
    /// Replace what has failed.
    Resurrect,
    /// Leave everything alone and tell somebody.
    Meltdown,
}

/// Decides for a deployment of which so much has failed within the window.
pub fn decide(thresholds: Thresholds, Failed { unhealthy, total }: Failed) -> Decision {
    if unhealthy == 0 {
        return Decision::Normal;
    }
    let share = unhealthy as f64 / total.max(1) as f64;
    match unhealthy >= thresholds.minimum_down && share >= thresholds.share {
        true => Decision::Meltdown,
        false => Decision::Resurrect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thresholds_are_bosh_s() {
        let check = |total, unhealthy, expected| {
            assert_eq!(decide(Thresholds::default(), Failed { unhealthy, total }), expected)
        };
        check(10, 0, Decision::Normal);
        check(3, 3, Decision::Resurrect);
        check(4, 4, Decision::Resurrect);
        check(25, 5, Decision::Meltdown);
        check(26, 5, Decision::Resurrect);
        check(100, 20, Decision::Meltdown);
    }
}
