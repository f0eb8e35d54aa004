//! What agents said of themselves last, wherever in the cluster their streams are. Heartbeats end at the replica that hears
//! them; who wants to know asks all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_api::Heartbeat;
use bytes::Bytes;
use futures::future::join_all;
use model::{AgentId, NodeId};
use proto::peer::v1::{RelayReport, RelayReportsRequest};
use tokio::time::Instant;
use tracing::debug;

use crate::gateway::vitals_json;
use crate::hub::AgentHub;
use crate::registry::Report;
use crate::remote::RemoteAgents;

/// What an agent said of itself in its last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentReport {
    /// The jobs as a whole.
    pub job_state: String,
    /// Supervised processes.
    pub processes: u32,
    /// BOSH's vitals, JSON.
    pub vitals_json: Bytes,
    /// How long ago.
    pub age: Duration,
}

impl AgentHub {
    /// Keeps what an agent said that has no stream anywhere, but tells this replica how it is on another way.
    pub fn keep_report(&self, heartbeat: &Heartbeat) {
        let report = Report {
            job_state: heartbeat.job_state,
            processes: heartbeat.processes,
            vitals_json: vitals_json(&heartbeat.vitals),
            at: Instant::now(),
        };
        self.told.keep(heartbeat.agent.clone(), report);
    }

    /// Returns what those of the agents said last that this replica hears.
    pub fn reports(&self, agents: &[AgentId]) -> BTreeMap<AgentId, AgentReport> {
        let report = |agent: &AgentId| {
            let heard = self.registry.stream(agent).and_then(|stream| stream.report());
            let report = heard.or_else(|| self.told.report(agent))?;
            let age = report.at.elapsed();
            let job_state = report.job_state.name().to_owned();
            let (processes, vitals_json) = (report.processes, report.vitals_json);
            Some((agent.clone(), AgentReport { job_state, processes, vitals_json, age }))
        };
        agents.iter().filter_map(report).collect()
    }
}

impl RemoteAgents {
    /// Returns what the agents said last, as far as the replicas that hold their streams answer within a time. Of an agent
    /// that two of them claim to hold, the newest counts.
    pub async fn reports(&self, agents: &[AgentId], within: Duration) -> BTreeMap<AgentId, AgentReport> {
        let elsewhere = self.peers.replicas().into_iter().map(|node| self.reports_at(node, agents, within));
        let mut newest = self.hub.reports(agents);
        for (agent, report) in join_all(elsewhere).await.into_iter().flatten() {
            if newest.get(&agent).is_none_or(|known| report.age < known.age) {
                newest.insert(agent, report);
            }
        }
        newest
    }

    async fn reports_at(
        &self,
        node: NodeId,
        agents: &[AgentId],
        within: Duration,
    ) -> Vec<(AgentId, AgentReport)> {
        let Some(relay) = self.peers.relay(node) else { return Vec::new() };
        let request = RelayReportsRequest { agent_ids: agents.iter().map(ToString::to_string).collect() };
        match tokio::time::timeout(within, relay.reports(request)).await {
            Ok(Ok(answer)) => answer.reports.into_iter().map(from_peer).collect(),
            Ok(Err(status)) => {
                debug!(%node, error = %status, "a replica can't be asked for agents' reports");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

pub(crate) fn to_peer(agent: AgentId, report: AgentReport) -> RelayReport {
    RelayReport {
        agent_id: agent.to_string(),
        job_state: report.job_state,
        processes: report.processes,
        vitals_json: report.vitals_json,
        age_ms: u64::try_from(report.age.as_millis()).unwrap_or(u64::MAX),
    }
}

fn from_peer(report: RelayReport) -> (AgentId, AgentReport) {
    let RelayReport { agent_id, job_state, processes, vitals_json, age_ms } = report;
    let age = Duration::from_millis(age_ms);
    (AgentId::from(agent_id), AgentReport { job_state, processes, vitals_json, age })
}
