//! How instances fare, as the watchers have agreed: what agents say of their jobs, and who is silent.

use std::collections::BTreeSet;

use agent_api::Fare;
use model::AgentId;
use state::State;
use state::records::{AgentHealth, AgentRecord};

/// Reads how the instances of these agents fare: a letter for each, in their order.
pub(super) fn read(state: &State<'_>, agents: &BTreeSet<AgentId>) -> String {
    agents
        .iter()
        .map(|agent| state.agent(agent).map_or(Fare::Unknown, |record| fare(&record)).letter())
        .collect()
}

/// Silence counts from when it is told, not from when death is sure: names lead back to whoever was only slow.
fn fare(agent: &AgentRecord) -> Fare {
    match (agent.health, agent.jobs_run) {
        (AgentHealth::Suspect | AgentHealth::Dead, _) | (_, Some(false)) => Fare::Badly,
        (AgentHealth::New | AgentHealth::Alive, Some(true)) => Fare::Well,
        (AgentHealth::New | AgentHealth::Alive, None) => Fare::Unknown,
    }
}
