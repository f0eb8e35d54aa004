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

/// A deployment with failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// The deployment.
    pub deployment: DeploymentName,
    /// How many of its instances should have a VM.
    pub total: usize,
    /// Those whose VM is dead or missing, and since when (milliseconds since the epoch).
    pub instances: Vec<(InstanceId, i64)>,
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

    /// Returns whether this replica leads.
    fn leads(&self) -> bool;
    /// Returns the replicas that can watch right now: the followers that are heard, or the leader if it is alone; nobody
    /// while that can't be said yet.
    fn able_to_watch(&self) -> BTreeSet<NodeId>;
    /// Has a new map agreed on.
    async fn put_shard_map(&self, number: u64, watchers: BTreeSet<NodeId>);
    /// Returns deployments that nobody works on, that may be resurrected, and that have failures.
    async fn unhealthy(&self) -> Vec<Unhealthy>;
    /// Asks for new VMs. Idempotent while an earlier request is still open, also across leaders.
    async fn resurrect(&self, deployment: &DeploymentName, instances: Vec<InstanceId>);
    /// Tells operators that a deployment is left alone.
    async fn tell_meltdown(&self, deployment: &DeploymentName, unhealthy: usize, total: usize);
}
