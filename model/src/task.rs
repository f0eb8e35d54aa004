//! Tasks: what an operator asked for, how far it is, and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dynamic_disk::{DiskMetadata, DynamicDiskWish};
use crate::error_code::ErrorCode;
pub use crate::export::{DigestKind, ReleaseExport};
use crate::ids::*;
use crate::instance::{InstanceState, ReleaseRef};
use crate::sealed::Sealed;
pub use crate::ssh::{SshCommand, SshTarget};

/// An error as a task ends with it: BOSH's number and a text that names the thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    /// BOSH's number; 100 where it has none.
    pub code: u32,
    /// What went wrong, to what, and what to do.
    pub message: String,
}

impl TaskError {
    /// Makes an error with one of BOSH's codes.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: code.number(), message: message.into() }
    }

    /// Makes an error for which BOSH has no code of its own.
    pub fn plain(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Unknown.number(), message: message.into() }
    }
}

/// A task's state, in BOSH's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for its lock or for a leader.
    Queued,
    /// Being planned or carried out.
    Processing,
    /// Asked to stop; ends at the next checkpoint.
    Cancelling,
    /// Ended well.
    Done,
    /// Ended with an error.
    Error,
    /// Stopped on request.
    Cancelled,
}

impl TaskState {
    /// Returns whether the task has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Error | Self::Cancelled)
    }
}

/// Options of a deploy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployOptions {
    /// New VMs for all.
    #[serde(default)]
    pub recreate: bool,
    /// New disks for all.
    #[serde(default)]
    pub recreate_persistent_disks: bool,
    /// Recreate instances whose agent does not answer instead of failing.
    #[serde(default)]
    pub fix: bool,
    /// Groups that skip pre-stop and drain; `*` for all.
    #[serde(default)]
    pub skip_drain: Vec<String>,
    /// Overrides every `canaries` of the manifest.
    #[serde(default)]
    pub canaries: Option<String>,
    /// Overrides every `max_in_flight` of the manifest.
    #[serde(default)]
    pub max_in_flight: Option<String>,
    /// Plan only.
    #[serde(default)]
    pub dry_run: bool,
    /// The versions of cloud and runtime configs to deploy with, as a diff was shown of them; the newest ones if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configs: Option<Vec<ConfigId>>,
    /// With `recreate`: only VMs that were made before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Timestamp>,
}

/// Which instances a change of state is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFilter {
    /// The group; all groups if absent.
    pub group: Option<GroupName>,
    /// An index or a UUID within the group; all of it if absent.
    pub id_or_index: Option<String>,
}

impl InstanceFilter {
    /// Returns it as operators write it; `*` stands for all.
    pub fn slug(&self) -> String {
        let group = self.group.as_ref().map_or("*", GroupName::as_str);
        match &self.id_or_index {
            Some(which) => format!("{group}/{which}"),
            None => group.to_owned(),
        }
    }
}

/// A change of state asked for outside a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateChange {
    /// Wanted state becomes started, stopped or detached.
    Become(InstanceState),
    /// Stop and start.
    Restart,
    /// New VM.
    Recreate,
}

/// What a task is for. Variants are only ever added at the end: old ones live in logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum TaskKind {
    /// `deploy`.
    Deploy { manifest_text: String, options: DeployOptions },
    /// `delete-deployment`.
    DeleteDeployment { force: bool },
    /// `start`, `stop`, `restart`, `recreate`.
    ChangeState {
        change: StateChange,
        filter: InstanceFilter,
        skip_drain: bool,
        max_in_flight: Option<String>,
        canaries: Option<String>,
        /// Plan only.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
        /// With `recreate`: only VMs that were made before this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        created_before: Option<Timestamp>,
    },
    /// `run-errand`.
    RunErrand {
        errand: String,
        keep_alive: bool,
        instances: Vec<InstanceFilter>,
        /// Not if it ran well before on instances that are still the same.
        #[serde(default, skip_serializing_if = "is_false")]
        when_changed: bool,
    },
    /// Resurrection: give these instances new VMs if they still need one.
    ScanAndFix {
        instances: Vec<InstanceId>,
        /// Instances that were asked for and are not there, as `deployment/group/id`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown: Vec<String>,
    },
    /// `upload-release`: read the archive in this blob and file its jobs and packages.
    UploadRelease { blob: BlobDigest, rebase: bool, fix: bool },
    /// `upload-stemcell`: hand the image in this blob to every CPI.
    UploadStemcell { blob: BlobDigest, fix: bool },
    /// `delete-release`; all versions if none is given.
    DeleteRelease { name: ReleaseName, version: Option<Version> },
    /// `delete-stemcell`.
    DeleteStemcell { name: String, version: Version, force: bool },
    /// `delete-disk`, and the periodic clean-up of old orphans.
    DeleteOrphanedDisks { disks: Vec<DiskId> },
    /// The periodic clean-up of orphaned VMs, by their agents.
    DeleteOrphanedVms { agents: Vec<AgentId> },
    /// `vms` and `instances`: asks all agents of a deployment how they are. Changes nothing.
    Inspect {
        /// A line for each VM, not for each instance.
        vms: bool,
    },
    /// `clean-up`: deletes what nothing used when it was asked for.
    CleanUp { all: bool, leftovers: Box<Leftovers> },
    /// `logs`: has agents pack their logs, and packs what several have packed together.
    FetchLogs {
        instances: Vec<InstanceId>,
        /// Types of logs, as the agent takes them: `job`, `agent,job,system`.
        logs: String,
        /// Globs; everything if there are none.
        filters: Vec<String>,
    },
    /// `orphan-disk`: the instance that has this disk gives it up.
    OrphanDisk { cid: DiskCid },
    /// `attach-disk`: the instance gets this disk instead of the one that it has.
    AttachDisk {
        instance: InstanceFilter,
        cid: DiskCid,
        /// A disk that nobody here has made is taken to be as the instance's own one.
        copy_properties: bool,
    },
    /// `delete-vm`: deletes a VM, whoever's it is.
    DeleteVm { cid: VmCid },
    /// `ssh`: users for operators on machines.
    Ssh { command: SshCommand, target: SshTarget },
    /// `cloud-check`, `recover`: looks for problems with a deployment's VMs and disks.
    ScanCloud,
    /// `cloud-check`, `recover`: does something about problems.
    ApplyResolutions { resolutions: Vec<Choice>, max_in_flight: BTreeMap<GroupName, String> },
    /// `start`, `stop`, `restart`, `recreate` of one instance with `--no-converge`.
    ChangeInstance {
        change: StateChange,
        instance: InstanceId,
        skip_drain: bool,
        /// A new VM also if the agent in the old one says nothing.
        #[serde(default, skip_serializing_if = "is_false")]
        fix: bool,
    },
    /// `export-release`: compiles a release for a stemcell and packs it together.
    ExportRelease { export: Box<ReleaseExport> },
    /// `upload-release URL`: fetches the archive, then files its jobs and packages.
    FetchRelease { archive: RemoteArchive, rebase: bool, fix: bool },
    /// `upload-stemcell URL`: fetches the archive, then hands its image to every CPI.
    FetchStemcell { archive: RemoteArchive, fix: bool },
    /// `take-snapshot`, and the daily ones: of the disks of one instance, or of all.
    TakeSnapshots { instance: Option<InstanceId> },
    /// `delete-snapshot` and `delete-snapshots`: one, or all.
    DeleteSnapshots { cid: Option<SnapshotCid> },
    /// `delete-network`, and the periodic clean-up of networks that directors have made and nobody uses any more.
    DeleteOrphanedNetworks { networks: Vec<NetworkName> },
    /// Makes a dynamic disk for a deployment.
    CreateDynamicDisk { deployment: DeploymentName, az: AzName, disk: Box<DynamicDiskWish> },
    /// Attaches a dynamic disk to an instance's VM.
    AttachDynamicDisk {
        name: DynamicDiskName,
        instance: InstanceId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<DiskMetadata>,
    },
    /// Attaches a dynamic disk to an instance's VM, and makes it before if there is none of its name.
    ProvideDynamicDisk { instance: InstanceId, disk: Box<DynamicDiskWish> },
    /// Detaches a dynamic disk from the VM that has it.
    DetachDynamicDisk { name: DynamicDiskName },
    /// Deletes a dynamic disk.
    DeleteDynamicDisk { name: DynamicDiskName },
    /// Gives agents of BOSH's other certificates for their bus, before those that they have end. The director asks for it itself.
    RotateCertificates { agents: Vec<AgentId> },
}

/// An archive that is fetched from where somebody else keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteArchive {
    /// Its URL, sealed as [`RemoteArchive::SEALED_AS`]: it may hold what opens the place where it lies.
    pub location: Sealed,
    /// What its content must have, as BOSH writes digests; anything goes if absent.
    pub digest: Option<String>,
}

impl RemoteArchive {
    /// What locations are sealed for.
    pub const SEALED_AS: &str = "location of an archive";
}

/// What is to be done about a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The problem.
    pub problem: ProblemId,
    /// The resolution's name; the automatic one if absent.
    pub resolution: Option<String>,
}

/// What nothing uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftovers {
    /// Release versions.
    pub releases: Vec<ReleaseRef>,
    /// Names and versions of stemcells.
    pub stemcells: Vec<(String, Version)>,
    /// Orphaned disks.
    pub disks: Vec<DiskId>,
    /// Orphaned VMs, by their agents.
    pub vms: Vec<AgentId>,
    /// Archives that exports left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<BlobDigest>,
    /// Old documents of DNS records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_blobs: Vec<BlobDigest>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl TaskKind {
    /// Returns the description that task lists show.
    pub fn description(&self) -> String {
        match self {
            Self::Deploy { options, .. } if options.dry_run => "create deployment (dry run)".into(),
            Self::Deploy { .. } => "create deployment".into(),
            Self::DeleteDeployment { .. } => "delete deployment".into(),
            Self::ChangeState { change, dry_run, .. } => {
                let told = match change {
                    StateChange::Become(InstanceState::Started) => "start instances",
                    StateChange::Become(InstanceState::Stopped) => "stop instances",
                    StateChange::Become(InstanceState::Detached) => "stop instances (hard)",
                    StateChange::Restart => "restart instances",
                    StateChange::Recreate => "recreate instances",
                };
                format!("{told}{}", if *dry_run { " (dry run)" } else { "" })
            }
            Self::RunErrand { errand, .. } => format!("run errand {errand}"),
            Self::ScanAndFix { .. } => "scan and fix".into(),
            Self::UploadRelease { .. } | Self::FetchRelease { .. } => "create release".into(),
            Self::UploadStemcell { .. } | Self::FetchStemcell { .. } => "create stemcell".into(),
            Self::DeleteRelease { name, .. } => format!("delete release: {name}"),
            Self::DeleteStemcell { name, version, .. } => format!("delete stemcell: {name}/{version}"),
            Self::DeleteOrphanedDisks { .. } => "delete orphan disks".into(),
            Self::DeleteOrphanedVms { .. } => "delete orphaned vms".into(),
            Self::Inspect { .. } => "retrieve vm-stats".into(),
            Self::CleanUp { all: true, .. } => "clean up all".into(),
            Self::CleanUp { .. } => "clean up".into(),
            Self::FetchLogs { .. } => "fetch logs".into(),
            Self::OrphanDisk { .. } => "orphan disk".into(),
            Self::AttachDisk { instance, cid, .. } => format!("attach disk '{cid}' to '{}'", instance.slug()),
            Self::DeleteVm { cid } => format!("delete vm {cid}"),
            Self::Ssh { command: SshCommand::Setup { .. }, target } => {
                format!("ssh: setup:{}", target.described())
            }
            Self::Ssh { command: SshCommand::Cleanup { .. }, target } => {
                format!("ssh: cleanup:{}", target.described())
            }
            Self::ScanCloud => "scan cloud".into(),
            Self::ApplyResolutions { .. } => "apply resolutions".into(),
            Self::ChangeInstance { change, .. } => match change {
                StateChange::Become(InstanceState::Started) => "start instance".into(),
                StateChange::Become(_) => "stop instance".into(),
                StateChange::Restart => "restart instance".into(),
                StateChange::Recreate => "recreate instance".into(),
            },
            Self::ExportRelease { export } => {
                format!("export release: '{}' for '{}'", export.slug(), export.stemcell_slug())
            }
            Self::TakeSnapshots { instance: None } => "snapshot deployment".into(),
            Self::TakeSnapshots { .. } => "create snapshot".into(),
            Self::DeleteSnapshots { cid: None } => "delete deployment snapshots".into(),
            Self::DeleteSnapshots { .. } => "delete snapshot".into(),
            Self::DeleteOrphanedNetworks { networks } => {
                let names: Vec<&str> = networks.iter().map(NetworkName::as_str).collect();
                format!("delete orphan networks: {}", names.join(", "))
            }
            Self::CreateDynamicDisk { .. } => "create dynamic disk".into(),
            Self::AttachDynamicDisk { .. } => "attach dynamic disk".into(),
            Self::ProvideDynamicDisk { .. } => "provide dynamic disk".into(),
            Self::DetachDynamicDisk { .. } => "detach dynamic disk".into(),
            Self::DeleteDynamicDisk { .. } => "delete dynamic disk".into(),
            Self::RotateCertificates { .. } => "rotate certificates of agents".into(),
        }
    }
}

impl TaskKind {
    /// Returns BOSH's name for this type of task.
    pub fn bosh_type(&self) -> &'static str {
        match self {
            Self::Deploy { .. } | Self::ChangeState { .. } => "update_deployment",
            Self::DeleteDeployment { .. } => "delete_deployment",
            Self::RunErrand { .. } => "run_errand",
            Self::ScanAndFix { .. } => "cck_scan_and_fix",
            Self::UploadRelease { .. } | Self::FetchRelease { .. } => "update_release",
            Self::UploadStemcell { .. } | Self::FetchStemcell { .. } => "update_stemcell",
            Self::DeleteRelease { .. } => "delete_release",
            Self::DeleteStemcell { .. } => "delete_stemcell",
            Self::DeleteOrphanedDisks { .. } => "delete_orphan_disks",
            Self::DeleteOrphanedVms { .. } => "scheduled_orphaned_vm_cleanup",
            Self::Inspect { .. } => "vms",
            Self::CleanUp { .. } => "delete_artifacts",
            Self::FetchLogs { .. } => "fetch_logs",
            Self::OrphanDisk { .. } => "orphan_disk",
            Self::AttachDisk { .. } => "attach_disk",
            Self::DeleteVm { .. } => "delete_vm",
            Self::Ssh { .. } => "ssh",
            Self::ScanCloud => "cck_scan",
            Self::ApplyResolutions { .. } => "cck_apply",
            Self::ChangeInstance { .. } => "update_instance",
            Self::ExportRelease { .. } => "export_release",
            Self::TakeSnapshots { instance: None } => "snapshot_deployment",
            Self::TakeSnapshots { .. } => "create_snapshot",
            Self::DeleteSnapshots { cid: None } => "delete_deployment_snapshots",
            Self::DeleteSnapshots { .. } => "delete_snapshot",
            Self::DeleteOrphanedNetworks { .. } => "delete_orphan_networks",
            Self::CreateDynamicDisk { .. } => "create_dynamic_disk",
            Self::AttachDynamicDisk { .. } => "attach_dynamic_disk",
            Self::ProvideDynamicDisk { .. } => "provide_dynamic_disk",
            Self::DetachDynamicDisk { .. } => "detach_dynamic_disk",
            Self::DeleteDynamicDisk { .. } => "delete_dynamic_disk",
            Self::RotateCertificates { .. } => "rotate_certificates",
        }
    }

    /// Returns whether lists of tasks show it unless they are asked for all: what operators ask for, and not what the
    /// director does by itself.
    pub fn is_shown(&self) -> bool {
        !matches!(
            self,
            Self::ScanAndFix { .. }
                | Self::DeleteOrphanedDisks { .. }
                | Self::DeleteOrphanedVms { .. }
                | Self::DeleteOrphanedNetworks { .. }
                | Self::Inspect { .. }
                | Self::CleanUp { .. }
                | Self::FetchLogs { .. }
                | Self::OrphanDisk { .. }
                | Self::DeleteVm { .. }
                | Self::Ssh { .. }
                | Self::DeleteSnapshots { cid: None }
                | Self::CreateDynamicDisk { .. }
                | Self::AttachDynamicDisk { .. }
                | Self::ProvideDynamicDisk { .. }
                | Self::DetachDynamicDisk { .. }
                | Self::DeleteDynamicDisk { .. }
                | Self::RotateCertificates { .. }
        )
    }
}

/// A task as the state keeps it. Its plan, journal and output are rows of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The task's number.
    pub id: TaskId,
    /// What it is for.
    pub kind: TaskKind,
    /// The deployment it works on, if any.
    pub deployment: Option<DeploymentName>,
    /// Who asked.
    pub user: UserName,
    /// Groups the operator's tools correlate by (`X-Bosh-Context-Id`).
    pub context_id: String,
    /// How far it is.
    pub state: TaskState,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// When a leader first took it up.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The last sign of progress.
    pub updated_at: Timestamp,
    /// The locks it needs; it holds all of them while it is processed.
    pub locks: Vec<LockName>,
    /// The epoch of the leader that last worked on it.
    pub epoch: Epoch,
    /// Whether its plan has been committed.
    pub planned: bool,
    /// The short result (`/deployments/web`).
    pub result: Option<String>,
    /// How it failed.
    pub error: Option<TaskError>,
    /// Free facts for the operator (trace id …); never secrets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The teams that own its deployment.
    #[serde(default)]
    pub teams: Vec<String>,
}

impl Task {
    /// Returns what it does, in words, as BOSH's lists have it.
    pub fn description(&self) -> String {
        let what = self.kind.description();
        match (&self.kind, &self.deployment) {
            (TaskKind::DeleteDeployment { .. }, Some(deployment)) => format!("{what} {deployment}"),
            (TaskKind::RunErrand { .. }, Some(deployment)) => format!("{what} from deployment {deployment}"),
            _ => what,
        }
    }
}

/// Kinds of output that a task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Progress, one JSON per line.
    Event,
    /// The result.
    Result,
    /// What a developer wants to see.
    Debug,
    /// The CPI's log.
    Cpi,
}
