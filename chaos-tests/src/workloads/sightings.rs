//! Somebody who looks now and then: who holds which lock, which agents are heard, and who is called dead.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use checkers::deaths;
use checkers::locks::{Event, Token, What};
use dctl::call;
use proto::v1::ListAgentsRequest;
use proto::v1::health_client::HealthClient;

use super::Ground;
use crate::client::Client;

/// Pause between looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    /// Holders of locks.
    pub locks: Vec<Event>,
    /// Heartbeats that a replica had, and deaths.
    pub agents: BTreeMap<String, deaths::Record>,
}

/// Looks until all is over.
pub(super) async fn look(ground: &Ground) -> Result<()> {
    // The read is linearizable, and so is a sequence of them.
    let client = ground.client(0, Duration::from_secs(2), Duration::from_secs(4))?;
    while !ground.is_over() {
        // Between two leaders nobody answers; somebody who looks now and then looks again.
        if let Ok(locks) = client.locks().await {
            let at_us = ground.now_us();
            let event = |lock: proto::v1::Lock| Event {
                at_us,
                lock: lock.name,
                by: Token { task: lock.holder, epoch: 0 },
                what: What::Seen,
            };
            ground.notes().sightings.locks.extend(locks.into_iter().map(event));
        }
        let asked_us = ground.now_us();
        if let Ok(agents) = agents(&client).await {
            note_agents(&mut ground.notes().sightings.agents, &agents, asked_us, ground.now_us());
        }
        ground.pause(LOOK_EVERY).await;
    }
    Ok(())
}

async fn agents(client: &Client) -> Result<Vec<proto::v1::Agent>> {
    let request = ListAgentsRequest { deployment: String::new(), page: crate::client::page() };
    Ok(call!(client.fleet, HealthClient.agents(request)).await?.agents)
}

/// Takes note of heartbeats and deaths, each at the moment that favours the fleet: a heartbeat may have come as early as
/// its age says from the moment of asking, and a death is first known when the answer is here.
fn note_agents(
    known: &mut BTreeMap<String, deaths::Record>,
    agents: &[proto::v1::Agent],
    asked_us: u64,
    answered_us: u64,
) {
    for agent in agents {
        let record = known.entry(agent.id.clone()).or_default();
        match (agent.health.as_str(), &agent.report) {
            // It stays dead until it is heard: one death is one death.
            ("dead", _) => {
                let is_told = record.declared_dead_us.last() > record.acknowledged_us.last();
                if !is_told {
                    record.declared_dead_us.push(answered_us);
                }
            }
            (_, Some(report)) => {
                let heard_us = asked_us.saturating_sub(report.age_ms.saturating_mul(1000));
                if record.acknowledged_us.last().is_none_or(|last| *last < heard_us) {
                    record.acknowledged_us.push(heard_us);
                }
            }
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(health: &str, age_ms: Option<u64>) -> proto::v1::Agent {
        let report = age_ms.map(|age_ms| proto::v1::AgentReport { age_ms, ..Default::default() });
        proto::v1::Agent { id: "a".into(), health: health.into(), report, ..Default::default() }
    }

    #[test]
    fn a_heartbeat_counts_from_its_age_and_a_death_once() {
        let mut known = BTreeMap::new();
        let looks = [("alive", Some(100), 1_000), ("alive", Some(350), 1_250), ("dead", Some(9_000), 12_000)];
        for (health, age_ms, asked_ms) in looks {
            note_agents(&mut known, &[agent(health, age_ms)], asked_ms * 1000, (asked_ms + 5) * 1000);
        }
        note_agents(&mut known, &[agent("dead", None)], 13_000_000, 13_005_000);
        note_agents(&mut known, &[agent("alive", Some(0))], 14_000_000, 14_005_000);
        note_agents(&mut known, &[agent("dead", None)], 15_000_000, 15_005_000);
        let record = deaths::Record {
            acknowledged_us: vec![900_000, 14_000_000],
            declared_dead_us: vec![12_005_000, 15_005_000],
        };
        assert_eq!(known["a"], record);
    }
}
