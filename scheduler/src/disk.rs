//! Persistent disks of one instance: kept, made, replaced, or given up.
//!
//! The one that is mounted is replaced with a copy. Those with names belong to the jobs, of whose content nobody knows
//! anything: another one takes the place of such a disk, empty, and the old one is kept as an orphan for some days.

use std::collections::BTreeMap;

use model::instance::{Disk, DiskSpec, InstanceSpec};
use model::step::Action;
use model::*;

use crate::steps::Steps;

/// What happens to one disk of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskChange {
    /// It gets one.
    Create(DiskId),
    /// It gets another one.
    Replace { from: DiskId, to: DiskId },
    /// It loses the one it had.
    Remove(DiskId),
}

/// What happens to an instance's disks, in the order of their names, the mounted one first. What is not in here stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskChanges(BTreeMap<Option<DiskName>, DiskChange>);

/// Whether a disk stays that is to be of the kind that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SameDisk {
    /// It does.
    Keep,
    /// It is replaced all the same (`recreate_persistent_disks`, or a secret in its properties was rotated).
    Replace,
}

impl DiskChanges {
    /// Decides what happens; `fresh` gives the ids of disks to be made.
    pub(crate) fn of(
        active: &[&Disk],
        wanted: &InstanceSpec,
        same: impl Fn(&DiskSpec) -> SameDisk,
        mut fresh: impl FnMut() -> DiskId,
    ) -> Self {
        let mut names: Vec<Option<&DiskName>> = active.iter().map(|disk| disk.spec.name.as_ref()).collect();
        names.extend(wanted.disks().map(|disk| disk.name.as_ref()));
        names.sort();
        names.dedup();
        let mut changes = BTreeMap::new();
        for name in names {
            let old = active.iter().find(|disk| disk.spec.name.as_ref() == name);
            let change = match (old, wanted.disk(name)) {
                (None, None) => continue,
                (Some(old), Some(wanted)) if is_same(&old.spec, wanted) && same(wanted) == SameDisk::Keep => {
                    continue;
                }
                (None, Some(_)) => DiskChange::Create(fresh()),
                (Some(old), None) => DiskChange::Remove(old.id.clone()),
                (Some(old), Some(_)) => DiskChange::Replace { from: old.id.clone(), to: fresh() },
            };
            changes.insert(name.cloned(), change);
        }
        Self(changes)
    }

    /// Returns whether all stay.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether any of those changes that jobs find by name.
    pub(crate) fn concern_names(&self) -> bool {
        self.0.keys().any(Option::is_some)
    }

    /// Returns whether a disk stays.
    pub(crate) fn keep(&self, disk: &Disk) -> bool {
        !self.0.contains_key(&disk.spec.name)
    }

    /// Returns whether the instance loses a disk, and gets no other one in its place.
    pub(crate) fn remove(&self, disk: &Disk) -> bool {
        matches!(self.0.get(&disk.spec.name), Some(DiskChange::Remove(_)))
    }

    /// Adds the deeds.
    pub(crate) fn steps(&self, steps: &mut Steps, instance: &InstanceId, agent: &AgentId) {
        for (name, change) in &self.0 {
            one(steps, (name.as_ref(), change), instance, agent);
        }
    }

    /// Adds the deeds where those disks that go were taken away already.
    pub(crate) fn steps_without_removals(&self, steps: &mut Steps, instance: &InstanceId, agent: &AgentId) {
        for (name, change) in &self.0 {
            match change {
                DiskChange::Remove(disk) => give_up(steps, instance, disk),
                change => one(steps, (name.as_ref(), change), instance, agent),
            }
        }
    }
}

/// Returns whether two disks are of one kind; the type's name does not matter.
pub(crate) fn is_same(a: &DiskSpec, b: &DiskSpec) -> bool {
    a.size_mib == b.size_mib && a.cloud_properties == b.cloud_properties
}

fn one(
    steps: &mut Steps,
    (name, change): (Option<&DiskName>, &DiskChange),
    instance: &InstanceId,
    agent: &AgentId,
) {
    let create = |steps: &mut Steps, disk: &DiskId| {
        let (instance_id, agent_id) = (instance.clone(), agent.clone());
        let (disk_id, name_of) = (disk.clone(), name.cloned());
        steps.push(Action::CreateDisk {
            instance: instance_id,
            agent: agent_id,
            disk: disk_id,
            name: name_of,
        });
        steps.give(instance, agent, (disk, name));
    };
    let take = |steps: &mut Steps, disk: &DiskId| {
        steps.take(instance, agent, (disk, name));
        give_up(steps, instance, disk);
    };
    match change {
        DiskChange::Create(disk) => create(steps, disk),
        DiskChange::Remove(disk) => take(steps, disk),
        DiskChange::Replace { from, to } => {
            create(steps, to);
            if name.is_none() {
                steps.push(Action::MigrateDisk {
                    instance: instance.clone(),
                    agent: agent.clone(),
                    from: from.clone(),
                    to: to.clone(),
                });
            }
            take(steps, from);
        }
    }
}

fn give_up(steps: &mut Steps, instance: &InstanceId, disk: &DiskId) {
    steps.push(Action::OrphanDisk { instance: instance.clone(), disk: disk.clone() });
}
