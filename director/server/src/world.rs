//! The fleet as health sees it.

mod look;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_api::{AgentError, Agents, Method, Mode, Request};
use async_trait::async_trait;
use health::watcher::ASK_WITHIN;
use health::{Failed, Health, Transition, Unhealthy, Watched, World};
use model::{AgentId, DeploymentName, InstanceId, NodeId, RequestId, Revision};
use raft::Node;
use state::State;
use state::command::{Command, SECOND_LEVEL};
use state::log::{CommandLog as _, Proposal};
use state::records::{AgentHealth, AgentJobs, AgentTransition, FailedShare, ShardMap};
use tracing::{debug, warn};

use crate::fleet::log::RaftLog;

/// A follower that was heard within this time can watch; a leader that has led for so long has heard whoever is there.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Something read from the whole state, kept for as long as nothing changes: health looks every second, and an idle
/// fleet of ten thousand agents should cost nothing.
struct Kept<T>(Mutex<Option<(Revision, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Default + Send + Sync + 'static> Kept<T> {
    /// Returns what `read` finds, from before if nothing has changed since. Tables are scanned off the threads that
    /// serve everybody.
    async fn get(&self, log: &RaftLog, read: impl Fn(&State<'_>) -> T + Send + 'static) -> Arc<T> {
        // Before the look: what is kept may be newer than it says, never older.
        let revision = log.revision();
        if let Some((at, kept)) = &*self.lock()
            && *at == revision
        {
            return kept.clone();
        }
        let view = log.view();
        let found = owned_tasks::aside(move || read(&State::new(&*view))).await;
        match found {
            Ok(found) => {
                let found = Arc::new(found);
                *self.lock() = Some((revision, found.clone()));
                found
            }
            Err(error) => {
                warn!(error = %error, "health could not read the state");
                Arc::default()
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Revision, Arc<T>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    bus: look::Bus,
    watched: Kept<Vec<Watched>>,
    unhealthy: Kept<Vec<Unhealthy>>,
    rests: Mutex<look::Rests>,
}

fn stored(health: Health) -> AgentHealth {
    match health {
        Health::New => AgentHealth::New,
        Health::Alive => AgentHealth::Alive,
        Health::Suspect => AgentHealth::Suspect,
        Health::Dead => AgentHealth::Dead,
    }
}

/// Returns whether an agent has given any answer. A refusal is one too: a replica whose state lags behind an election asks
/// under an old epoch, and an agent that says so is alive.
fn answered(asked: &Result<agent_api::Reply, AgentError>) -> bool {
    match asked {
        Ok(_) => true,
        Err(AgentError::Unreachable { .. } | AgentError::TimedOut { .. } | AgentError::Cancelled { .. }) => {
            false
        }
        Err(
            AgentError::Failed { .. }
            | AgentError::UnknownMethod { .. }
            | AgentError::UnknownRequest { .. }
            | AgentError::StaleEpoch { .. },
        ) => true,
    }
}

impl FleetWorld {
    /// Makes a replica's view of the world.
    pub fn new(id: NodeId, node: Node, log: RaftLog, agents: Arc<dyn Agents>) -> Self {
        let (watched, unhealthy, rests) = (Kept::default(), Kept::default(), Mutex::default());
        Self { id, node, log, agents, bus: look::Bus::None, watched, unhealthy, rests }
    }

    /// Says whether there is a bus of BOSH's agents, who say more seldom that they live.
    pub fn with_bus(self, is_there: bool) -> Self {
        Self { bus: if is_there { look::Bus::There } else { look::Bus::None }, ..self }
    }

    async fn own(&self, what: &'static str, command: Command) {
        self.propose(what, Proposal::own(command)).await;
    }

    async fn propose(&self, what: &'static str, proposal: Proposal) {
        match self.log.propose(proposal).await {
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

    async fn watched(&self) -> Arc<Vec<Watched>> {
        let bus = self.bus;
        self.watched.get(&self.log, move |state| look::watched(state, bus)).await
    }

    async fn ask(&self, agent: &AgentId) -> bool {
        let request = Request {
            id: RequestId::new(format!("health-{}", uuid::Uuid::new_v4())),
            epoch: model::Epoch(self.epoch()),
            mode: Mode::Submit,
            timeout: ASK_WITHIN,
            method: Method::Ping,
        };
        answered(&self.agents.call(agent, request).await)
    }

    async fn report(&self, number: u64, transitions: Vec<Transition>) {
        let transitions = transitions
            .into_iter()
            .map(|t| AgentTransition { agent: t.agent, health: stored(t.health), reason: t.reason })
            .collect();
        self.own("health", Command::AgentTransitions { shard_epoch: number, transitions }).await;
    }

    async fn report_jobs(&self, number: u64, jobs: Vec<(AgentId, bool)>) {
        let knows = {
            let view = self.log.view();
            State::new(&*view).feature_level().is_none_or(|level| level >= SECOND_LEVEL)
        };
        if !knows {
            return;
        }
        let jobs = jobs.into_iter().map(|(agent, run)| AgentJobs { agent, run }).collect();
        self.own("jobs", Command::AgentsJobs { shard_epoch: number, jobs }).await;
    }

    fn leads(&self) -> bool {
        self.node.leadership().is_some_and(|l| l.holds())
    }

    fn able_to_watch(&self) -> BTreeSet<NodeId> {
        let Some(leadership) = self.node.leadership() else { return BTreeSet::new() };
        let heard = |m: &&raft::MemberStatus| m.last_heard.is_some_and(|at| at.elapsed() < HEARD_WITHIN);
        let members = self.node.status().members;
        let voters = || members.iter().filter(|m| m.voter && m.id != self.id.0);
        let others = look::Others {
            voters: voters().map(|m| NodeId(m.id)).collect(),
            heard: voters().filter(heard).map(|m| NodeId(m.id)).collect(),
            settled: leadership.since.elapsed() >= HEARD_WITHIN,
        };
        look::able_to_watch(self.id, others)
    }

    async fn put_shard_map(&self, number: u64, watchers: BTreeSet<NodeId>) {
        let Some(leadership) = self.node.leadership() else { return };
        let map = ShardMap { number, watchers };
        self.own("shard map", Command::ShardMapPut { epoch: model::Epoch(leadership.term), map }).await;
    }

    async fn unhealthy(&self) -> Arc<Vec<Unhealthy>> {
        self.unhealthy.get(&self.log, look::unhealthy).await
    }

    async fn resurrect(&self, deployment: &DeploymentName, instances: Vec<InstanceId>) {
        let count = instances.len();
        let proposal = {
            let view = self.log.view();
            let state = State::new(&*view);
            let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
            let may =
                !state.resurrection_paused() && rests.is_over(deployment, look::rest(&state, deployment));
            may.then(|| look::resurrection(&state, deployment, instances))
        };
        let Some(proposal) = proposal else { return };
        warn!(deployment = %deployment, instances = count, "resurrecting");
        self.propose("resurrection", proposal).await;
    }

    async fn put_meltdown(&self, deployment: &DeploymentName, failed: Option<Failed>) {
        let Some(leadership) = self.node.leadership() else { return };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let failed = failed.map(|f| FailedShare { unhealthy: count(f.unhealthy), total: count(f.total) });
        let epoch = model::Epoch(leadership.term);
        let command = Command::MeltdownPut { epoch, deployment: deployment.clone(), failed };
        self.own("meltdown", command).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_an_agent_is_a_sign_of_life() {
        let agent = || AgentId::new("a");
        let refused = AgentError::StaleEpoch { agent: agent(), current: model::Epoch(2) };
        assert!(answered(&Err(refused)));
        assert!(answered(&Err(AgentError::UnknownMethod { method: "ping".into() })));
        assert!(answered(&Ok(agent_api::Reply(serde_json::Value::Null))));
        assert!(!answered(&Err(AgentError::Unreachable { agent: agent() })));
        assert!(!answered(&Err(AgentError::TimedOut {
            agent: agent(),
            method: "ping",
            timeout: ASK_WITHIN
        })));
    }
}
