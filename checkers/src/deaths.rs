//! Nobody is called dead who was just being heard: a death that is declared at a moment needs a silence before it.
//!
//! A heartbeat counts once it was acknowledged: then somebody has it, and the fleet must not forget that it does, not
//! at a change of leader and not when another replica takes the agent over. Times are of one clock, or of several that
//! agree within [`Rules::skew_us`].

use std::collections::BTreeMap;
use std::fmt;

use crate::Findings;

/// What was seen of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When its heartbeats were acknowledged, as the agent knows.
    pub acknowledged_us: Vec<u64>,
    /// When it was declared dead.
    pub declared_dead_us: Vec<u64>,
}

/// What the fleet promises.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long an agent must have been silent before it is dead.
    pub grace_us: u64,
    /// How much the clocks of those who noted the times may differ.
    pub skew_us: u64,
}

/// An agent that was called dead although it had just been heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who.
    pub agent: String,
    /// When it was called dead.
    pub dead_us: u64,
    /// The last heartbeat that had been acknowledged by then.
    pub heard_us: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, dead_us, heard_us } = self;
        let silent_ms = (dead_us - heard_us) / 1000;
        write!(f, "agent `{agent}` was declared dead at {dead_us} µs, after {silent_ms} ms of silence: ")?;
        write!(f, "its heartbeat was acknowledged at {heard_us} µs")
    }
}

/// Judges the declared deaths of all agents.
pub fn check(agents: &BTreeMap<String, Record>, rules: Rules) -> Findings<Violation> {
    let mut findings = Findings::default();
    let (mut deaths, mut heartbeats) = (0, 0);
    for (agent, record) in agents {
        deaths += record.declared_dead_us.len();
        heartbeats += record.acknowledged_us.len();
        for dead_us in &record.declared_dead_us {
            let heard = record.acknowledged_us.iter().filter(|heard_us| *heard_us <= dead_us).max();
            let silence_needed_us = rules.grace_us.saturating_sub(rules.skew_us);
            if let Some(heard_us) = heard.filter(|heard_us| *dead_us - **heard_us < silence_needed_us) {
                let (dead_us, heard_us) = (*dead_us, *heard_us);
                findings.violations.push(Violation { agent: agent.clone(), dead_us, heard_us });
            }
        }
    }
    findings.looked_at =
        vec![("agents", agents.len()), ("acknowledged heartbeats", heartbeats), ("deaths", deaths)];
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { grace_us: 1000, skew_us: 0 };

    fn found(acknowledged_us: &[u64], declared_dead_us: &[u64], rules: Rules) -> Findings<Violation> {
        let record =
            Record { acknowledged_us: acknowledged_us.to_vec(), declared_dead_us: declared_dead_us.to_vec() };
        check(&[("a".to_owned(), record)].into(), rules)
    }

    #[test]
    fn a_death_after_the_grace_is_fair_and_so_is_one_of_an_agent_that_was_never_heard() {
        assert!(found(&[100, 200], &[1200], RULES).holds());
        assert!(found(&[], &[5], RULES).holds());
        // It is heard again afterwards: it was silent all the same.
        assert!(found(&[100, 1101], &[1100], RULES).holds());
    }

    #[test]
    fn a_death_within_the_grace_is_named_with_the_last_heartbeat_before_it() {
        let violations = found(&[300, 100, 2000], &[1299], RULES).violations;
        assert_eq!(violations, [Violation { agent: "a".into(), dead_us: 1299, heard_us: 300 }]);
        assert_eq!(
            violations[0].to_string(),
            "agent `a` was declared dead at 1299 µs, after 0 ms of silence: its heartbeat was acknowledged at 300 µs"
        );
    }

    #[test]
    fn the_second_death_is_judged_like_the_first() {
        let violations = found(&[0, 5000, 5100], &[1000, 5200], RULES).violations;
        assert_eq!(violations, [Violation { agent: "a".into(), dead_us: 5200, heard_us: 5100 }]);
    }

    #[test]
    fn clocks_may_differ_as_much_as_is_said_and_no_more() {
        let rules = Rules { skew_us: 100, ..RULES };
        assert!(found(&[100], &[1000], rules).holds());
        assert!(!found(&[100], &[999], rules).holds());
    }

    #[test]
    fn says_how_much_it_looked_at() {
        let looked_at = found(&[1, 2, 3], &[5000], RULES).looked_at;
        assert_eq!(looked_at, [("agents", 1), ("acknowledged heartbeats", 3), ("deaths", 1)]);
    }
}
