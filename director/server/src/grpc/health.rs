//! Health of agents, shards, resurrection, leaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_client_grpc::AgentReport;
use async_trait::async_trait;
use model::{AgentId, DeploymentName, EventId, InstanceId, NodeId};
use proto::v1 as pb;
use proto::v1::health_server::Health;
use service::List;
use service::ops::{ListedLeak, Shards};
use state::query::DeploymentHealth;
use tonic::{Request, Response, Status};

use super::convert::{given, name, page};
use super::request_id;
use crate::door::Door;
use crate::error_map::status;

/// Names of deployments shown of one shard; how many there are is a number beside them.
const DEPLOYMENTS_SHOWN: usize = 100;

/// How long the replicas may take to say what their agents said last; what is not known by then is left out.
const REPORTED_WITHIN: Duration = Duration::from_secs(2);

fn report(report: AgentReport) -> pb::AgentReport {
    let AgentReport { job_state, processes, vitals_json, age } = report;
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    pb::AgentReport { job_state, processes, vitals_json, age_ms }
}

fn deployment_health(health: DeploymentHealth) -> pb::DeploymentHealth {
    let count = |set: &BTreeSet<InstanceId>| u32::try_from(set.len()).unwrap_or(u32::MAX);
    let is_unhealthy = !health.dead.is_empty() || !health.missing.is_empty();
    let state = match (&health.meltdown, is_unhealthy) {
        (Some(_), _) => "meltdown",
        (None, true) => "unhealthy",
        (None, false) => "healthy",
    };
    pb::DeploymentHealth {
        deployment: health.deployment.to_string(),
        state: state.into(),
        in_work: health.in_work,
        instances: count(&health.wanted),
        dead: count(&health.dead),
        suspect: count(&health.suspect),
        missing: count(&health.missing),
        meltdown: health.meltdown.map(|meltdown| pb::Meltdown {
            unhealthy: meltdown.failed.unhealthy,
            total: meltdown.failed.total,
            since_unix_ms: meltdown.since.0,
        }),
    }
}

#[async_trait]
impl Health for Door {
    async fn agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let deployment = given(wish.deployment).map(DeploymentName::new);
        let listed = self.service.agents(&caller, deployment, &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let map = self.service.shard_map(&caller).map_err(status)?;
        let ids: Vec<AgentId> = rows.iter().map(|row| row.agent.clone()).collect();
        let mut reports = self.reports.reports(&ids, REPORTED_WITHIN).await;
        let agent = |agent: state::records::AgentRecord| pb::Agent {
            report: reports.remove(&agent.agent).map(report),
            watcher: health::shard_owner(&agent.deployment, &map.watchers).map_or(0, |n| n.0),
            id: agent.agent.to_string(),
            deployment: agent.deployment.to_string(),
            instance: agent.instance.to_string(),
            health: name(&agent.health),
            since_unix_ms: agent.health_since.0,
        };
        Ok(Response::new(pb::ListAgentsResponse {
            agents: rows.into_iter().map(agent).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn deployments(
        &self,
        request: Request<pb::ListDeploymentHealthRequest>,
    ) -> Result<Response<pb::ListDeploymentHealthResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.deployments_health(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListDeploymentHealthResponse {
            deployments: rows.into_iter().map(deployment_health).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn shards(
        &self,
        request: Request<pb::ListShardsRequest>,
    ) -> Result<Response<pb::ListShardsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let Shards { map, agents, revision } = self.service.shards(&caller).await.map_err(status)?;
        let mut shards: BTreeMap<NodeId, pb::Shard> =
            map.watchers.iter().map(|n| (*n, pb::Shard { node: n.0, ..pb::Shard::default() })).collect();
        for (deployment, count) in agents {
            let owner = health::shard_owner(&deployment, &map.watchers);
            let Some(shard) = owner.and_then(|n| shards.get_mut(&n)) else { continue };
            shard.agents += count;
            shard.deployment_count += 1;
            if shard.deployments.len() < DEPLOYMENTS_SHOWN {
                shard.deployments.push(deployment.to_string());
            }
        }
        for (node, shard) in &mut shards {
            shard.connected = self.connected(*node).await;
        }
        Ok(Response::new(pb::ListShardsResponse {
            map_number: map.number,
            shards: shards.into_values().collect(),
            as_of_revision: revision.0,
        }))
    }

    async fn set_resurrection(
        &self,
        request: Request<pb::SetResurrectionRequest>,
    ) -> Result<Response<pb::SetResurrectionResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let done = self.service.set_resurrection(&caller, request_id(&wish.request_id), wish.paused).await;
        done.map_err(status)?;
        Ok(Response::new(pb::SetResurrectionResponse {}))
    }

    async fn leaks(
        &self,
        request: Request<pb::ListLeaksRequest>,
    ) -> Result<Response<pb::ListLeaksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.leaks(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let leak = |ListedLeak { leak, looked_for_ms }: ListedLeak| pb::Leak {
            id: leak.id.0,
            what: leak.what,
            task: leak.task.map_or(0, |t| t.0),
            at_unix_ms: leak.at.0,
            looked_for_ms,
        };
        Ok(Response::new(pb::ListLeaksResponse {
            leaks: rows.into_iter().map(leak).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn clear_leak(
        &self,
        request: Request<pb::ClearLeakRequest>,
    ) -> Result<Response<pb::ClearLeakResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        self.service.clear_leak(&caller, id, EventId(wish.id)).await.map_err(status)?;
        Ok(Response::new(pb::ClearLeakResponse {}))
    }
}

impl Door {
    /// Asks a replica how many agents are connected to it.
    async fn connected(&self, node: NodeId) -> u32 {
        if node == self.membership.id {
            return self.membership.hub.stream_count() as u32;
        }
        let Some(mut client) = self.membership.client(node) else { return 0 };
        let asked = client.watching(proto::peer::v1::WatchingRequest {});
        let answer = tokio::time::timeout(std::time::Duration::from_secs(1), asked).await;
        answer.ok().and_then(Result::ok).map_or(0, |a| a.into_inner().connected)
    }
}
