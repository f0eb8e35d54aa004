//! `migrated_from`: instances of groups that were renamed or merged.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{Disk, Instance};
use model::manifest::{InstanceGroup, Manifest};
use model::task::TaskError;
use model::*;

use crate::placement::Existing;

/// Instances that were there before, by the group that they belong to now, and those whose group is gone.
pub(crate) struct Adopted<'a> {
    by_group: BTreeMap<&'a GroupName, Vec<Existing<'a>>>,
    /// Instances of groups that are neither wanted nor the source of one.
    pub(crate) orphans: Vec<&'a Instance>,
}

impl<'a> Adopted<'a> {
    /// Sorts stored instances into the groups of the manifest (190018, 190021).
    pub(crate) fn sort(
        manifest: &'a Manifest,
        instances: &'a [Instance],
        disks: &[Disk],
    ) -> Result<Self, TaskError> {
        let with_disk: BTreeSet<&InstanceId> = disks.iter().map(|d| &d.instance).collect();
        let mut stored: BTreeMap<&GroupName, Vec<&Instance>> = BTreeMap::new();
        for instance in instances.iter().filter(|i| !i.compilation) {
            stored.entry(&instance.spec.group).or_default().push(instance);
        }
        let mut by_group = BTreeMap::new();
        let mut sources = BTreeSet::new();
        check_sources(manifest)?;
        for group in &manifest.groups {
            let mut members = Vec::new();
            let own = !group.migrated_from.iter().any(|m| m.name == group.name);
            for instance in stored.get(&group.name).filter(|_| own).into_iter().flatten() {
                members.push(member(instance, instance.spec.az.clone(), false, &with_disk));
            }
            for source in &group.migrated_from {
                sources.insert(&source.name);
                for instance in stored.get(&source.name).into_iter().flatten() {
                    let az = adopted_az(group, instance, source.az.as_ref())?;
                    members.push(member(instance, az, source.name != group.name, &with_disk));
                }
            }
            members.sort_by_key(|m| m.instance.spec.index);
            by_group.insert(&group.name, members);
        }
        let mut orphans = Vec::new();
        for (group, members) in stored {
            if by_group.contains_key(group) || sources.contains(group) {
                continue;
            }
            if members.iter().any(|i| i.ignore) {
                return Err(TaskError::new(
                    ErrorCode::DeploymentIgnoredInstancesDeletion,
                    format!(
                        "You are trying to delete instance group '{group}', which contains ignored instance(s). Operation not allowed."
                    ),
                ));
            }
            orphans.extend(members);
        }
        Ok(Self { by_group, orphans })
    }

    /// Takes the instances that belong to a group now, in the order of index.
    pub(crate) fn take(&mut self, group: &GroupName) -> Vec<Existing<'a>> {
        self.by_group.remove(group).unwrap_or_default()
    }
}

fn member<'a>(
    instance: &'a Instance,
    az: Option<AzName>,
    migrated: bool,
    with_disk: &BTreeSet<&InstanceId>,
) -> Existing<'a> {
    Existing { instance, az, has_disk: with_disk.contains(&instance.spec.id), migrated }
}

fn check_sources(manifest: &Manifest) -> Result<(), TaskError> {
    let groups: BTreeSet<&GroupName> = manifest.groups.iter().map(|g| &g.name).collect();
    let mut taken: BTreeMap<&GroupName, &GroupName> = BTreeMap::new();
    for group in &manifest.groups {
        for source in &group.migrated_from {
            if source.name != group.name && groups.contains(&source.name) {
                return Err(invalid(format!(
                    "Failed to migrate instance group '{}' to '{}'. A deployment can not migrate an instance group and also specify it. Please remove instance group '{}'.",
                    source.name, group.name, source.name
                )));
            }
            if let Some(first) = taken.insert(&source.name, &group.name) {
                return Err(invalid(format!(
                    "Failed to migrate instance group '{}' to '{first}'. An instance group may be migrated to only one instance group.",
                    source.name
                )));
            }
        }
    }
    Ok(())
}

/// An instance without a zone takes the one that the manifest gives for its source; one with a zone must agree.
fn adopted_az(
    group: &InstanceGroup,
    instance: &Instance,
    given: Option<&AzName>,
) -> Result<Option<AzName>, TaskError> {
    let source = &instance.spec.group;
    match (&instance.spec.az, given) {
        (None, Some(given)) => Ok(Some(given.clone())),
        (None, None) if !group.azs.is_empty() => Err(invalid(format!(
            "Failed to migrate instance group '{source}' to '{}', availability zone of '{source}' is not specified",
            group.name
        ))),
        (Some(own), Some(given)) if own != given => Err(invalid(format!(
            "Failed to migrate instance group '{source}' to '{}', '{source}' belongs to availability zone '{own}' and manifest specifies '{given}'",
            group.name
        ))),
        (own, _) => Ok(own.clone()),
    }
}

fn invalid(message: String) -> TaskError {
    TaskError::new(ErrorCode::DeploymentInvalidMigratedFromJob, message)
}
