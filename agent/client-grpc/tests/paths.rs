//! The two ways to an agent, as the health watcher takes them: a way that is cut is not the agent's death.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_api::{Agents as _, Method, Mode, Request};
use agent_client_grpc::{HubOptions, RemoteAgents};
use async_trait::async_trait;
use health::assess::Policy;
use health::watcher::{self, ASK_WITHIN};
use health::{Beats, Failed, Health, Transition, Unhealthy, Watched, World};
use model::{AgentId, DeploymentName, Epoch, InstanceId, NodeId};
use owned_tasks::{OnExit, OwnedTasks};
use support::{Fleet, OPTIONS, TestAgent, until};

/// A stream that is silent is kept for longer than the test takes, so that its end saves nobody.
const STUBBORN: HubOptions = HubOptions { silence_max: Duration::from_secs(600), ..OPTIONS };

/// Quicker than the real one, as the heartbeats are.
const QUICK: Policy = Policy {
    suspect_after: Duration::from_secs(1),
    boot_grace: Duration::from_secs(60),
    listened_min: Duration::from_millis(500),
    suspicion_counts_after: Duration::from_secs(1),
    ask_dead_every: Duration::from_secs(2),
};

fn ping(timeout: Duration) -> Request {
    let id = format!("ping-{}", rand_id());
    Request { id: id.into(), epoch: Epoch(1), mode: Mode::Submit, timeout, method: Method::Ping }
}

fn rand_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The world of replica 0, which watches one agent and asks it as a director does.
struct OneAgent {
    agents: RemoteAgents,
    watched: Mutex<Watched>,
    answered: Mutex<usize>,
    found: Mutex<Vec<Health>>,
}

#[async_trait]
impl World for OneAgent {
    fn node(&self) -> NodeId {
        NodeId(0)
    }

    fn shard_map(&self) -> (u64, BTreeSet<NodeId>) {
        (1, BTreeSet::from([NodeId(0)]))
    }

    fn epoch(&self) -> u64 {
        1
    }

    async fn watched(&self) -> Arc<Vec<Watched>> {
        Arc::new(vec![self.watched.lock().unwrap().clone()])
    }

    async fn ask(&self, agent: &AgentId) -> bool {
        // More patient than a director: how quick an agent is on a busy machine is another question.
        let answered = self.agents.call(agent, ping(support::PATIENCE)).await.is_ok();
        *self.answered.lock().unwrap() += usize::from(answered);
        answered
    }

    async fn report_jobs(&self, _: u64, jobs: Vec<(AgentId, bool)>) {
        for (_, run) in jobs {
            self.watched.lock().unwrap().jobs_run = Some(run);
        }
    }

    async fn report(&self, _: u64, transitions: Vec<Transition>) {
        for found in transitions {
            self.watched.lock().unwrap().agreed = found.health;
            self.found.lock().unwrap().push(found.health);
        }
    }

    fn leads(&self) -> bool {
        false
    }

    fn able_to_watch(&self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }

    async fn put_shard_map(&self, _: u64, _: BTreeSet<NodeId>) {}

    async fn unhealthy(&self) -> Arc<Vec<Unhealthy>> {
        Arc::default()
    }

    async fn resurrect(&self, _: &DeploymentName, _: Vec<InstanceId>) {}

    async fn put_meltdown(&self, _: &DeploymentName, _: Option<Failed>) {}
}

/// Lets replica 0 watch an agent, until the tasks end.
fn watch(fleet: &Fleet, agent: &AgentId, agreed: Health) -> (Arc<OneAgent>, OwnedTasks) {
    let (agent, beats) = (agent.clone(), Beats::Often);
    let watched = Watched { agent, deployment: "web".into(), agreed, in_work: false, jobs_run: None, beats };
    let world = Arc::new(OneAgent {
        agents: fleet.replicas[0].agents.clone(),
        watched: Mutex::new(watched),
        answered: Mutex::default(),
        found: Mutex::default(),
    });
    let (tasks, ears, watching) = (OwnedTasks::new(), fleet.replicas[0].ears.clone(), world.clone());
    tasks.spawn("watcher", OnExit::Ignore, |stop| watcher::run(watching, ears, QUICK, stop));
    (world, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_way_home_is_cut_is_not_called_dead() {
    let fleet = Fleet::start_with(3, STUBBORN);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 0).await;
    let (world, tasks) = watch(&fleet, &agent.id, Health::Alive);

    fleet.replicas[0].wire.cut();
    until("answers by another way", || *world.answered.lock().unwrap() >= 3).await;
    assert!(fleet.replicas[0].hub.holds(&agent.id), "its old stream has not ended where it was");
    assert!(!world.found.lock().unwrap().contains(&Health::Dead), "{:?}", world.found.lock().unwrap());
    assert!(tasks.stop(support::PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_accepts_a_connection_and_says_nothing_keeps_no_agent() {
    let fleet = Fleet::start(2);
    fleet.rehome(0).await;
    // As a paused director behind a relay: whoever is asked first sends the agent there.
    fleet.replicas[0].wire.cut();
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_called_dead_comes_back_where_its_watcher_does_not_hear_it() {
    let fleet = Fleet::start_with(3, STUBBORN);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 0).await;
    fleet.replicas[0].wire.cut();
    until("another director", || fleet.replicas[1..].iter().any(|replica| replica.hub.holds(&agent.id)))
        .await;
    let (world, tasks) = watch(&fleet, &agent.id, Health::Dead);
    until("an answer", || world.found.lock().unwrap().as_slice() == [Health::Alive]).await;
    assert!(tasks.stop(support::PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_is_never_sent_to_the_replica_that_an_agent_has_left() {
    let fleet = Fleet::start_with(3, STUBBORN);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    fleet.until_at(&agent.id, 0).await;
    fleet.replicas[0].wire.cut();
    until("another director", || fleet.replicas[1..].iter().any(|replica| replica.hub.holds(&agent.id)))
        .await;
    // Both claim it, if the one that it has left is not careful, and whichever is quicker gets the request.
    for replica in &fleet.replicas {
        for _ in 0..20 {
            let answer = replica.agents.call(&agent.id, ping(Duration::from_secs(5))).await;
            assert_eq!(answer.unwrap().0, "pong");
        }
    }
    assert!(fleet.replicas[0].hub.holds(&agent.id));
}

#[test]
fn an_agent_has_the_time_to_find_another_director_before_it_is_called_dead() {
    let (options, policy) = (HubOptions::default(), Policy::default());
    let dead_after = policy.suspect_after + ASK_WITHIN;
    let gone_after = dagent::leaves_within(options.heartbeat_interval);
    let to_dial = Duration::from_millis(1500);
    assert!(gone_after + to_dial <= dead_after, "{gone_after:?} and a dial, against {dead_after:?}");
    assert!(
        policy.suspect_after > options.heartbeat_interval * 2,
        "a suspect's silent stream is not trusted any more when the suspect is asked"
    );
    assert!(policy.listened_min > options.heartbeat_interval);
}
