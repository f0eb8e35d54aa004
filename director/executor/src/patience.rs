//! How long an agent may take to say how it is.

use std::time::Duration;

use model::AgentId;
use state::State;
use state::records::AgentHealth;

/// One of which nothing is known that speaks against it.
const STATE_TIMEOUT: Duration = Duration::from_secs(10);

/// One that the watchers have called dead: they asked it twice already, by two ways. Whoever resurrects waits for this, so
/// it is time in which an instance is down.
const DEAD_STATE_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns how long an agent may take to say how it is.
pub fn for_state(state: &State<'_>, agent: &AgentId) -> Duration {
    match state.agent(agent).is_some_and(|agent| agent.health == AgentHealth::Dead) {
        true => DEAD_STATE_TIMEOUT,
        false => STATE_TIMEOUT,
    }
}
