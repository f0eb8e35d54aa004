//! What may be asked of the state, and what it answers. Both are written into logs that later versions must read:
//! variants are only added at the end, fields only with a default.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::dns::DnsSubject;
use model::managed_network::MadeSubnet;
use model::plan::{Phase, Plan, Reservation, Target, Unit};
use model::problem::Finding;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::step::StepOutcome;
use model::task::{OutputKind, TaskError, TaskKind};
use model::*;
use serde::{Deserialize, Serialize};

pub use crate::level::{FEATURE_LEVEL, SECOND_LEVEL, THIRD_LEVEL};
use crate::records::*;

/// The format of entries that this version writes.
pub const ENTRY_VERSION: u16 = 1;

/// Documents of DNS records that are never forgotten, however old they are: agents may be about to fetch them.
pub const DNS_BLOBS_KEPT: usize = 10;

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user or client; `directorate` for what the fleet does by itself.
    pub user: UserName,
    /// The replica that proposed.
    pub node: NodeId,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The format, [`ENTRY_VERSION`].
    pub version: u16,
    /// Idempotency key: a second entry with the same one changes nothing and gets the first answer.
    pub request_id: Option<RequestId>,
    /// Who asked.
    pub actor: Actor,
    /// The proposer's clock. The only time that `apply` knows.
    pub proposed_at: Timestamp,
    /// What to do.
    pub command: Command,
}

/// Something that the state can be asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum Command {
    // --- the fleet ---
    /// The first entry of a cluster: names it. Refused when there is one already.
    ClusterInit { cluster_id: String, director_name: String, director_uuid: String, secrets: FleetSecrets },
    /// A new leader begins: from here on step records of older epochs are refused.
    LeaderBegin { node: NodeId, epoch: Epoch },
    /// A replica introduces itself, or tells its new addresses or version.
    MemberPut { member: Member },
    /// A replica is removed for good. Refused for the last one.
    MemberRemove { node: NodeId },
    /// Remembers a single-use token (only its hash).
    TokenPut { token: JoinToken },
    /// Uses a join token up; answers with the new member's number. A repeat by the same key gets the same number.
    TokenUse { hash: String, key_digest: String },
    /// Adds or changes a user.
    UserPut { user: User },
    /// Removes a user.
    UserRemove { name: UserName },
    /// Sets a global switch or number of the fleet.
    SettingPut { setting: Setting },

    // --- configs, blobs, releases, stemcells ---
    /// Stores a new version of a config; refused if `expected_latest` names another latest one.
    ConfigPut { kind: String, name: String, content: String, expected_latest: Option<ConfigId> },
    /// Marks all versions of a config as deleted.
    ConfigDelete { kind: String, name: String },
    /// A blob is on these replicas (adds to what is known).
    BlobHeld { digest: BlobDigest, size_bytes: u64, nodes: Vec<NodeId> },
    /// A replica has lost its copy.
    BlobLost { digest: BlobDigest, node: NodeId },
    /// Files a release version. The same release again adds what was missing; with `fix` its parts take the place of
    /// those that are stored. Another release under the same name and version is refused.
    ReleasePut {
        task: TaskId,
        epoch: Epoch,
        release: Box<ReleaseVersion>,
        compiled: Vec<CompiledPackage>,
        #[serde(default, skip_serializing_if = "is_false")]
        fix: bool,
        /// It is some of a release only, or more of it than is stored: what both have must be the same.
        #[serde(default, skip_serializing_if = "is_false")]
        partial: bool,
    },
    /// Removes release versions; refused while a deployment or an open task uses one.
    ReleaseDelete {
        task: TaskId,
        epoch: Epoch,
        name: ReleaseName,
        version: Option<Version>,
        /// With them goes what was compiled from packages that no release has any more.
        #[serde(default, skip_serializing_if = "is_false")]
        with_compiled: bool,
    },
    /// Files a stemcell for one CPI; refused if another image is filed under that name, or if it is being deleted.
    StemcellPut { task: TaskId, epoch: Epoch, stemcell: StemcellRecord },
    /// Removes a stemcell's row of one CPI; refused while a deployment or an open task uses it.
    StemcellDelete { task: TaskId, epoch: Epoch, name: String, version: Version, cpi: CpiName },

    // --- tasks ---
    /// Files a task; it waits in the queue of each lock. Answers with its number.
    TaskQueue { kind: TaskKind, deployment: Option<DeploymentName>, context_id: String, locks: Vec<LockName> },
    /// Asks a task to stop. A queued one is cancelled at once.
    TaskCancel { task: TaskId },
    /// The leader takes a task up (again): it must be at the head of all its locks' queues.
    TaskTake { task: TaskId, epoch: Epoch },
    /// A line of progress outside the plan (`Preparing deployment`); a repeat of the same line is dropped.
    TaskLine { task: TaskId, epoch: Epoch, line: PrepareLine },
    /// A part of a plan that is too large for one entry (see [`crate::draft::cut`]).
    PlanDraft { task: TaskId, epoch: Epoch, draft: u64, part: u32, content: Box<DraftPart> },
    /// Makes a plan count: takes its addresses, creates its instances. Refused if the deployment has moved on
    /// since, or an address is taken. `plan` holds what the parts `0..parts` of `draft` don't.
    PlanCommit { task: TaskId, epoch: Epoch, draft: u64, parts: u32, plan: Box<Plan> },
    /// Records of steps, in the order in which they happened.
    StepRecords { task: TaskId, epoch: Epoch, records: Vec<StepRecord> },
    /// A sealed piece of bulky output.
    OutputSeal { task: TaskId, epoch: Epoch, kind: OutputKind, segment: OutputSegment },
    /// Ends a task and frees its locks.
    TaskFinish { task: TaskId, epoch: Epoch, end: TaskEnd },

    // --- variables ---
    /// Opens a variable set for a deploy, or gives the one that this task already opened.
    VariableSetOpen { task: TaskId, epoch: Epoch, deployment: DeploymentName },
    /// Stores generated or given values and pins them in the set. A name that the set already pins is left alone.
    VariablesPut { task: TaskId, epoch: Epoch, set: VariableSetId, values: Vec<NewVariable> },

    // --- instances, agents, health ---
    /// Sets whether deploys leave an instance alone.
    InstanceIgnore { instance: InstanceId, ignore: bool },
    /// An agent proves that it holds its token; from here on only this key may renew. Answers refused if another did, or
    /// if the token was an earlier one.
    AgentEnroll {
        agent: AgentId,
        key_digest: String,
        #[serde(default, skip_serializing_if = "is_zero")]
        token_generation: u32,
    },
    /// Who watches which shard from here on. Refused if not newer.
    ShardMapPut { epoch: Epoch, map: ShardMap },
    /// A watcher saw an agent change. Refused when the watcher's shard map is an old one.
    AgentTransitions { shard_epoch: u64, transitions: Vec<AgentTransition> },
    /// Something may exist out there that nobody knows by id.
    LeakPut { leak: Leak },
    /// An operator has looked after a leak.
    LeakClear { id: EventId },
    /// Nobody refers to a blob any more and its copies are being deleted.
    BlobForget { digest: BlobDigest },
    /// Writes an audit event for something that happened outside the state.
    EventPut { event: Box<NewEvent> },
    /// The VM that an earlier attempt may have made is not there (any more), and another is about to be: the token that
    /// the first one got, and the key that it enrolled with, are void. Refused once the VM is known.
    AgentTokenRenew { task: TaskId, epoch: Epoch, agent: AgentId },
    /// A stemcell is about to be deleted from all clouds: from here on nobody may plan with it. Refused while anybody uses
    /// it, and if there is none.
    StemcellRetire { task: TaskId, epoch: Epoch, name: String, version: Version },
    /// Gives a user a token. Refused if there is no such user, the id is taken, or the user has too many.
    UserTokenPut { token: UserToken },
    /// Revokes a token.
    UserTokenRemove { id: String },
    /// Pins versions of variables that are there already. A name that the set already pins is left alone. Refused if
    /// the set is another task's, or a version does not exist.
    VariablesPin { task: TaskId, epoch: Epoch, set: VariableSetId, pins: Vec<VariablePin> },
    /// So much of a deployment has failed at once that the leader resurrects nothing; or, without `failed`, that is over.
    MeltdownPut { epoch: Epoch, deployment: DeploymentName, failed: Option<FailedShare> },
    /// A call that was to create this got no answer, and a search found nothing: it may still be carried out. The leader looks
    /// for so long. Refused if nobody knows for whom it would be.
    LatecomerPut { task: TaskId, epoch: Epoch, sought: Sought, look_for_ms: u64 },
    /// The leader has looked for what may still appear: what nobody has a claim on becomes an orphan. Refused if it is not
    /// looked for any more. `left_ms` is for how long it is still looked for, before this look and after it.
    LatecomerLooked { epoch: Epoch, sought: Sought, found: Vec<String>, left_ms: (u64, u64) },
    /// A task's result grows by these lines.
    TaskReport { task: TaskId, epoch: Epoch, lines: String },
    /// A task leaves a blob to be fetched for some days, and then deleted. One that was there long before the task is not its
    /// own, and is left alone.
    BundlePut { task: TaskId, epoch: Epoch, digest: BlobDigest },
    /// Blobs that tasks left are forgotten, unless one was left again after `before` or something else refers to it.
    BundlesForget { digests: Vec<BlobDigest>, before: Timestamp },
    /// What a scan of the task's deployment has found takes the place of what was found before. Large findings come in
    /// parts, the first of which is 0.
    ProblemsFound {
        task: TaskId,
        epoch: Epoch,
        part: u32,
        /// The instances that were looked at; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        among: Option<Vec<InstanceId>>,
        findings: Vec<Finding>,
    },
    /// A command of an admin of these teams: the deployment or config that it makes is theirs. With `only_theirs`, which is
    /// left out for admins of the director, one that is there already must be theirs, or it is refused.
    ForTeams { teams: Vec<String>, only_theirs: bool, command: Box<Command> },
    /// Connects somebody outside to a shared link, or finds that it is. Answers with the link's number. Refused if the link is
    /// not there, not shared, or not in that network.
    LinkPut { provider: LinkProviderId, consumer: String, network: Option<NetworkName> },
    /// Takes away a link that was made by request. Refused for one that a deploy made.
    LinkRemove { id: LinkId },
    /// An export leaves an archive, its own whenever it was made: the same release always gives the same one. It goes with
    /// what other tasks leave, or with the next clean-up.
    ExportPut { task: TaskId, epoch: Epoch, digest: BlobDigest },
    /// Deletes one version of a config: the newest of those that are left is the current one.
    ConfigVersionDelete { id: ConfigId },
    /// Gives numbers in DNS names to those that are there and have none yet.
    DnsNumber { epoch: Epoch, subjects: Vec<DnsSubject> },
    /// The DNS records have changed: agents fetch this document from now on. Refused unless its version follows the last one.
    DnsPut { epoch: Epoch, version: u64, content: String, blob: BlobDigest },
    /// Forgets documents of DNS records, but none of the newest [`DNS_BLOBS_KEPT`] and none that is newer than `before`.
    DnsForget { blobs: Vec<BlobDigest>, before: Timestamp },
    /// Agents say otherwise than before whether their jobs run. Under an old shard map it is refused.
    AgentsJobs { shard_epoch: u64, jobs: Vec<AgentJobs> },
    /// Forgets blobs that deletions left until `before`: those that nothing names, once all tasks have ended that were open
    /// then. What is named is kept for good.
    BlobsForget { digests: Vec<BlobDigest>, before: Timestamp },
    /// Somebody stores a blob that is to be forgotten: it waits anew. Refused if it is forgotten already.
    BlobKeep { digest: BlobDigest },
    /// The task's deployment uses a network, and these subnets of it are about to be made, unless they are there. Refused
    /// while another task makes some of it or deletes it, and if a deletion of it was begun and has not ended.
    NetworkTake { task: TaskId, epoch: Epoch, network: NetworkName, subnets: Vec<SubnetIntent> },
    /// What came of a subnet: the cloud has made it, or (without `made`) there is none, never was or no more. With its last
    /// subnet goes a network that is being deleted. Refused if there is no such subnet that could have been made.
    SubnetPut {
        task: TaskId,
        epoch: Epoch,
        network: NetworkName,
        subnet: SubnetId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made: Option<MadeSubnet>,
    },
    /// A network is about to be deleted: nobody may begin to use it. Refused if there is none, while a deployment uses it or
    /// something has an address in it, and while another task is at work on it.
    NetworkRetire { task: TaskId, epoch: Epoch, network: NetworkName },
    /// A request to an agent that remembers none itself has come from one stage to the next; without `to` it was never asked.
    /// Changes nothing if it stands elsewhere by now. Refused if the agent is not known.
    AgentAsked {
        epoch: Epoch,
        agent: AgentId,
        request: RequestId,
        from: Option<AskedStage>,
        to: Option<AskedStage>,
    },
    /// A task has stored blobs, and may end without a row that names them: they go with what deletions leave then.
    BlobsLeave { task: TaskId, epoch: Epoch, digests: Vec<BlobDigest> },
    /// An agent that knows no addresses of blobs has brought one under a name; under the same name once more, it takes the other
    /// one's place. Refused if the agent is not known.
    AgentBrought { agent: AgentId, name: String, brought: BroughtBlob },
    /// Something is about to be done with a dynamic disk, or has been. Refused as the deed says.
    DynamicDisk { task: TaskId, epoch: Epoch, name: DynamicDiskName, deed: DynamicDeed },
    /// The task is about to take a VM away from its instance: no dynamic disk is attached to it from here on, while the task
    /// is open. A VM that is not there is fine.
    VmLeaves { task: TaskId, epoch: Epoch, agent: AgentId },
    /// A step is about to give an agent of BOSH's a certificate for its bus. One that the same step has offered before stays; once
    /// the step is done, the agent has it. Refused if the agent is not known.
    CertificateOffer { task: TaskId, epoch: Epoch, step: StepNo, agent: AgentId, certificate: BusCertificate },
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Fields that later versions added are left out while they say what their absence says: old bytes stay what they are.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An audit event to write. The user is who asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// `create`, `update`, `delete` …
    pub action: String,
    /// `deployment`, `instance`, `vm`, `disk` …
    pub object_type: String,
    /// Which.
    #[serde(default)]
    pub object_name: Option<String>,
    /// Its deployment.
    #[serde(default)]
    pub deployment: Option<DeploymentName>,
    /// Its instance.
    #[serde(default)]
    pub instance: Option<String>,
    /// The task.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// When, if not now.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Facts; never secrets.
    #[serde(default)]
    pub context: BTreeMap<String, serde_json::Value>,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<String>,
}

/// A part of a plan: pieces that are put back where they belong when the plan is committed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DraftPart {
    /// More of the plan's targets.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// More of its reservations.
    #[serde(default)]
    pub reservations: Vec<Reservation>,
    /// More units of its waves, in order.
    #[serde(default)]
    pub units: Vec<DraftUnit>,
    /// More bytes of its record.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::records::bytes")]
    pub record: Vec<u8>,
}

/// A unit that travels apart from its wave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DraftUnit {
    /// Position of its phase in the plan.
    pub phase: u32,
    /// Position of its stage in the phase.
    pub stage: u32,
    /// Position of its wave in the stage.
    pub wave: u32,
    /// The unit.
    pub unit: Unit,
}

/// One record of the step journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which step.
    pub step: StepNo,
    /// Counts from 1; counted before the deed, so that a crash gives no free attempt.
    pub attempt: u32,
    /// What happened.
    pub event: StepEvent,
}

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEvent {
    /// It is about to be done.
    Started,
    /// It ended; a failed outcome ends its unit.
    Finished(StepOutcome),
    /// It failed, and another attempt follows; the text says why.
    Retrying(String),
    /// It will not be done: the task is being cancelled or another unit failed. Ends its unit.
    Skipped,
}

/// How a task ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEnd {
    /// Well, with the short result.
    Done(Option<String>),
    /// With an error.
    Error(TaskError),
    /// Because somebody asked.
    Cancelled,
}

/// A line of progress that comes before there is a plan. Which lines were written is kept, so that a new leader that
/// plans again does not repeat them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareLine {
    /// The stage.
    pub stage: String,
    /// The task within it.
    pub task: String,
    /// `total` of the line.
    pub total: u32,
    /// `index` of the line.
    pub index: u32,
    /// Where it is.
    pub state: LineState,
    /// The error of a failed line.
    pub error: Option<String>,
}

/// A value to store under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewVariable {
    /// Absolute name.
    pub name: VariableName,
    /// `password`, `certificate` …
    pub kind: String,
    /// Digest over the definition's options, for `converge`.
    pub options_digest: String,
    /// The encrypted value; none pins the newest version there is.
    pub sealed: Option<Sealed>,
}

/// A version of a variable that a deploy saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariablePin {
    /// Absolute name.
    pub name: VariableName,
    /// Which version.
    pub version: u64,
    /// For a name in a link from another deployment: that deployment.
    #[serde(default)]
    pub provider: Option<DeploymentName>,
}

/// What exists where a deployment's name is taken in DNS by another name ([`Refusal::Exists`]).
pub const SAME_LABEL: &str = "a deployment with the same name in DNS";

/// What the state answers. A refusal is an answer that all replicas share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// The task's number.
    TaskQueued(TaskId),
    /// The config's number, and whether that content was already there.
    ConfigStored { id: ConfigId, unchanged: bool },
    /// The new member's number.
    MemberNumber(NodeId),
    /// The variable set's number.
    VariableSet(VariableSetId),
    /// Not done, and why.
    Refused(Refusal),
    /// The link's number.
    LinkStored(LinkId),
}

impl Outcome {
    /// Returns the outcome, or the refusal as an error.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            other => Ok(other),
        }
    }
}

/// Why the state did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the message of each variant speaks for its fields")]
pub enum Refusal {
    #[error("epoch {given} is over: the current one is {current}")]
    StaleEpoch { given: Epoch, current: Epoch },
    #[error("the cluster has been initialised already")]
    AlreadyInitialised,
    #[error("no such {what}: {name}")]
    NotFound { what: String, name: String },
    #[error("{what} exists already: {name}")]
    Exists { what: String, name: String },
    #[error("{what} {name} is in use by {by}")]
    InUse { what: String, name: String, by: String },
    #[error("the token is unknown, used or expired")]
    BadToken,
    #[error("task {task} waits for {lock}, held by task {holder}")]
    LockHeld { task: TaskId, lock: LockName, holder: TaskId },
    #[error("task {task} is {state}")]
    TaskState { task: TaskId, state: String },
    #[error("deployment {deployment} is at generation {current}, the plan was made for {given}")]
    GenerationMoved { deployment: DeploymentName, given: u64, current: u64 },
    #[error("address {ip} is held by {holder}")]
    AddressTaken { ip: IpAddr, holder: String },
    #[error("the plan draft is incomplete: part {part} is missing")]
    DraftIncomplete { part: u32 },
    #[error("expected the latest config to be {expected}, it is {latest}")]
    ConfigMoved { expected: ConfigId, latest: ConfigId },
    #[error("step {step} is {state}, which does not go with this record")]
    StepState { step: StepNo, state: String },
    #[error("agent {agent} has enrolled with another key")]
    AgentKeyTaken { agent: AgentId },
    #[error("shard map {given} is over: the current one is {current}")]
    StaleShardMap { given: u64, current: u64 },
    #[error("this member's version does not know the command")]
    UnknownCommand,
    #[error("the {kind} output of task {task} continues at {expected}, not at {given}")]
    OutputGap { task: TaskId, kind: String, expected: u64, given: u64 },
    #[error("{what} makes no sense here: {reason}")]
    Invalid { what: String, reason: String },
    #[error("agent {agent} has used a token that was replaced")]
    AgentTokenReplaced { agent: AgentId },
    #[error("{what} {name} belongs to others")]
    NotOwned { what: String, name: String, teams: Vec<String> },
}

/// Phases kept per task: the skeleton of its plan, for the executor. The units in it have no steps; `State::unit` gives
/// those.
pub type PlanPhases = Vec<Phase>;
