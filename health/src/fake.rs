//! A world for tests: what it says is set by the test, what it is told is kept.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use model::{AgentId, DeploymentName, InstanceId, NodeId};
use tokio::time::Instant;

use crate::world::{Beats, Failed, Health, Transition, Unhealthy, Watched, World};

/// What a suspect does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Answers,
    /// After all the time that it is given.
    SaysNothing,
}

pub(crate) struct Inner {
    pub map: (u64, BTreeSet<NodeId>),
    pub epoch: u64,
    pub watched: Vec<Watched>,
    pub asked: Asked,
    /// Those that answer in any case.
    pub answering: BTreeSet<AgentId>,
    /// Suspects that were asked.
    pub asked_count: usize,
    /// Whether reports wait for a leader for ever.
    pub leaderless: bool,
    /// Findings that were agreed on, and when.
    pub reports: Vec<(Instant, u64, Transition)>,
    /// What was told of jobs, and agreed on.
    pub jobs: Vec<(AgentId, bool)>,
    pub leads: bool,
    pub able: BTreeSet<NodeId>,
    pub maps: Vec<(u64, BTreeSet<NodeId>)>,
    pub unhealthy: Vec<Unhealthy>,
    pub resurrected: Vec<(DeploymentName, Vec<InstanceId>)>,
    /// What was made known of meltdowns.
    pub meltdowns: Vec<Option<Failed>>,
}

/// The world of replica 1, which watches everything.
pub(crate) struct FakeWorld(pub Mutex<Inner>);

impl FakeWorld {
    pub fn new() -> Arc<Self> {
        let own = BTreeSet::from([NodeId(1)]);
        Arc::new(Self(Mutex::new(Inner {
            map: (1, own.clone()),
            epoch: 1,
            watched: Vec::new(),
            asked: Asked::SaysNothing,
            answering: BTreeSet::new(),
            asked_count: 0,
            leaderless: false,
            reports: Vec::new(),
            jobs: Vec::new(),
            leads: true,
            able: own,
            maps: Vec::new(),
            unhealthy: Vec::new(),
            resurrected: Vec::new(),
            meltdowns: Vec::new(),
        })))
    }

    /// Sets or reads something.
    pub fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Agents `0..count` of one deployment, all of which are known to be alive.
    pub fn watch(&self, count: usize) {
        let agent = |n: usize| Watched {
            agent: AgentId::new(n.to_string()),
            deployment: "web".into(),
            agreed: Health::Alive,
            in_work: false,
            jobs_run: None,
            beats: Beats::Often,
        };
        self.with(|w| w.watched = (0..count).map(agent).collect());
    }

    /// Agents that were reported dead.
    pub fn dead(&self) -> BTreeSet<AgentId> {
        self.told(Health::Dead).into_iter().map(|(_, _, found)| found.agent).collect()
    }

    /// Reports of one kind.
    pub fn told(&self, health: Health) -> Vec<(Instant, u64, Transition)> {
        self.with(|w| w.reports.iter().filter(|r| r.2.health == health).cloned().collect())
    }
}

#[async_trait]
impl World for FakeWorld {
    fn node(&self) -> NodeId {
        NodeId(1)
    }

    fn shard_map(&self) -> (u64, BTreeSet<NodeId>) {
        self.with(|w| w.map.clone())
    }

    fn epoch(&self) -> u64 {
        self.with(|w| w.epoch)
    }

    async fn watched(&self) -> Arc<Vec<Watched>> {
        Arc::new(self.with(|w| w.watched.clone()))
    }

    async fn ask(&self, agent: &AgentId) -> bool {
        let asked = self.with(|w| {
            w.asked_count += 1;
            if w.answering.contains(agent) { Asked::Answers } else { w.asked }
        });
        if asked == Asked::SaysNothing {
            tokio::time::sleep(crate::watcher::ASK_WITHIN).await;
        }
        asked == Asked::Answers
    }

    async fn report(&self, number: u64, transitions: Vec<Transition>) {
        if self.with(|w| w.leaderless) {
            std::future::pending::<()>().await;
        }
        let now = Instant::now();
        self.with(|w| {
            // As the state does: what was found under an old map is refused.
            for found in transitions.into_iter().filter(|_| number == w.map.0) {
                if let Some(agent) = w.watched.iter_mut().find(|a| a.agent == found.agent) {
                    agent.agreed = found.health;
                }
                w.reports.push((now, number, found));
            }
        });
    }

    async fn report_jobs(&self, _number: u64, jobs: Vec<(AgentId, bool)>) {
        if self.with(|w| w.leaderless) {
            std::future::pending::<()>().await;
        }
        self.with(|w| {
            for (agent, run) in jobs {
                if let Some(watched) = w.watched.iter_mut().find(|watched| watched.agent == agent) {
                    watched.jobs_run = Some(run);
                }
                w.jobs.push((agent, run));
            }
        });
    }

    fn leads(&self) -> bool {
        self.with(|w| w.leads)
    }

    fn able_to_watch(&self) -> BTreeSet<NodeId> {
        self.with(|w| w.able.clone())
    }

    async fn put_shard_map(&self, number: u64, watchers: BTreeSet<NodeId>) {
        self.with(|w| {
            w.map = (number, watchers.clone());
            w.maps.push((number, watchers));
        });
    }

    async fn unhealthy(&self) -> Arc<Vec<Unhealthy>> {
        Arc::new(self.with(|w| w.unhealthy.clone()))
    }

    async fn resurrect(&self, deployment: &DeploymentName, instances: Vec<InstanceId>) {
        self.with(|w| w.resurrected.push((deployment.clone(), instances)));
    }

    async fn put_meltdown(&self, deployment: &DeploymentName, failed: Option<Failed>) {
        self.with(|w| {
            w.meltdowns.push(failed);
            for unhealthy in w.unhealthy.iter_mut().filter(|u| u.deployment == *deployment) {
                unhealthy.meltdown = failed;
            }
        });
    }
}

/// Lets a loop of the crate live through some seconds, one by one, as real time passes.
pub(crate) async fn seconds(count: u64) {
    for _ in 0..count {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
