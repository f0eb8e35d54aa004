//! Is this agent alive? Pure: times come in as durations on one monotonic clock.

use std::time::Duration;

use crate::world::Health;

/// When silence becomes suspicion, and suspicion death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Silence after which an agent is suspected.
    pub suspect_after: Duration,
    /// Extra time for an agent that has never been heard: it may still be booting.
    pub boot_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        // Heartbeats come every 5 s: one may be lost and the next late. With the second look a death is known in 15 s.
        Self { suspect_after: Duration::from_secs(9), boot_grace: Duration::from_secs(60) }
    }
}

/// What is known of an agent's signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Since when this replica has been listening for it without a break.
    pub listening_since: Duration,
    /// When it was last heard here.
    pub heard: Option<Duration>,
    /// What the fleet agreed on last.
    pub agreed: Health,
}

/// What to do about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// It is alive, and the fleet should know.
    Alive,
    /// It has been silent for too long: ask it by another way, and call it dead if that fails too.
    Confirm,
}

/// Judges one agent at `now`.
pub fn assess(policy: Policy, signs: Signs, now: Duration) -> Verdict {
    let heard_since = signs.heard.filter(|heard| *heard >= signs.listening_since);
    if let Some(heard) = heard_since
        && now.saturating_sub(heard) < policy.suspect_after
    {
        return if signs.agreed == Health::Alive { Verdict::Keep } else { Verdict::Alive };
    }
    // Only silence that was listened to counts; a new watcher knows nothing of what came before.
    let silent_since = heard_since.unwrap_or(signs.listening_since);
    let patience = match (signs.agreed, heard_since) {
        (Health::New, None) => policy.suspect_after + policy.boot_grace,
        // Who was heard has booted, also if it died before that was agreed on.
        _ => policy.suspect_after,
    };
    let silent = now.saturating_sub(silent_since) >= patience;
    match signs.agreed {
        // Already known; it is announced as alive when it is heard again.
        Health::Dead => Verdict::Keep,
        _ if silent => Verdict::Confirm,
        _ => Verdict::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn check(case: &str, listening: u64, heard: Option<u64>, agreed: Health, now: u64, expected: Verdict) {
        let signs = Signs { listening_since: at(listening), heard: heard.map(at), agreed };
        assert_eq!(assess(Policy::default(), signs, at(now)), expected, "{case}");
    }

    #[test]
    fn every_case() {
        check("beats regularly", 0, Some(98), Health::Alive, 100, Verdict::Keep);
        check("first beat of a new agent", 90, Some(99), Health::New, 100, Verdict::Alive);
        check("back from the dead", 0, Some(99), Health::Dead, 100, Verdict::Alive);
        check("silent just short of the limit", 0, Some(92), Health::Alive, 100, Verdict::Keep);
        check("silent for too long", 0, Some(91), Health::Alive, 100, Verdict::Confirm);
        check("still dead", 0, Some(10), Health::Dead, 100, Verdict::Keep);
        check("a new watcher has heard nothing yet", 95, None, Health::Alive, 100, Verdict::Keep);
        check("a beat from before a break does not count", 95, Some(80), Health::Alive, 100, Verdict::Keep);
        check("a new watcher has listened long enough", 91, None, Health::Alive, 100, Verdict::Confirm);
        check("booting", 40, None, Health::New, 100, Verdict::Keep);
        check("died right after it had booted", 40, Some(91), Health::New, 100, Verdict::Confirm);
        check("never booted", 31, None, Health::New, 100, Verdict::Confirm);
        check("suspected by an earlier watcher", 91, None, Health::Suspect, 100, Verdict::Confirm);
    }
}
