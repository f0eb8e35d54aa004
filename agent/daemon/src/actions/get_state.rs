//! `get_state`: the stored spec, the jobs' state and, with `full`, vitals.

use serde_json::{Value, json};

use crate::error::ActionError;
use crate::machine::Order;
use crate::real::RealMachine;

pub(super) fn run(machine: &RealMachine, order: &Order) -> Result<Value, ActionError> {
    let spec = machine.spec()?;
    let mut state = serde_json::to_value(&spec)
        .map_err(|error| ActionError::failed(format!("the spec is not JSON: {error}")))?;
    state["agent_id"] = json!(machine.settings.agent_id);
    state["vm"] = json!({ "name": machine.settings.vm.name });
    state["job_state"] = json!(machine.supervisor.job_state());
    let processes = machine.supervisor.processes();
    if !processes.is_empty() {
        state["processes"] = Value::Array(processes);
    }
    if order.arguments.first().and_then(Value::as_str) == Some("full") {
        state["vitals"] = machine.vitals();
    }
    Ok(state)
}
