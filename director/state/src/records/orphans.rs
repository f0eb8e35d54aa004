//! VMs and disks without an instance.

use model::instance::{Disk, Vm};
use model::*;
use serde::{Deserialize, Serialize};

/// A VM that no instance uses any more; its cloud is asked to delete it later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrphanedVm {
    /// The VM as it was.
    pub vm: Vm,
    /// Its deployment.
    pub deployment: DeploymentName,
    /// Its instance (`group/uuid`).
    pub slug: String,
    /// Its zone.
    pub az: Option<AzName>,
    /// Since when.
    pub orphaned_at: Timestamp,
}

/// A disk that no instance uses any more; kept for some days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrphanedDisk {
    /// The disk as it was.
    pub disk: Disk,
    /// Its deployment.
    pub deployment: DeploymentName,
    /// Its instance (`group/uuid`).
    pub slug: String,
    /// Its zone.
    pub az: Option<AzName>,
    /// Since when.
    pub orphaned_at: Timestamp,
}
