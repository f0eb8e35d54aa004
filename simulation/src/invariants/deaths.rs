//! Nobody is called dead whose heartbeats were being acknowledged by the replica that watches it, nor by a watcher who has
//! only just taken it over: a death needs a silence before it, in which its watcher has listened for long enough and has then
//! asked in vain.

use std::collections::BTreeMap;

use checkers::deaths::{self, Record, Rules};
use health::assess::Policy;
use health::shard_owner;
use health::watcher::ASK_WITHIN;
use model::{AgentId, NodeId};
use state::command::{Command, Entry, Outcome};
use state::records::AgentHealth;

use super::{Event, Invariant};
use crate::clock;
use crate::process::STEP_MAX_MS;

/// What is remembered of an agent.
#[derive(Default)]
struct Agent {
    /// Who watches it, as the fleet agreed on.
    watched_by: Option<NodeId>,
    /// When its last heartbeats were acknowledged there.
    acknowledged_us: Vec<u64>,
    /// Whether it was suspected when the newest shard map came: then it is asked at once.
    was_suspect: bool,
}

/// Heartbeats that are remembered: far more than come between a finding and its entry.
const REMEMBERED: usize = 32;

#[derive(Default)]
pub struct NoFalseDeath {
    agents: BTreeMap<AgentId, Agent>,
    /// The newest shard map's number, and since when it is there.
    map: u64,
    map_since_us: u64,
    /// Entries that were judged: others apply them later.
    judged: u64,
}

impl NoFalseDeath {
    fn check(&self, id: &AgentId, dead_us: u64) -> Result<(), String> {
        let grace = Policy::default().listened_min + ASK_WITHIN;
        let rules = Rules { grace_us: grace.as_micros() as u64, skew_us: STEP_MAX_MS * 1000 };
        let agent = self.agents.get(id);
        let watched_us = dead_us.saturating_sub(self.map_since_us);
        if !agent.is_some_and(|agent| agent.was_suspect) && watched_us + rules.skew_us < rules.grace_us {
            let (map, watched_ms) = (self.map, watched_us / 1000);
            return Err(format!(
                "agent {id} was declared dead {watched_ms} ms after shard map {map} had come"
            ));
        }
        // What was acknowledged in the same moment may have come after the finding.
        let acknowledged_us = agent.map(|agent| &agent.acknowledged_us[..]).unwrap_or_default();
        let before = acknowledged_us.iter().copied().filter(|at| *at < dead_us).collect();
        let record = Record { acknowledged_us: before, declared_dead_us: vec![dead_us] };
        let found = deaths::check(&[(id.to_string(), record)].into(), rules);
        found.violations.first().map_or(Ok(()), |violation| Err(violation.to_string()))
    }
}

impl Invariant for NoFalseDeath {
    fn name(&self) -> &'static str {
        "no false death"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::State { state, .. } => {
                let (map, known) = (state.shard_map(), state.agents());
                let is_new = map.number != self.map;
                if is_new {
                    (self.map, self.map_since_us) = (map.number, clock::now_ms() * 1000);
                }
                self.agents.retain(|agent, _| known.iter().any(|known| known.agent == *agent));
                for known in known {
                    let agent = self.agents.entry(known.agent).or_default();
                    agent.watched_by = shard_owner(&known.deployment, &map.watchers);
                    if is_new {
                        agent.was_suspect = known.health == AgentHealth::Suspect;
                    }
                }
                Ok(())
            }
            Event::Acknowledged { replica, agent } => {
                if let Some(agent) = self.agents.get_mut(*agent)
                    && agent.watched_by == Some(NodeId(*replica))
                {
                    agent.acknowledged_us.push(clock::now_ms() * 1000);
                    let surplus = agent.acknowledged_us.len().saturating_sub(REMEMBERED);
                    agent.acknowledged_us.drain(..surplus);
                }
                Ok(())
            }
            Event::Applied { index, entry, answer, .. } if *index > self.judged => {
                self.judged = *index;
                let (Ok(entry), Ok(Outcome::Done)) = (Entry::decode(entry), Outcome::decode(answer)) else {
                    return Ok(());
                };
                let Command::AgentTransitions { transitions, .. } = entry.command else { return Ok(()) };
                let found_us = clock::since_beginning_us(entry.proposed_at);
                let dead = transitions.iter().filter(|found| found.health == AgentHealth::Dead);
                dead.map(|found| &found.agent).try_for_each(|agent| self.check(agent, found_us))
            }
            _ => Ok(()),
        }
    }
}
