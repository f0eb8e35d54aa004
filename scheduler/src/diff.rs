//! What makes an instance change. No reason: the VM is not touched.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{
    Disk, InstanceSpec, InstanceState, JobSpec, NetworkKind, NetworkSettings, StemcellRef, Vm,
};
use model::interpolate::{placeholders, split_keys};
use model::manifest::variable::absolute_name;
use model::plan::Change;
use model::step::PackageRefKey;
use model::task::StateChange;
use model::*;
use serde_json::Value;

use crate::disk::is_same;
use crate::draft::DraftInstance;
use crate::facts::Known;
use crate::input::PlanInput;

/// Changes after which nothing but metadata is written.
const MINIMAL: [Change; 2] = [Change::Dns, Change::Tags];

/// Changes that need another VM.
const NEW_VM: [Change; 5] =
    [Change::Recreate, Change::CloudProperties, Change::Stemcell, Change::Env, Change::Network];

/// Returns whether these changes leave jobs alone.
pub(crate) fn is_minimal(changes: &[Change]) -> bool {
    changes.iter().all(|c| MINIMAL.contains(c))
}

/// Returns whether these changes need another VM.
pub(crate) fn needs_new_vm(changes: &[Change]) -> bool {
    changes.iter().any(|c| NEW_VM.contains(c))
}

/// Compares what is with what should be.
pub(crate) struct Comparison<'a> {
    pub(crate) input: &'a PlanInput<'a>,
    /// Tags that groups gave their VMs in the last deploy: those never change a VM.
    pub(crate) group_tags_before: BTreeMap<GroupName, BTreeSet<String>>,
    /// Tags that groups give their VMs now.
    pub(crate) group_tags_now: BTreeMap<GroupName, BTreeSet<String>>,
}

impl Comparison<'_> {
    /// Returns the reasons to touch an instance that exists, in BOSH's order.
    pub(crate) fn changes(&self, known: &Known<'_>, wanted: &DraftInstance) -> Vec<Change> {
        let (old, new) = (known.instance, &wanted.spec);
        if wanted.state == InstanceState::Detached {
            // Nothing else shows without a VM; all of it is compared again when the instance starts.
            return if known.vm.is_some() { vec![Change::State] } else { Vec::new() };
        }
        if wanted.state == InstanceState::Stopped && old.state == InstanceState::Stopped && known.vm.is_some()
        {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut add = |change: Change, holds: bool| {
            if holds {
                changes.push(change);
            }
        };
        let options = self.input.options;
        let has_vm = known.vm.is_some();
        add(Change::Dirty, !old.update_completed);
        add(Change::Restart, wanted.request == Some(StateChange::Restart));
        add(Change::Recreate, is_recreated(self.input, known, wanted));
        add(
            Change::RecreatePersistentDisks,
            options.recreate_persistent_disks && known.mounted_disk().is_some(),
        );
        if let Some(vm) = known.vm {
            let differs = vm_differences(self.input, vm, old.variable_set, new);
            let of_vm = [Change::CloudProperties, Change::Stemcell, Change::Env, Change::Network];
            for change in of_vm {
                // The VM that stands ready has other addresses.
                let moves = change == Change::Network && wanted.ahead.is_some();
                add(change, moves || differs.contains(&change));
            }
        }
        // An instance without VM has no packages and no configuration, whatever it once had.
        let nothing_there = !has_vm;
        let packages = if nothing_there {
            !new.packages.is_empty()
        } else {
            known.vm.is_some_and(|vm| packages_differ(&old.spec, vm, new))
        };
        add(Change::Packages, packages);
        add(Change::PersistentDisk, self.disk_differs(known, new));
        let hash = |spec: &InstanceSpec| spec.configuration_hash.clone();
        add(
            Change::Configuration,
            nothing_there || (new.configuration_hash.is_some() && hash(&old.spec) != hash(new)),
        );
        add(Change::Job, old.spec.group != new.group || jobs(&old.spec.jobs) != jobs(&new.jobs));
        let state = match wanted.state {
            InstanceState::Started => nothing_there || old.state != wanted.state || !known.is_running(),
            InstanceState::Stopped | InstanceState::Detached => old.state != wanted.state,
        };
        add(Change::State, state && (!known.is_unresponsive() || nothing_there));
        add(Change::Tags, has_vm && self.tags_differ(&old.spec, new));
        changes
    }

    fn disk_differs(&self, known: &Known<'_>, new: &InstanceSpec) -> bool {
        let set = known.instance.variable_set;
        let stays = |disk: &Disk| {
            new.disk(disk.spec.name.as_ref()).is_some_and(|wanted| {
                is_same(&disk.spec, wanted) && !is_rotated(self.input, set, &wanted.cloud_properties)
            })
        };
        known.disks.len() != new.disks().count() || !known.disks.iter().all(|disk| stays(disk))
    }

    /// Compares the deployment's tags. A group's own tags count at creation only.
    fn tags_differ(&self, old: &InstanceSpec, new: &InstanceSpec) -> bool {
        let empty = BTreeSet::new();
        let of_group = self.group_tags_before.get(&old.group).unwrap_or(&empty);
        let current = self.group_tags_now.get(&new.group).unwrap_or(&empty);
        let relevant =
            |tags: &BTreeMap<String, String>, skip: &BTreeSet<String>| -> BTreeMap<String, String> {
                tags.iter().filter(|(k, _)| !skip.contains(*k)).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
        relevant(&old.tags, of_group) != relevant(&new.tags, current)
    }
}

/// Returns whether an instance gets another VM whatever it is like: that was asked for, or nobody can talk to it.
pub(crate) fn is_recreated(input: &PlanInput<'_>, known: &Known<'_>, wanted: &DraftInstance) -> bool {
    let Some(vm) = known.vm else { return false };
    let is_old_enough = input.options.created_before.is_none_or(|at| vm.created_at < at);
    let asked = input.options.recreate || wanted.request == Some(StateChange::Recreate);
    (asked && is_old_enough) || known.is_unresponsive()
}

/// Returns in what a VM differs from what an instance should have. `set` has the versions of secrets that it was made
/// with.
pub(crate) fn vm_differences(
    input: &PlanInput<'_>,
    vm: &Vm,
    set: VariableSetId,
    wanted: &InstanceSpec,
) -> Vec<Change> {
    let rotated = |value: &Value| is_rotated(input, set, value);
    let stemcell = |s: &StemcellRef| (s.name.clone(), s.version.clone());
    let networks = &wanted.networks;
    let checks = [
        (
            Change::CloudProperties,
            vm.cloud_properties != wanted.cloud_properties || rotated(&wanted.cloud_properties),
        ),
        (Change::Stemcell, stemcell(&vm.stemcell) != stemcell(&wanted.stemcell)),
        (Change::Env, vm.env != wanted.env),
        (
            Change::Network,
            networks.iter().any(|n| rotated(&n.cloud_properties)) || networks_differ(&vm.networks, networks),
        ),
    ];
    checks.into_iter().filter_map(|(change, holds)| holds.then_some(change)).collect()
}

/// Returns whether a secret in a value is another one than in a set of versions.
pub(crate) fn is_rotated(input: &PlanInput<'_>, set: VariableSetId, value: &Value) -> bool {
    let Some(rotated) = input.variables.rotated.get(&set) else { return false };
    let absolute =
        |name: &str| absolute_name(name, &input.director.name, input.deployment.name.as_str()).ok();
    let mut found = false;
    walk(value, &mut |text| {
        let names = placeholders(text).filter_map(|p| absolute(split_keys(p).0));
        found = found || names.into_iter().any(|n| rotated.contains(n.as_str()));
    });
    found
}

/// A package compiled for another stemcell is another blob, though its name and fingerprint stay.
fn packages_differ(old: &InstanceSpec, vm: &Vm, new: &InstanceSpec) -> bool {
    let of = |spec: &InstanceSpec, stemcell: &StemcellRef| -> Vec<PackageRefKey> {
        spec.packages.iter().map(|p| p.key(stemcell)).collect()
    };
    of(old, &vm.stemcell) != of(new, &new.stemcell)
}

fn walk(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|i| walk(i, visit)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            visit(key);
            walk(item, visit);
        }),
        _ => {}
    }
}

type JobIdentity<'a> = (&'a JobName, &'a Fingerprint, &'a str, &'a BlobDigest, String);

/// The order of jobs does not matter.
fn jobs(jobs: &[JobSpec]) -> BTreeSet<JobIdentity<'_>> {
    jobs.iter().map(|j| (&j.name, &j.fingerprint, j.digest.as_str(), &j.blob, j.logs.to_string())).collect()
}

/// The order of networks does not matter; addresses that the cloud chose are the cloud's business.
fn networks_differ(old: &[NetworkSettings], new: &[NetworkSettings]) -> bool {
    if old.len() != new.len() {
        return true;
    }
    let same = |a: &NetworkSettings, b: &NetworkSettings| {
        let dynamic = a.kind == NetworkKind::Dynamic && b.kind == NetworkKind::Dynamic;
        let address = dynamic || (a.ip == b.ip && a.netmask == b.netmask && a.gateway == b.gateway);
        address
            && a.name == b.name
            && a.kind == b.kind
            && a.prefix == b.prefix
            && a.dns == b.dns
            && a.defaults == b.defaults
            && a.cloud_properties == b.cloud_properties
            && a.nic_group == b.nic_group
    };
    !new.iter().all(|n| old.iter().any(|o| same(o, n)))
}
