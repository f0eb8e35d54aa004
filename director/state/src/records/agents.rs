//! Agents, how they are, and who watches them.

use std::collections::BTreeSet;

use model::*;
use serde::{Deserialize, Serialize};

/// An agent that may connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Its id.
    pub agent: AgentId,
    /// The instance whose VM it is in.
    pub instance: InstanceId,
    /// That instance's deployment.
    pub deployment: DeploymentName,
    /// When it was authorised; the clock of an agent never heard from starts here.
    pub authorised_at: Timestamp,
    /// Digest of the key it enrolled with.
    pub key_digest: Option<String>,
    /// Its health as the watchers agreed.
    pub health: AgentHealth,
    /// Since when.
    pub health_since: Timestamp,
    /// How often its token was replaced, because a VM that had got it was gone before anybody knew it.
    #[serde(default)]
    pub token_generation: u32,
    /// Whether its VM was introduced to the instance, as the VM's row says; here so that nobody needs to read that.
    #[serde(default = "is_bound")]
    pub bound: bool,
    /// Whether all its jobs run, as it said last; none if it has said nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs_run: Option<bool>,
    /// What it proves with on its bus who it is; none for one of ours, and for one that was let in by an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<BusCertificate>,
    /// What a step is about to give it instead. What it has stays good beside that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<OfferedCertificate>,
}

/// What is remembered of a certificate for a bus of BOSH's agents. Itself and its key, nobody has but the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusCertificate {
    /// Its number, in hex. Offered once more by the same step, it has the same one, with another key.
    pub serial: String,
    /// When it ends.
    pub until: Timestamp,
    /// Digest of what the agent is told with it: the servers' addresses and their authority.
    pub bus: String,
}

/// A certificate that a step is about to give an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedCertificate {
    /// The step's task.
    pub task: TaskId,
    /// The step.
    pub step: StepNo,
    /// The certificate.
    pub certificate: BusCertificate,
}

/// Rows of earlier versions do not say; most of their VMs are.
fn is_bound() -> bool {
    true
}

/// An agent's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentHealth {
    /// Not heard from yet.
    #[default]
    New,
    /// Heartbeats come.
    Alive,
    /// Heartbeats stopped; being confirmed.
    Suspect,
    /// Dead for all that two ways of looking can tell.
    Dead,
}

/// A watcher's finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTransition {
    /// The agent.
    pub agent: AgentId,
    /// What it is now.
    pub health: AgentHealth,
    /// What the watcher saw, for the operator.
    pub reason: String,
}

/// What an agent says of its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentJobs {
    /// The agent.
    pub agent: AgentId,
    /// Whether all of them run.
    pub run: bool,
}

/// Which replica watches which deployments' agents: rendezvous hashing over `watchers` under this number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Counts up with each change.
    pub number: u64,
    /// Replicas that watch; the leader is not among them unless it is alone.
    pub watchers: BTreeSet<NodeId>,
}

/// A deployment so much of which has failed at once that nothing of it is resurrected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meltdown {
    /// The deployment.
    pub deployment: DeploymentName,
    /// How much has failed.
    pub failed: FailedShare,
    /// Since when.
    pub since: Timestamp,
}

/// How much of a deployment has failed lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedShare {
    /// Instances that have failed, also those that were healed since.
    pub unhealthy: u32,
    /// Instances that should have a VM.
    pub total: u32,
}
