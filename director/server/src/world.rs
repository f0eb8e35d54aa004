//! The fleet as health sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent_api::{Agents, Method, Mode, Request};
use async_trait::async_trait;
use health::{Health, Transition, Unhealthy, Watched, World};
use model::instance::Instance;
use model::task::{TaskKind, TaskState};
use model::{AgentId, DeploymentName, InstanceId, LockName, NodeId, RequestId};
use raft::Node;
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use state::query::TaskFilter;
use state::records::{AgentHealth, AgentTransition, ShardMap};
use tracing::{debug, warn};

use crate::fleet::log::RaftLog;

/// How long a suspect may take to answer.
const ASK: Duration = Duration::from_secs(3);

/// A follower that was heard within this time can watch.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Time between two resurrections of one deployment: a failed attempt must not be repeated every second.
const RESURRECT_PAUSE_MS: i64 = 10_000;

/// This replica's view of the world.
pub struct FleetWorld {
    /// This replica.
    pub id: NodeId,
    /// Consensus.
    pub node: Node,
    /// The log.
    pub log: RaftLog,
    /// Agents, by any way.
    pub agents: Arc<dyn Agents>,
}

fn health_of(health: AgentHealth) -> Health {
    match health {
        AgentHealth::New => Health::New,
        AgentHealth::Alive => Health::Alive,
        AgentHealth::Suspect => Health::Suspect,
        AgentHealth::Dead => Health::Dead,
    }
}

fn stored(health: Health) -> AgentHealth {
    match health {
        Health::New => AgentHealth::New,
        Health::Alive => AgentHealth::Alive,
        Health::Suspect => AgentHealth::Suspect,
        Health::Dead => AgentHealth::Dead,
    }
}

impl FleetWorld {
    async fn own(&self, what: &'static str, command: Command) {
        match self.log.propose(Proposal::own(command)).await {
            Ok(committed) => {
                if let Err(refusal) = committed.outcome.accepted() {
                    debug!(what, %refusal, "refused");
                }
            }
            Err(error) => warn!(what, error = %error, "not recorded"),
        }
    }
}

#[async_trait]
impl World for FleetWorld {
    fn node(&self) -> NodeId {
        self.id
    }

    fn shard_map(&self) -> (u64, BTreeSet<NodeId>) {
        let view = self.log.view();
        let map = State::new(&*view).shard_map();
        (map.number, map.watchers)
    }

    fn epoch(&self) -> u64 {
        let view = self.log.view();
        State::new(&*view).epoch().0
    }

    fn watched(&self) -> Vec<Watched> {
        let view = self.log.view();
        let state = State::new(&*view);
        let busy = state.deployments_in_work();
        let watched = |agent: state::records::AgentRecord| Watched {
            agent: agent.agent,
            in_work: busy.contains(&agent.deployment),
            deployment: agent.deployment,
            agreed: health_of(agent.health),
        };
        state.agents().into_iter().map(watched).collect()
    }

    async fn ask(&self, agent: &AgentId) -> bool {
        let request = Request {
            id: RequestId::new(format!("health-{}", uuid::Uuid::new_v4())),
            epoch: model::Epoch(self.epoch()),
            mode: Mode::Submit,
            timeout: ASK,
            method: Method::Ping,
        };
        self.agents.call(agent, request).await.is_ok()
    }

    async fn report(&self, number: u64, transitions: Vec<Transition>) {
        let transitions = transitions
            .into_iter()
            .map(|t| AgentTransition { agent: t.agent, health: stored(t.health), reason: t.reason })
            .collect();
        self.own("health", Command::AgentTransitions { shard_epoch: number, transitions }).await;
    }

    fn leads(&self) -> bool {
        self.node.leadership().is_some_and(|l| l.holds())
    }

    fn able_to_watch(&self) -> BTreeSet<NodeId> {
        let heard = |m: &raft::MemberStatus| m.last_heard.is_some_and(|at| at.elapsed() < HEARD_WITHIN);
        let members = self.node.status().members;
        let able: BTreeSet<NodeId> = members
            .iter()
            .filter(|m| m.voter && m.id != self.id.0 && heard(m))
            .map(|m| NodeId(m.id))
            .collect();
        if able.is_empty() { BTreeSet::from([self.id]) } else { able }
    }

    async fn put_shard_map(&self, number: u64, watchers: BTreeSet<NodeId>) {
        let Some(leadership) = self.node.leadership() else { return };
        let map = ShardMap { number, watchers };
        self.own("shard map", Command::ShardMapPut { epoch: model::Epoch(leadership.term), map }).await;
    }

    fn unhealthy(&self) -> Vec<Unhealthy> {
        let view = self.log.view();
        let state = State::new(&*view);
        if state.resurrection_paused() {
            return Vec::new();
        }
        let busy = state.deployments_in_work();
        let dead: BTreeMap<AgentId, i64> = state
            .agents()
            .into_iter()
            .filter(|a| a.health == AgentHealth::Dead)
            .map(|a| (a.agent, a.health_since.0))
            .collect();
        if dead.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for deployment in state.deployments().into_iter().filter(|d| !busy.contains(&d.name)) {
            let wanted: Vec<Instance> = state
                .instances(&deployment.name)
                .into_iter()
                .filter(|i| i.expects_vm() && !i.ignore)
                .collect();
            let since = |instance: &Instance| {
                let vm = state.active_vm(&instance.spec.id)?;
                dead.get(&vm.agent).map(|since| (instance.spec.id.clone(), *since))
            };
            let instances: Vec<(InstanceId, i64)> = wanted.iter().filter_map(since).collect();
            if !instances.is_empty() {
                found.push(Unhealthy { deployment: deployment.name, total: wanted.len(), instances });
            }
        }
        found
    }

    async fn resurrect(&self, deployment: &DeploymentName, instances: Vec<InstanceId>) {
        let pause_until = {
            let view = self.log.view();
            let filter =
                TaskFilter { deployment: Some(deployment.clone()), limit: Some(1), ..TaskFilter::default() };
            State::new(&*view)
                .tasks(&filter)
                .first()
                .filter(|t| matches!(t.kind, TaskKind::ScanAndFix { .. }))
                .map(|t| {
                    if t.state == TaskState::Queued { i64::MAX } else { t.updated_at.0 + RESURRECT_PAUSE_MS }
                })
        };
        if pause_until.is_some_and(|until| crate::fleet::log::now().0 < until) {
            return;
        }
        warn!(deployment = %deployment, instances = instances.len(), "resurrecting");
        let locks = vec![LockName::new(format!("lock:deployment:{deployment}"))];
        let kind = TaskKind::ScanAndFix { instances };
        let command = Command::TaskQueue {
            kind,
            deployment: Some(deployment.clone()),
            context_id: String::new(),
            locks,
        };
        self.own("resurrection", command).await;
    }

    async fn tell_meltdown(&self, deployment: &DeploymentName, unhealthy: usize, total: usize) {
        let percent = unhealthy as f64 / total.max(1) as f64 * 100.0;
        warn!(
            deployment = %deployment,
            "We are in meltdown: {unhealthy} of {total} agents are unhealthy ({percent:.1}%), nothing is resurrected"
        );
    }
}
