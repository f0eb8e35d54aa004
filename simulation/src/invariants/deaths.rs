//! Nobody is called dead whose heartbeats were being acknowledged by the replica that watches it, nor by a watcher who has
//! only just taken it over: a death needs a silence before it, in which its watcher has listened for long enough and has then
//! asked in vain.

use std::collections::{BTreeMap, BTreeSet};

use checkers::deaths::{self, Record, Rules};
use health::assess::Policy;
use health::shard_owner;
use health::watcher::ASK_WITHIN;
use model::{AgentId, NodeId, RequestId};
use state::command::{Command, Entry, Outcome};
use state::records::AgentHealth;

use super::{Event, Invariant};
use crate::clock;
use crate::process::STEP_MAX_MS;

/// What is remembered of an agent.
#[derive(Default)]
struct Agent {
    /// Who watches it, as the fleet agreed on, and since when. A new map that leaves it where it is changes nothing.
    watched_by: Option<NodeId>,
    watched_since_us: u64,
    /// When its last heartbeats were acknowledged there.
    acknowledged_us: Vec<u64>,
    /// Since when the fleet has suspected it. An old suspicion counts as silence to whoever watches it.
    suspected_since_us: Option<u64>,
}

/// Heartbeats that are remembered: far more than come between a finding and its entry.
const REMEMBERED: usize = 32;

#[derive(Default)]
pub struct NoFalseDeath {
    agents: BTreeMap<AgentId, Agent>,
    /// The newest shard map's number.
    map: u64,
    /// Entries that were judged: others apply them later.
    judged: u64,
    /// Requests that were judged: a report whose answer was lost is sent again, and answered as it was.
    requests: BTreeSet<RequestId>,
}

impl NoFalseDeath {
    fn check(&self, id: &AgentId, dead_us: u64) -> Result<(), String> {
        let grace = Policy::default().listened_min + ASK_WITHIN;
        let rules = Rules { grace_us: grace.as_micros() as u64, skew_us: STEP_MAX_MS * 1000 };
        let agent = self.agents.get(id);
        let silent_since_us = agent.map(|agent| {
            let suspected_us = agent.suspected_since_us.unwrap_or(u64::MAX);
            agent.watched_since_us.min(suspected_us)
        });
        let watched_us = silent_since_us.map(|since| dead_us.saturating_sub(since));
        if let Some(watched_us) = watched_us.filter(|watched| watched + rules.skew_us < rules.grace_us) {
            let (map, watched_ms) = (self.map, watched_us / 1000);
            return Err(format!(
                "agent {id} was declared dead {watched_ms} ms after its watcher of shard map {map} had taken it over"
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
                let now_us = clock::now_ms() * 1000;
                self.map = map.number;
                self.agents.retain(|agent, _| known.iter().any(|known| known.agent == *agent));
                for known in known {
                    let agent = self.agents.entry(known.agent).or_default();
                    let watcher = shard_owner(&known.deployment, &map.watchers);
                    if watcher != agent.watched_by {
                        agent.watched_by = watcher;
                        agent.watched_since_us = now_us;
                    }
                    let suspected = (known.health == AgentHealth::Suspect).then_some(now_us);
                    agent.suspected_since_us = suspected.map(|now| agent.suspected_since_us.unwrap_or(now));
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
                if entry.request_id.is_some_and(|request| !self.requests.insert(request)) {
                    return Ok(());
                }
                let found_us = clock::since_beginning_us(entry.proposed_at);
                let dead = transitions.iter().filter(|found| found.health == AgentHealth::Dead);
                dead.map(|found| &found.agent).try_for_each(|agent| self.check(agent, found_us))
            }
            _ => Ok(()),
        }
    }
}
