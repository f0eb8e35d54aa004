//! What the rules are fed with and how they act: the seam to the server.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use model::{AgentId, DeploymentName, InstanceId, NodeId};

/// An agent's health as the fleet agreed on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not heard from yet.
    New,
    /// Heartbeats come.
    Alive,
    /// Silent; being confirmed.
    Suspect,
    /// Dead for all that two ways of looking can tell.
    Dead,
}

/// How often an agent says that it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beats {
    /// Every few seconds: our agents.
    #[default]
    Often,
    /// Every half minute, and it may answer nobody for a minute while it starts jobs: BOSH's agents.
    Seldom,
}

/// An agent to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The agent.
    pub agent: AgentId,
    /// Its deployment: what shards are cut by.
    pub deployment: DeploymentName,
    /// What the fleet agreed on last.
    pub agreed: Health,
    /// Whether a task is working on the deployment: VMs come and go then, and nobody is judged.
    pub in_work: bool,
    /// Whether its jobs run, as the fleet knows it; none if that is not known yet.
    pub jobs_run: Option<bool>,
    /// How often it says that it lives.
    pub beats: Beats,
}

/// A finding to be agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The agent.
    pub agent: AgentId,
    /// What it is now.
    pub health: Health,
    /// What was seen, for operators.
    pub reason: String,
}

/// A deployment with failures, or in meltdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// The deployment.
    pub deployment: DeploymentName,
    /// Whether a task is working on it: what fails then is the task's affair.
    pub in_work: bool,
    /// Its instances that should have a VM.
    pub wanted: BTreeSet<InstanceId>,
    /// Those whose agent is dead.
    pub dead: BTreeSet<InstanceId>,
    /// Those that have no VM.
    pub missing: BTreeSet<InstanceId>,
    /// The meltdown as the fleet knows it.
    pub meltdown: Option<Failed>,
}

/// How much of a deployment has failed lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Instances that have failed, also those that were healed since.
    pub unhealthy: usize,
    /// Instances that should have a VM.
    pub total: usize,
}

/// The fleet as health sees it.
#[async_trait]
pub trait World: Send + Sync {
    /// Returns this replica.
    fn node(&self) -> NodeId;
    /// Returns the number and watchers of the shard map that this replica knows.
    fn shard_map(&self) -> (u64, BTreeSet<NodeId>);
    /// Returns the epoch: when it moves, streams have moved too, and deadlines are extended.
    fn epoch(&self) -> u64;
    /// Returns all agents. Asked every second: cheap while nothing changes, and never on the threads that serve everybody.
    async fn watched(&self) -> Arc<Vec<Watched>>;
    /// Asks an agent by whatever way there is, not counting heartbeats; `true` if it answered, with whatever answer.
    /// Takes at most [`ASK_WITHIN`](crate::watcher::ASK_WITHIN). Safe to drop.
    async fn ask(&self, agent: &AgentId) -> bool;
    /// Has findings agreed on, as the watcher of map `number`. Findings under an old map are refused, and that is fine.
    /// Safe to drop.
    async fn report(&self, number: u64, transitions: Vec<Transition>);
    /// Has it known which agents' jobs run, and which ones' do not any more, as the watcher of map `number`. Safe to drop.
    async fn report_jobs(&self, number: u64, jobs: Vec<(AgentId, bool)>);

    /// Returns whether this replica leads.
    fn leads(&self) -> bool;
    /// Returns the replicas that can watch right now: the followers that are heard, or the leader if it is alone; nobody
    /// while that can't be said yet.
    fn able_to_watch(&self) -> BTreeSet<NodeId>;
    /// Has a new map agreed on.
    async fn put_shard_map(&self, number: u64, watchers: BTreeSet<NodeId>);
    /// Returns the deployments that have failures or are in meltdown. Asked every second: cheap while nothing changes.
    async fn unhealthy(&self) -> Arc<Vec<Unhealthy>>;
    /// Asks for new VMs. Idempotent while an earlier request is still open, also across leaders; does nothing while
    /// resurrection is off, or rests after an attempt.
    async fn resurrect(&self, deployment: &DeploymentName, instances: Vec<InstanceId>);
    /// Has it known that a deployment is in meltdown and left alone, or is so no more.
    async fn put_meltdown(&self, deployment: &DeploymentName, failed: Option<Failed>);
}
