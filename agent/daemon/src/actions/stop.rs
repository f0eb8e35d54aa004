//! `stop`: has everything stopped and waits until it is.

use std::time::Duration;

use agent_api::JobState;
use serde_json::{Value, json};

use crate::durable::{self, Readers};
use crate::error::ActionError;
use crate::real::RealMachine;

/// How long all services together may take.
const STOPPED_WITHIN: Duration = Duration::from_secs(300);

pub(super) async fn run(machine: &RealMachine) -> Result<Value, ActionError> {
    // First, so that a restart of the agent in between starts nothing again.
    let path = machine.layout.stopped();
    durable::write(&path, b"", Readers::All).map_err(ActionError::file("write", &path))?;
    machine.supervisor.stop(STOPPED_WITHIN).await?;
    machine.mirror_health(JobState::Stopped);
    Ok(json!("stopped"))
}
