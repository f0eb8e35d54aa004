//! All tables, in one place. A number that was once given is never given to another table.

use std::net::IpAddr;

use model::config::StoredConfig;
use model::dynamic_disk::DynamicDisk;
use model::instance::{Disk, Instance, Vm};
use model::managed_network::ManagedNetwork;
use model::plan::{DeploymentRecord, Target};
use model::problem::Problem;
use model::release::{CompiledPackage, ReleaseVersion};
use model::snapshot::Snapshot;
use model::stemcell::StemcellRecord;
use model::step::PackageRefKey;
use model::task::{OutputKind, TaskKind};
use model::*;

use crate::command::{DraftPart, Outcome, PlanPhases};
use crate::records::*;
use crate::rows::*;
use crate::table::Watch::{Hidden, Shown};
use crate::table::{Table, TableInfo};

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $key:ty => $row:ty = $id:literal, $text:literal, $watch:ident;)+) => {
        $($(#[$doc])* pub(crate) const $name: Table<$key, $row> = Table::new($id, $text, $watch);)+

        /// Every table, as backups list them.
        pub const ALL: &[TableInfo] = &[$($name.info()),+];
    };
}

tables! {
    /// Counters by name: the last number given.
    COUNTERS: String => u64 = 0x01, "counters", Hidden;
    /// The cluster's own row.
    CLUSTER: () => Cluster = 0x02, "cluster", Shown;
    /// The epoch and who leads under it.
    LEADER: () => Leader = 0x03, "leader", Shown;
    /// Replicas by number.
    MEMBERS: NodeId => Member = 0x04, "members", Shown;
    /// Replicas that were removed for good.
    MEMBERS_REMOVED: NodeId => () = 0x05, "members_removed", Hidden;
    /// Join tokens by hash.
    TOKENS: String => JoinToken = 0x06, "tokens", Hidden;
    /// Users by name.
    USERS: UserName => User = 0x07, "users", Shown;
    /// Remembered answers by request.
    ANSWERS: RequestId => Outcome = 0x08, "answers", Hidden;
    /// Who was answered, by place in the ring.
    ANSWERED: u64 => RequestId = 0x09, "answered", Hidden;
    /// Changes by revision.
    CHANGES: Revision => Vec<ChangeRow> = 0x0b, "changes", Hidden;
    /// The first revision whose changes are still known.
    CHANGES_FROM: () => Revision = 0x0c, "changes_from", Hidden;
    /// Users' tokens by id.
    USER_TOKENS: String => UserToken = 0x0d, "user_tokens", Shown;

    /// Configs by number.
    CONFIGS: ConfigId => StoredConfig = 0x10, "configs", Shown;
    /// Config numbers by type and name.
    CONFIGS_BY_NAME: (String, String, ConfigId) => () = 0x11, "configs_by_name", Hidden;
    /// The newest version of each config that is not deleted, by type and name.
    CONFIGS_LATEST: (String, String) => ConfigId = 0x16, "configs_latest", Hidden;
    /// Blobs by digest.
    BLOBS: BlobDigest => BlobRecord = 0x12, "blobs", Hidden;
    /// Release versions.
    RELEASES: (ReleaseName, Version) => ReleaseVersion = 0x13, "releases", Shown;
    /// Compiled packages.
    COMPILED: PackageRefKey => CompiledPackage = 0x14, "compiled_packages", Shown;
    /// When tasks left blobs to be fetched for some days.
    BUNDLES: BlobDigest => Timestamp = 0x17, "bundles", Hidden;
    /// Those of them that are exported releases, and the task that was the last to leave each.
    EXPORTS: BlobDigest => TaskId = 0x18, "exports", Hidden;
    /// Blobs that a deletion left, to be forgotten once nobody can be about to name them.
    FORGETTABLE: BlobDigest => Forgettable = 0x19, "forgettable_blobs", Hidden;
    /// Stemcells by name, version and CPI.
    STEMCELLS: (String, Version, CpiName) => StemcellRecord = 0x15, "stemcells", Shown;

    /// Tasks by number.
    TASKS: TaskId => TaskRow = 0x20, "tasks", Shown;
    /// What each task is for.
    TASK_KINDS: TaskId => TaskKind = 0x21, "task_kinds", Hidden;
    /// Tasks that have not ended.
    TASKS_OPEN: TaskId => () = 0x22, "tasks_open", Hidden;
    /// Tasks by kind, for pruning.
    TASKS_BY_CLASS: (u8, TaskId) => () = 0x23, "tasks_by_class", Hidden;
    /// Locks by name.
    LOCKS: LockName => LockQueue = 0x24, "locks", Shown;
    /// Preparation lines already written.
    PREPARE_LINES: (TaskId, String, String, LineState) => () = 0x25, "prepare_lines", Hidden;
    /// Event lines and results by offset.
    OUTPUT: (TaskId, OutputKind, u64) => String = 0x26, "output_text", Hidden;
    /// How long each output is.
    OUTPUT_LENGTHS: (TaskId, OutputKind) => u64 = 0x27, "output", Shown;
    /// Sealed pieces by offset.
    OUTPUT_SEGMENTS: (TaskId, OutputKind, u64) => OutputSegment = 0x28, "output_segments", Hidden;

    /// Parts of plans that are not committed yet.
    PLAN_PARTS: (TaskId, u64, u32) => DraftPart = 0x30, "plan_parts", Hidden;
    /// Skeletons of plans.
    PLAN_PHASES: TaskId => PlanPhases = 0x31, "plan_phases", Hidden;
    /// What step records need of a plan.
    PLAN_INFO: TaskId => PlanInfo = 0x32, "plan_info", Hidden;
    /// What a plan saves as its deployment's last success.
    PLAN_RECORDS: TaskId => DeploymentRecord = 0x33, "plan_records", Hidden;
    /// Units of plans.
    UNITS: (TaskId, UnitNo) => PlannedUnit = 0x34, "units", Hidden;
    /// How far each begun unit is.
    UNIT_PROGRESS: (TaskId, UnitNo) => UnitProgress = 0x35, "unit_progress", Hidden;
    /// How many units of a stage (phase, stage) were begun.
    STAGE_STARTED: (TaskId, u32, u32) => u32 = 0x36, "stage_started", Hidden;
    /// The step journal.
    STEPS: (TaskId, UnitNo, u32) => StepState = 0x37, "steps", Hidden;
    /// Targets of plans.
    TARGETS: (TaskId, InstanceId) => Target = 0x38, "targets", Hidden;
    /// The audit event that opened each instance's update.
    TARGET_AUDITS: (TaskId, InstanceId) => EventId = 0x39, "target_audits", Hidden;
    /// Ended tasks whose plan is still kept, oldest first.
    PLANS_ENDED: TaskId => () = 0x3a, "plans_ended", Hidden;

    /// Deployments by name.
    DEPLOYMENTS: DeploymentName => Deployment = 0x40, "deployments", Shown;
    /// Instances by UUID.
    INSTANCES: InstanceId => Instance = 0x41, "instances", Shown;
    /// Instances of a deployment.
    INSTANCES_OF: (DeploymentName, InstanceId) => () = 0x42, "instances_of", Hidden;
    /// VMs by agent.
    VMS: AgentId => Vm = 0x43, "vms", Shown;
    /// VMs of an instance.
    VMS_OF: (InstanceId, AgentId) => () = 0x44, "vms_of", Hidden;
    /// Disks by our id.
    DISKS: DiskId => Disk = 0x45, "disks", Shown;
    /// Disks of an instance.
    DISKS_OF: (InstanceId, DiskId) => () = 0x46, "disks_of", Hidden;
    /// Orphaned disks by our id.
    ORPHANED_DISKS: DiskId => OrphanedDisk = 0x47, "orphaned_disks", Shown;
    /// Addresses and who holds them.
    ADDRESSES: IpAddr => AddressRecord = 0x48, "addresses", Shown;
    /// Addresses of an instance.
    ADDRESSES_OF: (InstanceId, IpAddr) => () = 0x49, "addresses_of", Hidden;
    /// Agents that may connect.
    AGENTS: AgentId => AgentRecord = 0x4a, "agents", Shown;
    /// Who watches which agents.
    SHARD_MAP: () => ShardMap = 0x4b, "shard_map", Shown;
    /// Things that may exist out there.
    LEAKS: EventId => Leak = 0x4c, "leaks", Shown;
    /// Numbers in DNS names, by deployment (none for zones and networks), kind and name.
    DNS_NUMBERS: (DeploymentName, String, String) => u32 = 0x4d, "dns_numbers", Hidden;
    /// Deployments in which nothing is resurrected because too much has failed.
    MELTDOWNS: DeploymentName => Meltdown = 0x4e, "meltdowns", Shown;
    /// Deployments by their names in DNS.
    DEPLOYMENT_LABELS: String => DeploymentName = 0x4f, "deployment_labels", Hidden;
    /// What each errand last ran well on, as a digest.
    ERRANDS: (DeploymentName, String) => String = 0x3b, "errands", Hidden;
    /// Orphaned VMs by agent.
    ORPHANED_VMS: AgentId => OrphanedVm = 0x3c, "orphaned_vms", Shown;
    /// VMs and disks that may still appear.
    LATECOMERS: Sought => Latecomer = 0x3d, "latecomers", Shown;

    /// Open problems of a deployment.
    PROBLEMS: (DeploymentName, ProblemId) => Problem = 0x3e, "problems", Shown;

    /// Links that are offered, by number.
    LINK_PROVIDERS: LinkProviderId => LinkProvider = 0x60, "link_providers", Shown;
    /// Links that are wanted, by number.
    LINK_CONSUMERS: LinkConsumerId => LinkConsumer = 0x61, "link_consumers", Shown;
    /// Links that are there, by number.
    LINKS: LinkId => Link = 0x62, "links", Shown;
    /// The numbers of all of a deployment's.
    LINKS_OF: DeploymentName => LinkNumbers = 0x63, "links_of", Hidden;
    /// Documents of DNS records, by version.
    DNS_BLOBS: u64 => DnsBlob = 0x64, "dns_blobs", Hidden;

    /// What agents that remember nothing themselves were asked.
    ASKED_OF_AGENTS: (AgentId, RequestId) => AskedOfAgent = 0x6c, "asked_of_agents", Hidden;
    /// What such agents have brought, by their names for it.
    BROUGHT_BY_AGENTS: (AgentId, String) => BroughtByAgent = 0x6d, "brought_by_agents", Hidden;

    /// Snapshots of disks, orphaned ones included, by our id.
    SNAPSHOTS: SnapshotId => Snapshot = 0x66, "snapshots", Shown;
    /// Snapshots of a disk.
    SNAPSHOTS_OF: (DiskId, SnapshotId) => () = 0x67, "snapshots_of", Hidden;

    /// Networks that directors have made, by name.
    NETWORKS: NetworkName => ManagedNetwork = 0x68, "managed_networks", Shown;

    /// Dynamic disks by name.
    DYNAMIC_DISKS: DynamicDiskName => DynamicDisk = 0x69, "dynamic_disks", Shown;
    /// Those that VMs have, or may have.
    DYNAMIC_DISKS_ON: (AgentId, DynamicDiskName) => () = 0x6a, "dynamic_disks_on", Hidden;
    /// VMs that are about to go, and the tasks that take them away.
    VMS_LEAVING: AgentId => TaskId = 0x6b, "vms_leaving", Hidden;

    /// Versions of variables.
    VARIABLES: (VariableName, u64) => Variable = 0x50, "variables", Shown;
    /// Variable sets by number.
    VARIABLE_SETS: VariableSetId => VariableSet = 0x51, "variable_sets", Hidden;
    /// Variable sets of a deployment.
    VARIABLE_SETS_OF: (DeploymentName, VariableSetId) => () = 0x52, "variable_sets_of", Hidden;
    /// The set that a task opened.
    VARIABLE_SET_BY_TASK: TaskId => VariableSetId = 0x53, "variable_set_by_task", Hidden;
    /// Audit events by number.
    EVENTS: EventId => Event = 0x54, "events", Shown;
    /// The events that are alerts, by their places in a ring.
    ALERTS: u64 => EventId = 0x55, "alerts", Hidden;
}

/// Returns the name of the table with this number.
pub fn name(id: u8) -> &'static str {
    ALL.iter().find(|table| table.id == id).map_or("unknown", |table| table.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_given_once() {
        let ids: std::collections::BTreeSet<u8> = ALL.iter().map(|table| table.id).collect();
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|table| table.name).collect();
        assert_eq!((ids.len(), names.len()), (ALL.len(), ALL.len()));
    }
}
