//! What agents tell without being asked: heartbeats, alerts, and that they stop.
//!
//! Over a connection of its own, so that whoever tells too much delays no answers. Every replica hears every agent; which of
//! them an agent concerns, [`agent_api::HeartbeatSink`] knows.

use std::pin::pin;
use std::sync::Arc;

use agent_api::{Alert, Heartbeat, HeartbeatSink, JobState, VITALS_BYTES_MAX};
use futures::StreamExt as _;
use futures::stream::select_all;
use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;

use crate::bus::subscribe;
use crate::options::{ConnectError, Options};
use crate::subjects::{self, Told};

/// Largest report that is read. Those of BOSH's agent have less than one thousand bytes.
const REPORT_BYTES_MAX: usize = 4 * VITALS_BYTES_MAX;

/// Hears the agents.
pub struct Reports;

#[derive(Deserialize)]
struct WireHeartbeat {
    job_state: String,
    #[serde(default)]
    vitals: Value,
    #[serde(default)]
    number_of_processes: Option<u32>,
}

#[derive(Deserialize)]
struct WireAlert {
    #[serde(default)]
    id: String,
    severity: u32,
    title: String,
    #[serde(default)]
    summary: String,
    created_at: i64,
}

impl Reports {
    /// Hands on what agents tell, until `tasks` are stopped. The certificate is that of BOSH's health monitor, or of whoever
    /// else may subscribe to these subjects.
    ///
    /// # Errors
    /// If the settings can't be used. A server that is not there is waited for.
    pub async fn listen(
        options: &Options,
        sink: Arc<dyn HeartbeatSink>,
        tasks: &OwnedTasks,
    ) -> Result<(), ConnectError> {
        let client = options.connect("reports").await?;
        let mut subscribers = Vec::new();
        for subject in subjects::REPORTS {
            subscribers.push(subscribe(&client, subject.to_owned()).await?);
        }
        tasks.spawn("reports of agents on NATS", OnExit::StopNode, |stop| async move {
            // The client lives as long as somebody reads.
            let _client = client;
            let mut messages = pin!(select_all(subscribers).take_until(stop.cancelled_owned()));
            while let Some(message) = messages.next().await {
                let Some((told, agent)) = subjects::told(&message.subject) else { continue };
                if !take(&*sink, told, &agent, &message.payload) {
                    debug!(agent = %agent, bytes = message.payload.len(), "an agent tells what can't be read");
                }
            }
        });
        Ok(())
    }
}

/// Hands a report on; returns whether it was one.
fn take(sink: &dyn HeartbeatSink, told: Told, agent: &AgentId, payload: &[u8]) -> bool {
    if payload.len() > REPORT_BYTES_MAX {
        return false;
    }
    match told {
        Told::Heartbeat => {
            let Ok(heartbeat) = serde_json::from_slice(payload) else { return false };
            sink.heartbeat(heartbeat_of(agent, heartbeat));
        }
        Told::Alert => {
            let Ok(alert) = serde_json::from_slice(payload) else { return false };
            let WireAlert { id, severity, title, summary, created_at } = alert;
            sink.alert(agent, Alert { id, severity, title, summary, created_at_unix: created_at });
        }
        Told::Shutdown => sink.disconnected(agent),
    }
    true
}

fn heartbeat_of(agent: &AgentId, heartbeat: WireHeartbeat) -> Heartbeat {
    let WireHeartbeat { job_state, vitals, number_of_processes } = heartbeat;
    let is_small = vitals.to_string().len() <= VITALS_BYTES_MAX;
    Heartbeat {
        agent: agent.clone(),
        job_state: serde_json::from_value(job_state.into()).unwrap_or(JobState::Unknown),
        vitals: if is_small { vitals } else { Value::Null },
        processes: number_of_processes.unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
