//! `shutdown`: switches the machine off.

use serde_json::{Value, json};

use crate::error::ActionError;
use crate::real::RealMachine;

/// Stops what runs. The machine itself goes off once the answer is on its way, see [`crate::Machine::answered`].
pub(super) async fn run(machine: &RealMachine) -> Result<Value, ActionError> {
    super::stop::run(machine).await?;
    Ok(json!(""))
}
