//! Is this agent alive? Pure: times come in as durations on one monotonic clock.

use std::time::Duration;

use crate::world::{Beats, Health};

/// When silence becomes suspicion, and suspicion death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Silence after which an agent is suspected.
    pub suspect_after: Duration,
    /// Extra time for an agent that has never been heard: it may still be booting.
    pub boot_grace: Duration,
    /// How long this replica must have listened at least before silence counts: enough for a heartbeat, and for an agent
    /// whose stream has moved.
    pub listened_min: Duration,
    /// How long the fleet must have suspected an agent before that counts as silence to whoever watches it now, for however
    /// short a time. Whoever heard it meanwhile would have had it known by then.
    pub suspicion_counts_after: Duration,
    /// How often an agent that is called dead is asked whether it is back. It may be served where its watcher does not
    /// hear it.
    pub ask_dead_every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        // Heartbeats come every 4 s: one may be lost and the next late. With the second look a death is known in 15 s.
        Self {
            suspect_after: Duration::from_secs(9),
            boot_grace: Duration::from_secs(60),
            listened_min: Duration::from_secs(5),
            suspicion_counts_after: Duration::from_secs(8),
            ask_dead_every: Duration::from_secs(10),
        }
    }
}

impl Policy {
    /// Returns the policy for agents that say so often that they live.
    pub fn of(self, beats: Beats) -> Self {
        match beats {
            Beats::Often => self,
            // Heartbeats come every 30 s: one may be lost and the next late.
            Beats::Seldom => Self {
                suspect_after: Duration::from_secs(75),
                listened_min: Duration::from_secs(35),
                suspicion_counts_after: Duration::from_secs(40),
                ..self
            },
        }
    }
}

/// What is known of an agent's signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Since when this replica has known that the agent exists, whoever watched it.
    pub known_since: Duration,
    /// Since when this replica has been listening for it without a break.
    pub listening_since: Duration,
    /// When it was last heard here, or last answered.
    pub heard: Option<Duration>,
    /// Since when the fleet has suspected it, if it does.
    pub suspected_since: Option<Duration>,
    /// When it was last asked in vain.
    pub asked: Option<Duration>,
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
    /// Ask it by another way than its heartbeats. If that fails too, it is dead.
    Ask,
}

/// Judges one agent at `now`.
pub fn assess(policy: Policy, signs: Signs, now: Duration) -> Verdict {
    let is_heard = signs.heard.is_some_and(|heard| now.saturating_sub(heard) < policy.suspect_after);
    match (is_heard, signs.agreed) {
        (true, Health::Alive) => Verdict::Keep,
        (true, _) => Verdict::Alive,
        (false, _) if now >= due(policy, signs) => Verdict::Ask,
        (false, _) => Verdict::Keep,
    }
}

/// Returns when a silent agent is to be asked.
fn due(policy: Policy, signs: Signs) -> Duration {
    match signs.agreed {
        // It was silent for long enough already, but perhaps not to us: who watched it before may just have heard it. An
        // old suspicion needs no more listening: watchers that change again and again must hide no death.
        Health::Suspect => {
            let listened = signs.listening_since + policy.listened_min;
            signs
                .suspected_since
                .map_or(listened, |since| listened.min(since + policy.suspicion_counts_after))
        }
        Health::Dead => signs.asked.unwrap_or(signs.listening_since) + policy.ask_dead_every,
        Health::New | Health::Alive => {
            let silent = match (signs.heard, signs.agreed) {
                (Some(heard), _) => heard + policy.suspect_after,
                (None, Health::New) => signs.known_since + policy.suspect_after + policy.boot_grace,
                (None, _) => signs.known_since + policy.suspect_after,
            };
            // Streams may have moved with the last change: who was silent before it may just have been elsewhere.
            silent.max(signs.listening_since + policy.listened_min)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    struct Case {
        known: u64,
        listening: u64,
        heard: Option<u64>,
        agreed: Health,
    }

    /// Judges at 100 s.
    #[track_caller]
    fn check(case: &str, Case { known, listening, heard, agreed }: Case, expected: Verdict) {
        let signs = Signs {
            known_since: at(known),
            listening_since: at(listening),
            heard: heard.map(at),
            suspected_since: None,
            asked: None,
            agreed,
        };
        assert_eq!(assess(Policy::default(), signs, at(100)), expected, "{case}");
    }

    #[test]
    fn silence_of_the_living() {
        let alive = |listening, heard| Case { known: 0, listening, heard, agreed: Health::Alive };
        check("beats regularly", alive(0, Some(98)), Verdict::Keep);
        check("silent just short of the limit", alive(0, Some(92)), Verdict::Keep);
        check("silent for too long", alive(0, Some(91)), Verdict::Ask);
        check("a new watcher has heard nothing yet", alive(96, None), Verdict::Keep);
        check("a new watcher has listened for a heartbeat", alive(95, None), Verdict::Ask);
        check("a beat from before a break, not long ago", alive(95, Some(92)), Verdict::Keep);
        check("silent before a break and after it", alive(95, Some(80)), Verdict::Ask);
        let restarted = Case { known: 92, listening: 92, heard: None, agreed: Health::Alive };
        check("a replica that has just started", restarted, Verdict::Keep);
    }

    #[test]
    fn those_that_boot_and_those_that_come_back() {
        let of = |known, listening, heard, agreed| Case { known, listening, heard, agreed };
        check("first beat of a new agent", of(90, 90, Some(99), Health::New), Verdict::Alive);
        check("booting", of(40, 40, None, Health::New), Verdict::Keep);
        check("died right after it had booted", of(40, 40, Some(91), Health::New), Verdict::Ask);
        check("never booted", of(31, 31, None, Health::New), Verdict::Ask);
        check("never booted, and the watchers change", of(31, 95, None, Health::New), Verdict::Ask);
        check("back from the dead", of(0, 0, Some(99), Health::Dead), Verdict::Alive);
        check("suspected by mistake", of(0, 0, Some(99), Health::Suspect), Verdict::Alive);
        check("suspected, and listened for", of(0, 95, None, Health::Suspect), Verdict::Ask);
        check("suspected by an earlier watcher", of(0, 96, None, Health::Suspect), Verdict::Keep);
    }

    #[test]
    fn an_old_suspicion_needs_no_more_listening() {
        let judge = |suspected| {
            let signs = Signs {
                known_since: at(0),
                listening_since: at(99),
                heard: None,
                suspected_since: Some(at(suspected)),
                asked: None,
                agreed: Health::Suspect,
            };
            assess(Policy::default(), signs, at(100))
        };
        assert_eq!(judge(93), Verdict::Keep, "who watched it before may just have heard it");
        assert_eq!(judge(92), Verdict::Ask);
    }

    #[test]
    fn who_seldom_says_that_it_lives_is_waited_for_longer() {
        let judge = |heard, listening| {
            let signs = Signs {
                known_since: at(0),
                listening_since: at(listening),
                heard: Some(at(heard)),
                suspected_since: None,
                asked: None,
                agreed: Health::Alive,
            };
            assess(Policy::default().of(Beats::Seldom), signs, at(100))
        };
        assert_eq!(judge(26, 0), Verdict::Keep);
        assert_eq!(judge(25, 0), Verdict::Ask);
        assert_eq!(judge(10, 66), Verdict::Keep, "a new watcher has heard nothing yet");
        assert_eq!(judge(10, 65), Verdict::Ask);
    }

    #[test]
    fn the_dead_are_asked_now_and_then() {
        let signs = |listening, asked| Signs {
            known_since: at(0),
            listening_since: at(listening),
            heard: Some(at(10)),
            suspected_since: None,
            asked,
            agreed: Health::Dead,
        };
        let judge = |signs| assess(Policy::default(), signs, at(100));
        assert_eq!(judge(signs(0, Some(at(91)))), Verdict::Keep);
        assert_eq!(judge(signs(0, Some(at(90)))), Verdict::Ask);
        assert_eq!(judge(signs(91, None)), Verdict::Keep, "by a new watcher not at once: there may be many");
        assert_eq!(judge(signs(90, None)), Verdict::Ask);
    }
}
