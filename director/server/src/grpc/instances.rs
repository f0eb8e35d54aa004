//! Instances, with what their agents say when that is asked for.

use std::time::Duration;

use agent_api::{AgentState, Method, Mode, Request as AgentRequest};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::instance::InstanceState;
use model::task::{InstanceFilter, SshCommand, SshTarget, StateChange};
use model::{DeploymentName, Epoch, RequestId};
use proto::v1 as pb;
use proto::v1::instances_server::Instances;
use proto::v1::ssh_request::Command as Wanted;
use service::ops::{ChangeWish, InstanceRow, InstanceWish, LogWish};
use service::{Access, Caller, List, Read};
use state::records::AgentHealth;
use state::records::OrphanedVm;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::artifacts::started;
use super::convert::{filter, freshness, given, moment, name, page};
use super::request_id;
use crate::deadline;
use crate::door::Door;
use crate::error_map::{bad_request, status};

/// How long an agent may take to say how it is, as in BOSH.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long all agents of a page together may take: in an outage, when most of them are silent, an answer that comes is
/// worth more than one that is complete.
const PAGE_TIMEOUT: Duration = Duration::from_secs(8);

/// Agents asked at once.
const ASKED_AT_ONCE: usize = 64;

/// What an agent said when it was asked how it is.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    /// This.
    State(AgentState),
    /// Nothing, though there was time to; or all have agreed already that it is dead.
    Silence,
    /// It was not asked, or the page's time was over before its own.
    NotAsked,
}

/// Asks the agents of a page how they are, a number of them at a time and all within one limit.
async fn states<'a, F>(
    rows: &'a [InstanceRow],
    limit: Duration,
    ask: impl Fn(&'a InstanceRow, Duration) -> F,
) -> Vec<Heard>
where
    F: Future<Output = Option<AgentState>> + Send + 'a,
{
    let deadline = Instant::now() + limit;
    let mut asked: Vec<BoxFuture<'a, Heard>> = Vec::with_capacity(rows.len());
    for row in rows {
        // Nobody waits for one that all have agreed is dead; it may take a minute to be found out otherwise.
        let dead = row.agent.as_ref().is_some_and(|agent| agent.health == AgentHealth::Dead);
        asked.push(match row.vm.is_none() || dead {
            true => std::future::ready(Heard::Silence).boxed(),
            false => within(deadline, ask(row, STATE_TIMEOUT.min(limit))).boxed(),
        });
    }
    futures::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

/// Waits for an agent's answer, no longer than for one agent and no longer than for the page.
async fn within(deadline: Instant, asking: impl Future<Output = Option<AgentState>>) -> Heard {
    let own = Instant::now() + STATE_TIMEOUT;
    match tokio::time::timeout_at(deadline.min(own), asking).await {
        Ok(Some(state)) => Heard::State(state),
        // The page's time is over.
        Err(_) if deadline < own => Heard::NotAsked,
        Ok(None) | Err(_) => Heard::Silence,
    }
}

impl Door {
    /// Asks an instance's agent how it is.
    async fn agent_state(
        &self,
        row: &InstanceRow,
        epoch: Epoch,
        full: bool,
        timeout: Duration,
    ) -> Option<AgentState> {
        let agent = &row.vm.as_ref()?.agent;
        let request = AgentRequest {
            id: RequestId::new(format!("state-{}", uuid::Uuid::new_v4())),
            epoch,
            mode: Mode::Submit,
            timeout,
            method: Method::GetState { full },
        };
        let reply = self.agents.call(agent, request).await.ok()?;
        serde_json::from_value(reply.0).ok()
    }
}

fn instance(row: InstanceRow, heard: Heard) -> pb::Instance {
    let process_state = match (&row.vm, &heard) {
        (None, _) => "no vm".into(),
        (Some(_), Heard::State(state)) => name(&state.job_state),
        (Some(_), Heard::Silence) => "unresponsive agent".into(),
        // What the watchers last agreed on.
        (Some(_), Heard::NotAsked) => row.agent.as_ref().map(|a| name(&a.health)).unwrap_or_default(),
    };
    let state = match heard {
        Heard::State(state) => Some(state),
        Heard::Silence | Heard::NotAsked => None,
    };
    let spec = &row.instance.spec;
    let networks = row.vm.as_ref().map_or(&spec.networks, |vm| &vm.networks);
    pb::Instance {
        deployment: spec.deployment.to_string(),
        group: spec.group.to_string(),
        id: spec.id.to_string(),
        index: spec.index,
        az: spec.az.as_ref().map(ToString::to_string).unwrap_or_default(),
        bootstrap: spec.bootstrap,
        wanted_state: name(&row.instance.state),
        process_state,
        ips: networks.iter().filter_map(|n| n.ip).map(|ip| ip.to_string()).collect(),
        agent_id: row.vm.as_ref().map(|vm| vm.agent.to_string()).unwrap_or_default(),
        vm_cid: row.vm.as_ref().and_then(|vm| vm.cid.as_ref()).map(ToString::to_string).unwrap_or_default(),
        vm_type: spec.vm_type.clone().unwrap_or_default(),
        disk_cids: row
            .disks
            .iter()
            .filter(|d| d.active)
            .filter_map(|d| d.cid.as_ref())
            .map(ToString::to_string)
            .collect(),
        ignore: row.instance.ignore,
        update_completed: row.instance.update_completed,
        processes: state
            .iter()
            .flat_map(|s| &s.processes)
            .map(|p| pb::Process { name: p.name.clone(), state: p.state.clone() })
            .collect(),
        vitals_json: state
            .and_then(|s| s.vitals)
            .map(|v| v.to_string().into_bytes().into())
            .unwrap_or_default(),
        lifecycle: name(&spec.lifecycle),
    }
}

impl Door {
    /// A change of one instance, and of nothing else.
    async fn change_isolated(
        &self,
        caller: &Caller,
        deployment: &DeploymentName,
        change: StateChange,
        wish: pb::ChangeStateRequest,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let pb::InstanceSelector { group, id_or_index } = wish.instances.unwrap_or_default();
        if group.is_empty() || id_or_index.is_empty() {
            return Err(bad_request(
                "without converging, one instance is changed: say `group` and `id_or_index`",
            ));
        }
        let has_terms = !wish.max_in_flight.is_empty() || !wish.canaries.is_empty();
        if has_terms || wish.dry_run || wish.vms_created_before_unix_ms != 0 {
            let text =
                "`max_in_flight`, `canaries`, `dry_run` and the age of VMs go with changes that converge";
            return Err(bad_request(text));
        }
        let (skip_drain, fix) = (wish.skip_drain, wish.ignore_unresponsive_agent);
        let wanted = InstanceWish { change, skip_drain, fix };
        let key = request_id(&wish.request_id);
        let filed =
            self.service.change_instance(caller, key, deployment, (&group, &id_or_index), wanted).await;
        filed.map(started).map_err(status)
    }
}

#[async_trait]
impl Instances for Door {
    async fn list(
        &self,
        request: Request<pb::ListInstancesRequest>,
    ) -> Result<Response<pb::ListInstancesResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let deployment = DeploymentName::new(wish.deployment);
        let listed =
            self.service.instances(&caller, deployment, freshness(wish.freshness), &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let epoch = self.service.info().map(|c| c.epoch).unwrap_or_default();
        // Dashboards, which read locally, make do with what the watchers know; people want to know how it is now.
        let ask = freshness(wish.freshness) == Read::Linearizable;
        let states = match ask {
            true => {
                let full = wish.vitals;
                let ask = |row, left| self.agent_state(row, epoch, full, left).boxed();
                states(&rows, deadline::within(PAGE_TIMEOUT), ask).await
            }
            false => vec![Heard::NotAsked; rows.len()],
        };
        let instances = rows.into_iter().zip(states).map(|(row, heard)| instance(row, heard)).collect();
        Ok(Response::new(pb::ListInstancesResponse {
            instances,
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn change_state(
        &self,
        request: Request<pb::ChangeStateRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        use pb::change_state_request::Change;
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let deployment = DeploymentName::new(wish.deployment.clone());
        self.service.may_access_deployment(&caller, &deployment, Access::Admin).await.map_err(status)?;
        let change = match wish.change() {
            Change::Start => StateChange::Become(InstanceState::Started),
            Change::Stop => StateChange::Become(InstanceState::Stopped),
            Change::StopHard => StateChange::Become(InstanceState::Detached),
            Change::Restart => StateChange::Restart,
            Change::Recreate => StateChange::Recreate,
            Change::Unspecified => {
                return Err(bad_request("say which change: start, stop, restart …"));
            }
        };
        if wish.no_converge {
            return self.change_isolated(&caller, &deployment, change, wish).await;
        }
        let task = self
            .service
            .change_state(
                &caller,
                request_id(&wish.request_id),
                &deployment,
                ChangeWish {
                    change,
                    filter: filter(wish.instances.unwrap_or_default()),
                    skip_drain: wish.skip_drain,
                    max_in_flight: given(wish.max_in_flight),
                    canaries: given(wish.canaries),
                    dry_run: wish.dry_run,
                    created_before: moment(wish.vms_created_before_unix_ms),
                },
            )
            .await;
        Ok(Response::new(pb::TaskStarted { task_id: task.map_err(status)?.0 }))
    }

    async fn fetch_logs(
        &self,
        request: Request<pb::FetchLogsRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::FetchLogsRequest { request_id: id, deployment, instances, logs, filters } =
            request.into_inner();
        let wish = LogWish { instances: filter(instances.unwrap_or_default()), logs, filters };
        let deployment = DeploymentName::new(deployment);
        let filed = self.service.fetch_logs(&caller, request_id(&id), &deployment, wish).await;
        filed.map(started).map_err(status)
    }

    async fn ssh(&self, request: Request<pb::SshRequest>) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::SshRequest { request_id: id, deployment, instances, command } = request.into_inner();
        let deployment = DeploymentName::new(deployment);
        self.service.may_access_deployment(&caller, &deployment, Access::Admin).await.map_err(status)?;
        let command = match command {
            Some(Wanted::Setup(pb::SshSetup { user, public_key })) => SshCommand::Setup { user, public_key },
            Some(Wanted::Cleanup(pb::SshCleanup { user_regex })) => SshCommand::Cleanup { user_regex },
            None => return Err(bad_request("say which: setup or cleanup")),
        };
        let InstanceFilter { group, id_or_index } = filter(instances.unwrap_or_default());
        let target = SshTarget { group, ids: id_or_index.into_iter().collect(), indexes: Vec::new() };
        let filed = self.service.ssh(&caller, request_id(&id), &deployment, command, target).await;
        filed.map(started).map_err(status)
    }

    async fn ignore(
        &self,
        request: Request<pb::IgnoreRequest>,
    ) -> Result<Response<pb::IgnoreResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let which = wish.instance.unwrap_or_default();
        let (id, deployment) = (request_id(&wish.request_id), DeploymentName::new(wish.deployment));
        let done = self.service.ignore_instance(
            &caller,
            id,
            &deployment,
            &which.group,
            &which.id_or_index,
            wish.ignore,
        );
        done.await.map_err(status)?;
        Ok(Response::new(pb::IgnoreResponse {}))
    }

    async fn delete_vm(
        &self,
        request: Request<pb::DeleteVmRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::DeleteVmRequest { request_id: id, cid } = request.into_inner();
        self.service.delete_vm(&caller, request_id(&id), &cid.into()).await.map(started).map_err(status)
    }

    async fn list_orphaned_vms(
        &self,
        request: Request<pb::ListOrphanedVmsRequest>,
    ) -> Result<Response<pb::ListOrphanedVmsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.orphaned_vms(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let row = |orphan: OrphanedVm| pb::OrphanedVm {
            cid: orphan.vm.cid.map(|cid| cid.to_string()).unwrap_or_default(),
            agent_id: orphan.vm.agent.to_string(),
            deployment: orphan.deployment.to_string(),
            instance: orphan.slug,
            az: orphan.az.map(|az| az.to_string()).unwrap_or_default(),
            ips: orphan.vm.networks.iter().filter_map(|n| n.ip).map(|ip| ip.to_string()).collect(),
            orphaned_at_unix_ms: orphan.orphaned_at.0,
        };
        Ok(Response::new(pb::ListOrphanedVmsResponse {
            vms: rows.into_iter().map(row).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }
}

#[cfg(test)]
#[path = "instances_tests.rs"]
mod tests;
