//! Rows that only this crate sees: what a public record is taken apart into, and book-keeping.

use std::collections::BTreeMap;

use model::task::{Task, TaskError, TaskKind, TaskState};
use model::*;
use serde::{Deserialize, Serialize};

/// A task without what it is for: that part may hold a whole manifest, and every step record touches this row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskRow {
    pub id: TaskId,
    pub class: TaskClass,
    pub deployment: Option<DeploymentName>,
    pub user: UserName,
    pub context_id: String,
    pub state: TaskState,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub locks: Vec<LockName>,
    pub epoch: Epoch,
    pub planned: bool,
    pub result: Option<String>,
    pub error: Option<TaskError>,
    pub labels: BTreeMap<String, String>,
    /// The audit event that began the task's change of its deployment.
    #[serde(default)]
    pub audit: Option<TaskAudit>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<String>,
}

/// What the closing audit event of a task needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskAudit {
    pub event: EventId,
    pub action: String,
    /// Releases and stemcells before the task.
    pub before: serde_json::Value,
}

/// Kinds of task, for what is kept of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaskClass {
    Deploy,
    DryRun,
    DeleteDeployment,
    ChangeState,
    RunErrand,
    ScanAndFix,
    UploadRelease,
    UploadStemcell,
    DeleteRelease,
    DeleteStemcell,
    DeleteOrphanedDisks,
    DeleteOrphanedVms,
    Inspect,
    CleanUp,
    FetchLogs,
    OrphanDisk,
    AttachDisk,
    DeleteVm,
    Ssh,
    ScanCloud,
    ApplyResolutions,
    ChangeInstance,
    ExportRelease,
    TakeSnapshots,
    DeleteSnapshots,
    DeleteOrphanedNetworks,
    CreateDynamicDisk,
    AttachDynamicDisk,
    ProvideDynamicDisk,
    DetachDynamicDisk,
    DeleteDynamicDisk,
    RotateCertificates,
}

impl TaskClass {
    pub fn of(kind: &TaskKind) -> Self {
        match kind {
            TaskKind::Deploy { options, .. } if options.dry_run => Self::DryRun,
            TaskKind::Deploy { .. } => Self::Deploy,
            TaskKind::DeleteDeployment { .. } => Self::DeleteDeployment,
            TaskKind::ChangeState { dry_run: true, .. } => Self::DryRun,
            TaskKind::ChangeState { .. } => Self::ChangeState,
            TaskKind::RunErrand { .. } => Self::RunErrand,
            TaskKind::ScanAndFix { .. } => Self::ScanAndFix,
            TaskKind::UploadRelease { .. } | TaskKind::FetchRelease { .. } => Self::UploadRelease,
            TaskKind::UploadStemcell { .. } | TaskKind::FetchStemcell { .. } => Self::UploadStemcell,
            TaskKind::DeleteRelease { .. } => Self::DeleteRelease,
            TaskKind::DeleteStemcell { .. } => Self::DeleteStemcell,
            TaskKind::DeleteOrphanedDisks { .. } => Self::DeleteOrphanedDisks,
            TaskKind::DeleteOrphanedVms { .. } => Self::DeleteOrphanedVms,
            TaskKind::Inspect { .. } => Self::Inspect,
            TaskKind::CleanUp { .. } => Self::CleanUp,
            TaskKind::FetchLogs { .. } => Self::FetchLogs,
            TaskKind::OrphanDisk { .. } => Self::OrphanDisk,
            TaskKind::AttachDisk { .. } => Self::AttachDisk,
            TaskKind::DeleteVm { .. } => Self::DeleteVm,
            TaskKind::Ssh { .. } => Self::Ssh,
            TaskKind::ScanCloud => Self::ScanCloud,
            TaskKind::ApplyResolutions { .. } => Self::ApplyResolutions,
            TaskKind::ChangeInstance { .. } => Self::ChangeInstance,
            TaskKind::ExportRelease { .. } => Self::ExportRelease,
            TaskKind::TakeSnapshots { .. } => Self::TakeSnapshots,
            TaskKind::DeleteSnapshots { .. } => Self::DeleteSnapshots,
            TaskKind::DeleteOrphanedNetworks { .. } => Self::DeleteOrphanedNetworks,
            TaskKind::CreateDynamicDisk { .. } => Self::CreateDynamicDisk,
            TaskKind::AttachDynamicDisk { .. } => Self::AttachDynamicDisk,
            TaskKind::ProvideDynamicDisk { .. } => Self::ProvideDynamicDisk,
            TaskKind::DetachDynamicDisk { .. } => Self::DetachDynamicDisk,
            TaskKind::DeleteDynamicDisk { .. } => Self::DeleteDynamicDisk,
            TaskKind::RotateCertificates { .. } => Self::RotateCertificates,
        }
    }

    /// Returns the number under which the class is indexed on disk.
    pub fn number(self) -> u8 {
        match self {
            Self::Deploy => 1,
            Self::DryRun => 2,
            Self::DeleteDeployment => 3,
            Self::ChangeState => 4,
            Self::RunErrand => 5,
            Self::ScanAndFix => 6,
            Self::UploadRelease => 7,
            Self::UploadStemcell => 8,
            Self::DeleteRelease => 9,
            Self::DeleteStemcell => 10,
            Self::DeleteOrphanedDisks => 11,
            Self::DeleteOrphanedVms => 12,
            Self::Inspect => 13,
            Self::CleanUp => 14,
            Self::FetchLogs => 15,
            Self::OrphanDisk => 16,
            Self::AttachDisk => 17,
            Self::DeleteVm => 18,
            Self::Ssh => 21,
            Self::ScanCloud => 19,
            Self::ApplyResolutions => 20,
            Self::ChangeInstance => 22,
            Self::ExportRelease => 24,
            Self::TakeSnapshots => 31,
            Self::DeleteSnapshots => 32,
            Self::DeleteOrphanedNetworks => 33,
            Self::CreateDynamicDisk => 34,
            Self::AttachDynamicDisk => 35,
            Self::ProvideDynamicDisk => 36,
            Self::DetachDynamicDisk => 37,
            Self::DeleteDynamicDisk => 38,
            Self::RotateCertificates => 39,
        }
    }
}

impl TaskRow {
    /// Puts the task together again.
    pub fn with_kind(self, kind: TaskKind) -> Task {
        Task {
            id: self.id,
            kind,
            deployment: self.deployment,
            user: self.user,
            context_id: self.context_id,
            state: self.state,
            queued_at: self.queued_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            updated_at: self.updated_at,
            locks: self.locks,
            epoch: self.epoch,
            planned: self.planned,
            result: self.result,
            error: self.error,
            labels: self.labels,
            teams: self.teams,
        }
    }
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leader {
    pub epoch: Epoch,
    pub node: NodeId,
}

/// What step records need of a plan, without its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanInfo {
    pub deployment: Option<DeploymentName>,
    pub generation: u64,
    pub variable_set: Option<VariableSetId>,
}

/// A change as it is kept: table number, key, whether deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeRow(pub u8, pub String, pub bool);
