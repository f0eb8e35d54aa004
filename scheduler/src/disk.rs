//! Persistent disks of one instance: kept, made, replaced with a copy, or given up.

use model::instance::{Disk, DiskSpec};
use model::step::Action;
use model::*;

use crate::steps::Steps;

/// What happens to an instance's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskChange {
    /// Nothing.
    Keep,
    /// It gets one.
    Create(DiskId),
    /// It gets another, with the old one's content.
    Replace { from: DiskId, to: DiskId },
    /// It loses the one it had.
    Remove(DiskId),
}

/// Whether a disk of the same kind is replaced all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SameDisk {
    /// It stays.
    Keep,
    /// It is replaced (`recreate_persistent_disks`, or a secret in its properties was rotated).
    Replace,
}

/// Decides what happens; `fresh` is the id of a disk to be made.
pub(crate) fn change(
    active: Option<&Disk>,
    wanted: Option<&DiskSpec>,
    same: SameDisk,
    fresh: impl FnOnce() -> DiskId,
) -> DiskChange {
    match (active, wanted) {
        (None, None) => DiskChange::Keep,
        (None, Some(_)) => DiskChange::Create(fresh()),
        (Some(old), None) => DiskChange::Remove(old.id.clone()),
        (Some(old), Some(wanted)) if is_same(&old.spec, wanted) && same == SameDisk::Keep => DiskChange::Keep,
        (Some(old), Some(_)) => DiskChange::Replace { from: old.id.clone(), to: fresh() },
    }
}

/// Returns whether two disks are of one kind; the type's name does not matter.
pub(crate) fn is_same(a: &DiskSpec, b: &DiskSpec) -> bool {
    a.size_mib == b.size_mib && a.cloud_properties == b.cloud_properties
}

/// Adds the deeds of a change.
pub(crate) fn steps(steps: &mut Steps, change: &DiskChange, instance: &InstanceId, agent: &AgentId) {
    let create = |steps: &mut Steps, disk: &DiskId| {
        steps.push(Action::CreateDisk {
            instance: instance.clone(),
            agent: agent.clone(),
            disk: disk.clone(),
        });
        steps.mount(instance, agent, disk);
    };
    let give_up = |steps: &mut Steps, disk: &DiskId| {
        steps.unmount(instance, agent, disk);
        steps.push(Action::OrphanDisk { instance: instance.clone(), disk: disk.clone() });
    };
    match change {
        DiskChange::Keep => {}
        DiskChange::Create(disk) => create(steps, disk),
        DiskChange::Remove(disk) => give_up(steps, disk),
        DiskChange::Replace { from, to } => {
            create(steps, to);
            steps.push(Action::MigrateDisk {
                instance: instance.clone(),
                agent: agent.clone(),
                from: from.clone(),
                to: to.clone(),
            });
            give_up(steps, from);
        }
    }
}
