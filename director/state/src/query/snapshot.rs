//! Snapshots of disks.

use model::snapshot::Snapshot;
use model::*;

use super::State;
use crate::kv::Direction;
use crate::tables::*;

impl State<'_> {
    /// Returns a snapshot by our id.
    pub fn snapshot(&self, id: &SnapshotId) -> Option<Snapshot> {
        SNAPSHOTS.get(self.kv, id)
    }

    /// Returns the snapshots of a disk, also of an orphaned one, oldest first; those whose taking has not ended (yet, or in
    /// an answer) are among them.
    pub fn snapshots_of(&self, disk: &DiskId) -> Vec<Snapshot> {
        let ids = SNAPSHOTS_OF.rows_of(self.kv, disk, Direction::Forward);
        let mut snapshots: Vec<Snapshot> = ids.filter_map(|((_, id), ())| self.snapshot(&id)).collect();
        snapshots.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        snapshots
    }

    /// Returns the snapshots of an instance's disks, oldest first.
    pub fn instance_snapshots(&self, instance: &InstanceId) -> Vec<Snapshot> {
        let disks = self.disks(instance).into_iter();
        let mut snapshots: Vec<Snapshot> = disks.flat_map(|disk| self.snapshots_of(&disk.id)).collect();
        snapshots.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        snapshots
    }

    /// Returns the snapshots of a deployment's disks, by instance.
    pub fn deployment_snapshots(&self, deployment: &DeploymentName) -> Vec<Snapshot> {
        let ids = INSTANCES_OF.rows_of(self.kv, deployment, Direction::Forward);
        ids.flat_map(|((_, id), ())| self.instance_snapshots(&id)).collect()
    }
}
