//! Steps: the deeds that a plan consists of, and what a new leader does with one that was started and never finished.

use serde::{Deserialize, Serialize};

use crate::ids::*;
use crate::instance::DiskSpec;
use crate::stemcell::StemcellVersion;

/// What a new leader does with a step whose outcome nobody recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Twice equals once (`mount_disk`, `apply`): run it again.
    Rerun,
    /// Ask the world first (`create_vm`: look for the agent id that the plan gave it), then rerun or adopt.
    Probe,
    /// Neither is safe: fail the task and name what to look at.
    Stop,
}

/// Lifecycle scripts that the director asks an agent to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Script {
    /// Before a drain.
    PreStop,
    /// After the jobs have stopped.
    PostStop,
    /// Before the jobs start.
    PreStart,
    /// Once the jobs run.
    PostStart,
    /// After the whole deployment is up.
    PostDeploy,
}

impl Script {
    /// Returns the script's file name under a job's `bin/`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::PreStop => "pre-stop",
            Self::PostStop => "post-stop",
            Self::PreStart => "pre-start",
            Self::PostStart => "post-start",
            Self::PostDeploy => "post-deploy",
        }
    }
}

/// Why the jobs of an instance are being stopped; decides `BOSH_*_NEXT_STATE` and the kind of drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopIntent {
    /// The VM stays.
    KeepVm,
    /// The VM goes, the instance stays.
    DeleteVm,
    /// The instance goes.
    DeleteInstance,
    /// The deployment goes.
    DeleteDeployment,
}

/// What a drain script is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainKind {
    /// The jobs come back with a new spec.
    Update,
    /// VM, disk or jobs go away.
    Shutdown,
}

/// Which window a watch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchKind {
    /// The canary's.
    Canary,
    /// Everybody else's.
    Update,
}

/// What a VM is to its instance from its making on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmRole {
    /// The one that the instance works with.
    #[default]
    Current,
    /// One that was made ahead, beside the one that the instance works with: it waits to be elected.
    Spare,
}

impl VmRole {
    fn is_current(&self) -> bool {
        *self == Self::Current
    }
}

/// One deed. Every id in it was chosen by the plan; the details of the instance are in the plan's target for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum Action {
    /// Makes the VM for an instance with the agent id given here.
    CreateVm {
        instance: InstanceId,
        agent: AgentId,
        #[serde(default, skip_serializing_if = "VmRole::is_current")]
        role: VmRole,
    },
    /// Writes director, deployment, index … into the cloud's metadata of the VM.
    SetVmMetadata { instance: InstanceId, agent: AgentId, compiling: Option<PackageName> },
    /// Waits until the agent has dialled in and answers.
    AwaitAgent { instance: InstanceId, agent: AgentId },
    /// Sends trusted certificates and disk associations.
    UpdateSettings { instance: InstanceId, agent: AgentId },
    /// Tells a new agent who it is (an apply without configuration) and learns dynamic addresses.
    BindVm { instance: InstanceId, agent: AgentId },
    /// Deletes a VM; one that is already gone counts as deleted.
    DeleteVm { instance: InstanceId, agent: AgentId },

    /// Makes a persistent disk.
    CreateDisk {
        instance: InstanceId,
        agent: AgentId,
        disk: DiskId,
        /// Which of the disks that the instance should have; none: the one that is mounted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<DiskName>,
    },
    /// Attaches a disk to the VM and tells the agent where it is. One with a name is then the instance's one of that name.
    AttachDisk { instance: InstanceId, agent: AgentId, disk: DiskId },
    /// Writes the cloud's metadata of the disk.
    SetDiskMetadata { instance: InstanceId, disk: DiskId },
    /// Mounts an attached disk; it becomes the instance's active one unless a migration follows.
    MountDisk { instance: InstanceId, agent: AgentId, disk: DiskId },
    /// Copies everything from the old disk to the new one, then makes the new one active.
    MigrateDisk { instance: InstanceId, agent: AgentId, from: DiskId, to: DiskId },
    /// Compares what the agent has mounted with the record.
    CheckDisks { instance: InstanceId, agent: AgentId },
    /// Unmounts a disk.
    UnmountDisk { instance: InstanceId, agent: AgentId, disk: DiskId },
    /// Makes the agent forget a disk, then detaches it.
    DetachDisk { instance: InstanceId, agent: AgentId, disk: DiskId },
    /// Gives a disk up: it is kept for some days, then deleted. Changes the state only.
    OrphanDisk { instance: InstanceId, disk: DiskId },
    /// Deletes an orphaned disk for good.
    DeleteOrphanedDisk { disk: DiskId },

    /// Downloads jobs and packages while the old ones run.
    Prepare { instance: InstanceId, agent: AgentId },
    /// Runs a lifecycle script of every job.
    RunScript { instance: InstanceId, agent: AgentId, script: Script, intent: Option<StopIntent> },
    /// Asks the jobs to finish what they are doing.
    Drain { instance: InstanceId, agent: AgentId, drain: DrainKind },
    /// Stops the jobs.
    StopJobs { instance: InstanceId, agent: AgentId },
    /// Renders the templates with real addresses and secrets, and installs jobs and packages.
    Apply { instance: InstanceId, agent: AgentId },
    /// Starts the jobs.
    StartJobs { instance: InstanceId, agent: AgentId },
    /// Waits until the agent says `running`, or fails when the window ends.
    Watch { instance: InstanceId, agent: AgentId, watch: WatchKind },

    /// Compiles a package on a worker; already compiled ones are left alone.
    CompilePackage {
        worker: InstanceId,
        agent: AgentId,
        package: PackageRefKey,
        /// Direct dependencies whose compiled form is for another stemcell of the line.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        compiled_elsewhere: Vec<PackageRefKey>,
    },
    /// Runs an errand and records its result.
    RunErrand { instance: InstanceId, agent: AgentId, errand: JobName },

    /// Marks the instance as being updated: from here on a failure leaves it dirty. Changes the state only.
    BeginUpdate { instance: InstanceId },
    /// Marks the update as completed. Changes the state only.
    CompleteUpdate { instance: InstanceId },
    /// Frees addresses that the instance no longer uses. Changes the state only.
    ReleaseAddresses { instance: InstanceId },
    /// Stores spec, tags and state without touching the VM. Changes the state only.
    SaveInstance { instance: InstanceId },
    /// Forgets an instance and frees its addresses. Changes the state only.
    DeleteInstance { instance: InstanceId },
    /// Stores manifest, configs and releases as the last successful ones. Changes the state only.
    SaveDeployment,
    /// Forgets the deployment. Changes the state only.
    DeleteDeployment,
    /// Remembers what the task's errand ran well on, if all its runs ended well; none: forgets what it last ran well on.
    /// Changes the state only.
    SaveErrand { errand: String, digest: Option<String> },

    /// Leaves a VM to be deleted later: it keeps its addresses, and nobody's agent is in it any more. Changes the state
    /// only.
    OrphanVm { instance: InstanceId, agent: AgentId },
    /// Deletes an orphaned VM; one that is already gone counts as deleted.
    DeleteOrphanedVm { agent: AgentId },
    /// Gives an instance a disk that is there: an orphan, or one that nobody here has made (then with what is known of
    /// it). It is the instance's at once where there is no VM, and when it is mounted where there is. Changes the state
    /// only.
    AdoptDisk { instance: InstanceId, disk: DiskId, cid: DiskCid, foreign: Option<DiskSpec>, at_once: bool },
    /// Deletes a VM that nobody here has made or remembers; one that is already gone counts as deleted.
    DeleteForeignVm { cid: VmCid, cpi: CpiName },

    /// Makes sure that a problem is still there, and that the resolution goes with it. Where it does not, the problem is
    /// closed all the same: the next scan finds what is left of it.
    ConfirmProblem { problem: ProblemId, instance: InstanceId, resolution: String },
    /// Has the cloud reboot a VM.
    RebootVm { instance: InstanceId, agent: AgentId },
    /// Closes a problem. Changes the state only.
    CloseProblem { problem: ProblemId },
    /// Forgets a VM without deleting it; what is then left behind is reported. Changes the state only.
    ForgetVm { instance: InstanceId, agent: AgentId, left: Left },
    /// Makes a disk the one that its instance works with, unless there is one. Changes the state only.
    ActivateDisk { instance: InstanceId, disk: DiskId },

    /// Makes a VM that was made ahead the one that its instance works with, and an orphan of the one before, unless that
    /// has been deleted. Both in one record: there is never a moment with two, or with none. Changes the state only.
    ElectVm { instance: InstanceId, agent: AgentId, instead_of: Option<AgentId> },

    /// Takes a snapshot of a disk, `clean` if jobs have been stopped. A cloud that has no snapshots is passed over.
    SnapshotDisk { instance: InstanceId, disk: DiskId, snapshot: SnapshotId, clean: bool },
    /// Deletes a snapshot; one that is already gone counts as deleted.
    DeleteSnapshot { snapshot: SnapshotId },
}

macro_rules! kinds {
    (deeds { $($deed:ident: $deed_name:literal,)* } records { $($record:ident: $record_name:literal,)* }) => {
        impl Action {
            /// The names of all kinds of steps.
            pub const NAMES: &'static [&'static str] = &[$($deed_name,)* $($record_name,)*];

            /// The names of those that change nothing but our own state.
            pub const RECORD_NAMES: &'static [&'static str] = &[$($record_name,)*];

            /// Returns the step's name, as logs, errors and `dctl task --debug` show it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$deed { .. } => $deed_name,)*
                    $(Self::$record { .. } => $record_name,)*
                }
            }

            /// Returns whether the step changes nothing but our own state, so that recording it is doing it.
            pub fn is_record_only(&self) -> bool {
                matches!(self, $(Self::$record { .. })|*)
            }
        }
    };
}

// Every kind is here once: the compiler misses one that is not.
kinds! {
    deeds {
        CreateVm: "create_vm",
        SetVmMetadata: "set_vm_metadata",
        AwaitAgent: "await_agent",
        UpdateSettings: "update_settings",
        BindVm: "bind_vm",
        DeleteVm: "delete_vm",
        CreateDisk: "create_disk",
        AttachDisk: "attach_disk",
        SetDiskMetadata: "set_disk_metadata",
        MountDisk: "mount_disk",
        MigrateDisk: "migrate_disk",
        CheckDisks: "check_disks",
        UnmountDisk: "unmount_disk",
        DetachDisk: "detach_disk",
        DeleteOrphanedDisk: "delete_orphaned_disk",
        Prepare: "prepare",
        RunScript: "run_script",
        Drain: "drain",
        StopJobs: "stop",
        Apply: "apply",
        StartJobs: "start",
        Watch: "watch",
        CompilePackage: "compile_package",
        RunErrand: "run_errand",
        DeleteOrphanedVm: "delete_orphaned_vm",
        DeleteForeignVm: "delete_foreign_vm",
        ConfirmProblem: "confirm_problem",
        RebootVm: "reboot_vm",
        SnapshotDisk: "snapshot_disk",
        DeleteSnapshot: "delete_snapshot",
    }
    records {
        OrphanDisk: "orphan_disk",
        BeginUpdate: "begin_update",
        CompleteUpdate: "complete_update",
        ReleaseAddresses: "release_addresses",
        SaveInstance: "save_instance",
        DeleteInstance: "delete_instance",
        SaveDeployment: "save_deployment",
        DeleteDeployment: "delete_deployment",
        SaveErrand: "save_errand",
        OrphanVm: "orphan_vm",
        AdoptDisk: "adopt_disk",
        CloseProblem: "close_problem",
        ForgetVm: "forget_vm",
        ActivateDisk: "activate_disk",
        ElectVm: "elect_vm",
    }
}

/// A package to compile: which, and on what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageRefKey {
    /// The package's name.
    pub name: PackageName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The stemcell's operating system.
    pub os: String,
    /// The stemcell's version.
    pub stemcell_version: Version,
    /// Text over the fingerprints of all its dependencies.
    pub dependency_key: String,
}

impl PackageRefKey {
    /// Returns the stemcell that it is for.
    pub fn stemcell(&self) -> StemcellVersion {
        StemcellVersion { os: self.os.clone(), version: self.stemcell_version.clone() }
    }
}

impl PackageRefKey {
    /// Returns the lock under which the package is compiled, by one task at a time.
    pub fn lock(&self) -> LockName {
        let Self { name, fingerprint, os, stemcell_version, .. } = self;
        LockName::new(format!("lock:compile:{name}/{fingerprint}:{os}/{stemcell_version}"))
    }
}

impl Action {
    /// Returns what to do with this step if it was started and nobody recorded how it ended.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::CreateVm { .. }
            | Self::CreateDisk { .. }
            | Self::MigrateDisk { .. }
            | Self::SnapshotDisk { .. } => Recovery::Probe,
            // Scripts are required to be idempotent, except errands; but the agent keeps a request's result
            // under its id, so a repeat is answered from the record. The executor attaches, it does not submit.
            Self::RunErrand { .. } => Recovery::Probe,
            _ => Recovery::Rerun,
        }
    }

    /// Returns the instance that the step works on, if it works on one.
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::CreateVm { instance, .. }
            | Self::SetVmMetadata { instance, .. }
            | Self::AwaitAgent { instance, .. }
            | Self::UpdateSettings { instance, .. }
            | Self::BindVm { instance, .. }
            | Self::DeleteVm { instance, .. }
            | Self::CreateDisk { instance, .. }
            | Self::AttachDisk { instance, .. }
            | Self::SetDiskMetadata { instance, .. }
            | Self::MountDisk { instance, .. }
            | Self::MigrateDisk { instance, .. }
            | Self::CheckDisks { instance, .. }
            | Self::UnmountDisk { instance, .. }
            | Self::DetachDisk { instance, .. }
            | Self::OrphanDisk { instance, .. }
            | Self::Prepare { instance, .. }
            | Self::RunScript { instance, .. }
            | Self::Drain { instance, .. }
            | Self::StopJobs { instance, .. }
            | Self::Apply { instance, .. }
            | Self::StartJobs { instance, .. }
            | Self::Watch { instance, .. }
            | Self::RunErrand { instance, .. }
            | Self::BeginUpdate { instance }
            | Self::CompleteUpdate { instance }
            | Self::ReleaseAddresses { instance }
            | Self::SaveInstance { instance }
            | Self::DeleteInstance { instance }
            | Self::OrphanVm { instance, .. }
            | Self::AdoptDisk { instance, .. }
            | Self::ConfirmProblem { instance, .. }
            | Self::RebootVm { instance, .. }
            | Self::ForgetVm { instance, .. }
            | Self::ActivateDisk { instance, .. }
            | Self::ElectVm { instance, .. }
            | Self::SnapshotDisk { instance, .. } => Some(instance),
            Self::CompilePackage { worker, .. } => Some(worker),
            Self::DeleteOrphanedDisk { .. }
            | Self::DeleteOrphanedVm { .. }
            | Self::DeleteForeignVm { .. }
            | Self::SaveDeployment
            | Self::DeleteDeployment
            | Self::SaveErrand { .. }
            | Self::CloseProblem { .. }
            | Self::DeleteSnapshot { .. } => None,
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the line of each variant speaks for its fields")]
pub enum StepOutcome {
    /// Done, nothing to remember.
    Done,
    /// `create_vm` gave this VM.
    VmCreated { cid: VmCid },
    /// A dynamic network's address was learned.
    Bound { networks: Vec<crate::instance::NetworkSettings> },
    /// `create_disk` gave this disk.
    DiskCreated { cid: DiskCid },
    /// The spec was applied; these hashes describe what was rendered.
    Applied { configuration_hash: String, template_hashes: std::collections::BTreeMap<JobName, String> },
    /// A package was compiled into this blob.
    Compiled { blob: BlobDigest, digest: String, size_bytes: u64 },
    /// An errand ended; the line goes into the task's result.
    ErrandRan { exit_code: i32, result_line: String },
    /// The step failed; the instance stays dirty.
    Failed {
        error: crate::task::TaskError,
        /// What of it may exist all the same.
        #[serde(default, skip_serializing_if = "Left::is_nothing")]
        left: Left,
        /// What an errand has to tell although it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result_line: Option<String>,
    },
    /// A cleanup step could not tell whether something still exists out there.
    MayHaveLeaked { what: String },
    /// The step failed, and its unit goes on without what it should have done.
    PassedOver { error: crate::task::TaskError },
    /// `snapshot_disk` gave this snapshot.
    SnapshotTaken { cid: SnapshotCid },
}

impl StepOutcome {
    /// Makes the outcome of a failure that left nothing and has nothing else to tell.
    pub fn failed(error: crate::task::TaskError) -> Self {
        Self::Failed { error, left: Left::Nothing, result_line: None }
    }
}

/// What a failed step may have left in the world outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Nothing.
    #[default]
    Nothing,
    /// What it was to make may exist, and nobody could be asked: its row stays, so that whoever deletes it looks for it.
    Perhaps,
}

impl Left {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}
