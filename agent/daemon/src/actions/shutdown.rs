//! `shutdown`: switches the machine off.

use serde_json::{Value, json};

use crate::error::ActionError;
use crate::real::RealMachine;

/// Stops what runs, and has the agent end in the way that switches the machine off. The agent's answer may be lost on the way: whoever asks
/// for this does not wait for it.
pub(super) async fn run(machine: &RealMachine) -> Result<Value, ActionError> {
    super::stop::run(machine).await?;
    machine.off.cancel();
    Ok(json!(""))
}
