//! Snapshots of persistent disks.

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// A snapshot of a persistent disk. It stays with the disk, also when that becomes an orphan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Our id, chosen by the plan.
    pub id: SnapshotId,
    /// The cloud's id; none while `snapshot_disk` has not answered.
    pub cid: Option<SnapshotCid>,
    /// The disk.
    pub disk: DiskId,
    /// The CPI that made both.
    pub cpi: CpiName,
    /// Whose disk it was then (`group/uuid`).
    pub slug: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Whether jobs were stopped when it was taken.
    pub clean: bool,
}
