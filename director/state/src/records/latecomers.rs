//! VMs, disks and snapshots that may still appear, although whoever asked for them was told nothing and looked for them in vain.

use model::snapshot::Snapshot;
use model::*;
use serde::{Deserialize, Serialize};

use super::{Leak, OrphanedDisk, OrphanedVm};

/// By what something that a call may have made is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sought {
    /// A VM, by its agent's id.
    Vm(AgentId),
    /// A disk, by our id.
    Disk(DiskId),
    /// A snapshot, by our id.
    Snapshot(SnapshotId),
}

impl std::fmt::Display for Sought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(agent) => write!(f, "VM with agent id {agent}"),
            Self::Disk(disk) => write!(f, "disk with disk id {disk}"),
            Self::Snapshot(snapshot) => write!(f, "snapshot with snapshot id {snapshot}"),
        }
    }
}

/// What may still appear. The leader looks for it from time to time, as long as clouds may take for a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latecomer {
    /// Its number on the list of leaks, from the event that reported it.
    pub id: EventId,
    /// By what it is looked for.
    pub sought: Sought,
    /// What it is filed as when it appears and nobody has a claim on it.
    pub orphan: Orphan,
    /// The task whose call was not answered last.
    pub task: TaskId,
    /// Since when.
    pub at: Timestamp,
    /// For how long the leader still looks, in milliseconds of its own clock's pace: no clock's time of day counts.
    pub left_ms: u64,
}

/// Something without an instance, as it is filed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphan {
    /// A VM.
    Vm(Box<OrphanedVm>),
    /// A disk.
    Disk(Box<OrphanedDisk>),
    /// A snapshot: it goes to the others of its disk.
    Snapshot(Box<Snapshot>),
}

impl Latecomer {
    /// Returns the cloud that may make it.
    pub fn cpi(&self) -> &CpiName {
        match &self.orphan {
            Orphan::Vm(orphan) => &orphan.vm.cpi,
            Orphan::Disk(orphan) => &orphan.disk.cpi,
            Orphan::Snapshot(snapshot) => &snapshot.cpi,
        }
    }

    /// Returns it as it stands on the list of leaks.
    pub fn as_leak(&self) -> Leak {
        let slug = match &self.orphan {
            Orphan::Vm(orphan) => &orphan.slug,
            Orphan::Disk(orphan) => &orphan.slug,
            Orphan::Snapshot(snapshot) => &snapshot.slug,
        };
        let what = format!(
            "{} of '{slug}' may still appear: the call that was to create it was not answered. The director looks for it",
            self.sought
        );
        Leak { id: self.id, what, task: Some(self.task), at: self.at }
    }
}
