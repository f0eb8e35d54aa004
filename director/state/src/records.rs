//! Rows of the state's tables that are not nouns of the [`model`].

mod agents;
mod asked;
mod brought;
mod dns;
mod dynamic_disks;
mod latecomers;
mod links;
mod networks;
mod orphans;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::instance::AddressKind;
use model::plan::{DeploymentRecord, Unit};
use model::step::StepOutcome;
use model::*;
use serde::{Deserialize, Serialize};

pub use agents::{AgentHealth, AgentJobs, AgentRecord, AgentTransition, BusCertificate, OfferedCertificate};
pub use agents::{FailedShare, Meltdown, ShardMap};
pub use asked::{AskedOfAgent, AskedStage};
pub use brought::{BroughtBlob, BroughtByAgent};
pub use dns::DnsBlob;
pub use dynamic_disks::DynamicDeed;
pub use latecomers::{Latecomer, Orphan, Sought};
pub(crate) use links::LinkNumbers;
pub use links::{Link, LinkConsumer, LinkProvider};
pub use networks::SubnetIntent;
pub use orphans::{OrphanedDisk, OrphanedVm};
pub use users::{User, UserToken};

pub use model::sealed::Sealed;
pub(crate) use model::sealed::bytes;

/// Secrets that all replicas share, encrypted under the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSecrets {
    /// Certificate of the authority for replicas and agents, PEM. Public.
    pub authority_pem: String,
    /// Its private key.
    pub authority_key: Sealed,
}

/// The cluster's own row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Random id; a data folder of another cluster is refused by it.
    pub cluster_id: String,
    /// Name shown to operators, part of variable names and VM metadata.
    pub director_name: String,
    /// As BOSH's director uuid.
    pub director_uuid: String,
    /// Shared secrets.
    pub secrets: FleetSecrets,
    /// The current leader's epoch.
    pub epoch: Epoch,
    /// Who leads under it.
    pub leader: NodeId,
    /// Whether resurrection is paused.
    #[serde(default)]
    pub resurrection_paused: bool,
    /// Whether directors make networks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub managed_networks: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A global switch or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Pauses resurrection everywhere.
    ResurrectionPaused(bool),
    /// Whether directors make networks. Can't be switched off while deployments use some.
    ManagedNetworks(bool),
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` for clients.
    pub api_address: String,
    /// `host:port` for replicas.
    pub peer_address: String,
    /// `host:port` for agents.
    pub agent_address: String,
    /// Version of its program.
    pub version: String,
    /// The newest entry format it reads.
    pub feature_level: u32,
}

/// A single-use token that lets a replica join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// It is refused after this.
    pub expires_at: Timestamp,
    /// Who used it: digest of its key and its number.
    #[serde(default)]
    pub used_by: Option<(String, NodeId)>,
}

/// What is known of a blob. The bytes are beside the replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Its address.
    pub digest: BlobDigest,
    /// Its size.
    pub size_bytes: u64,
    /// Replicas that hold a copy.
    pub nodes: BTreeSet<NodeId>,
    /// When it was first held.
    pub created_at: Timestamp,
}

/// A blob that what was deleted had named. It is forgotten unless something else names it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgettable {
    /// The last task that was open then: it, and those before it, may have found the blob, and name it later.
    pub task: TaskId,
    /// Since when.
    pub since: Timestamp,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub name: DeploymentName,
    /// Moves with every committed plan and every change that a plan depends on.
    pub generation: u64,
    /// The last success; none before the first.
    pub record: Option<DeploymentRecord>,
    /// When it was first asked for.
    pub created_at: Timestamp,
    /// The teams that own it: those of whoever made it, for ever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<String>,
}

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRecord {
    /// The address.
    pub ip: IpAddr,
    /// The length of the block that begins there, if it is more than one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
    /// The network it was taken in.
    pub network: NetworkName,
    /// Picked or named.
    pub kind: AddressKind,
    /// The holder.
    pub instance: InstanceId,
    /// The holder's deployment.
    pub deployment: DeploymentName,
    /// The holder as operators write it (`group/uuid`).
    pub slug: String,
    /// The orphaned VM that has it until it is deleted; then no instance holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan: Option<AgentId>,
}

/// A lock: the task at the head holds it, the others wait in line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockQueue {
    /// Tasks in order of arrival.
    pub tasks: Vec<TaskId>,
    /// Since when the head holds it.
    pub held_since: Timestamp,
}

/// State of a line of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineState {
    /// Begun.
    Started,
    /// Ended well.
    Finished,
    /// Ended badly.
    Failed,
}

/// Where a step is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// How many attempts were begun.
    pub attempts: u32,
    /// Epoch of the last attempt.
    pub epoch: Epoch,
    /// When the last attempt was begun.
    pub started_at: Timestamp,
    /// How it ended; none while it is open or waits for another attempt.
    pub outcome: Option<StepOutcome>,
    /// Why the last attempt failed, while another one is due.
    #[serde(default)]
    pub retrying: Option<String>,
    /// The audit event that began it.
    #[serde(default)]
    pub audit: Option<EventId>,
}

impl StepState {
    /// Returns whether an attempt was begun and nobody has said how it ended.
    pub fn is_open(&self) -> bool {
        self.attempts > 0 && self.outcome.is_none() && self.retrying.is_none()
    }
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// Not begun.
    #[default]
    Pending,
    /// Begun.
    Running,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Left out.
    Skipped,
}

impl UnitState {
    /// Returns whether the unit has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Skipped)
    }
}

/// A unit of a committed plan, and where in the plan it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedUnit {
    /// The unit with its steps.
    pub unit: Unit,
    /// Position of its phase in the plan.
    pub phase: u32,
    /// Position of its stage in the phase.
    pub stage: u32,
    /// Position of its wave in the stage.
    pub wave: u32,
    /// The stage's heading; none for a silent one.
    pub title: Option<String>,
    /// The stage's tags.
    pub tags: Vec<String>,
    /// How many units the stage announces.
    pub total: u32,
}

/// A unit's progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitProgress {
    /// Where it is.
    pub state: UnitState,
    /// The first step without an outcome.
    pub next_step: u32,
    /// Position in the stage's event lines, given when it began.
    pub index: u32,
}

/// A sealed piece of bulky output: the bytes are a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSegment {
    /// Offset of its first byte in the output.
    pub offset: u64,
    /// Its length.
    pub length: u32,
    /// Where the bytes are.
    pub blob: BlobDigest,
}

/// An audit event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub id: EventId,
    /// The event that this one ends.
    pub parent: Option<EventId>,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub user: UserName,
    /// `create`, `update`, `delete` …
    pub action: String,
    /// `deployment`, `instance`, `vm`, `disk` …
    pub object_type: String,
    /// Which.
    pub object_name: Option<String>,
    /// Its deployment.
    pub deployment: Option<DeploymentName>,
    /// Its instance.
    pub instance: Option<String>,
    /// The task.
    pub task: Option<TaskId>,
    /// Facts; never secrets.
    #[serde(default)]
    pub context: BTreeMap<String, serde_json::Value>,
    /// What went wrong.
    pub error: Option<String>,
}

/// A stored version of a variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variable {
    /// Absolute name.
    pub name: VariableName,
    /// Counts up per name.
    pub version: u64,
    /// `password`, `certificate` …
    pub kind: String,
    /// Digest over the definition's options.
    pub options_digest: String,
    /// The encrypted value.
    pub sealed: Sealed,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which version of each variable a deploy saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VariableSet {
    /// Its number.
    pub id: VariableSetId,
    /// The deployment.
    pub deployment: DeploymentName,
    /// The task that opened it.
    pub task: TaskId,
    /// Versions by name.
    pub pins: BTreeMap<VariableName, u64>,
    /// Whether the deploy succeeded.
    pub deployed: bool,
    /// Versions of names in links from other deployments, by deployment: those that its last deploy saw.
    #[serde(default)]
    pub linked: BTreeMap<DeploymentName, BTreeMap<VariableName, u64>>,
}

/// Something that may exist out there without anybody knowing its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Its number, from the event that reported it.
    pub id: EventId,
    /// What and where to look (agent id, addresses, call).
    pub what: String,
    /// The task.
    pub task: Option<TaskId>,
    /// When.
    pub at: Timestamp,
}

/// A change, for watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The entry that made it.
    pub revision: Revision,
    /// The table.
    pub table: String,
    /// The row's key as operators write it.
    pub key: String,
    /// Put or deleted.
    pub deleted: bool,
}
