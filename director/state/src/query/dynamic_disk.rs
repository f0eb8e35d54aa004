//! Dynamic disks, and VMs that are about to go.

use model::dynamic_disk::DynamicDisk;
use model::{AgentId, DeploymentName, DiskCid, DynamicDiskName, TaskId};

use super::State;
use crate::kv::Direction;
use crate::tables::*;

impl State<'_> {
    /// Returns all dynamic disks, by name, those included of which nobody knows yet whether they were made.
    pub fn dynamic_disks(&self) -> Vec<DynamicDisk> {
        DYNAMIC_DISKS.rows(self.kv, Direction::Forward).map(|(_, disk)| disk).collect()
    }

    /// Returns one of them.
    pub fn dynamic_disk(&self, name: &DynamicDiskName) -> Option<DynamicDisk> {
        DYNAMIC_DISKS.get(self.kv, name)
    }

    /// Returns a deployment's.
    pub fn dynamic_disks_of(&self, deployment: &DeploymentName) -> Vec<DynamicDisk> {
        let all = DYNAMIC_DISKS.rows(self.kv, Direction::Forward).map(|(_, disk)| disk);
        all.filter(|disk| disk.deployment == *deployment).collect()
    }

    /// Returns those that the VM of an agent has, or may have.
    pub fn dynamic_disks_on(&self, agent: &AgentId) -> Vec<DynamicDisk> {
        let names = DYNAMIC_DISKS_ON.rows_of(self.kv, agent, Direction::Forward).map(|((_, name), ())| name);
        names.filter_map(|name| self.dynamic_disk(&name)).collect()
    }

    /// Returns the one that has this id in its cloud.
    pub fn dynamic_disk_by_cid(&self, cid: &DiskCid) -> Option<DynamicDisk> {
        let mut all = DYNAMIC_DISKS.rows(self.kv, Direction::Forward).map(|(_, disk)| disk);
        all.find(|disk| disk.cid.as_ref() == Some(cid))
    }

    /// Returns the open task that is about to take away the VM of an agent.
    pub fn leaving(&self, agent: &AgentId) -> Option<TaskId> {
        VMS_LEAVING.get(self.kv, agent).filter(|task| TASKS_OPEN.has(self.kv, task))
    }

    /// Returns whether a task is open, and thus may be at work.
    pub fn is_open(&self, task: TaskId) -> bool {
        TASKS_OPEN.has(self.kv, &task)
    }
}
