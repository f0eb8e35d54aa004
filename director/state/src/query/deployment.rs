//! Deployments, and what they use.

use std::cell::RefCell;
use std::collections::BTreeSet;

use model::instance::{InstanceSpec, ReleaseRef, StemcellRef};
use model::plan::DeploymentRecord;
use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::Deployment;
use crate::tables::*;

impl<'a> State<'a> {
    /// Returns all deployments, by name.
    pub fn deployments(&self) -> Vec<Deployment> {
        DEPLOYMENTS.rows(self.kv, Direction::Forward).map(|(_, deployment)| deployment).collect()
    }

    /// Returns the deployments from a name on, by name, as they are read.
    pub fn deployments_from(
        &self,
        from: Option<&DeploymentName>,
    ) -> impl Iterator<Item = Deployment> + use<'a> {
        let start = from.cloned().unwrap_or_default();
        DEPLOYMENTS.rows_from(self.kv, &start).map(|(_, deployment)| deployment)
    }

    /// Returns a deployment.
    pub fn deployment(&self, name: &DeploymentName) -> Option<Deployment> {
        DEPLOYMENTS.get(self.kv, name)
    }

    /// Returns the digest of what an errand last ran well on.
    pub fn errand(&self, deployment: &DeploymentName, errand: &str) -> Option<String> {
        ERRANDS.get(self.kv, &(deployment.clone(), errand.to_owned()))
    }

    /// Returns the deployments whose last success used a release version.
    pub fn deployments_with_release(&self, name: &ReleaseName, version: &Version) -> Vec<DeploymentName> {
        let uses = |deployment: &Deployment| {
            let releases = deployment.record.iter().flat_map(|record| &record.releases);
            releases.into_iter().any(|used| used.name == *name && used.version == *version)
        };
        self.deployments().into_iter().filter(uses).map(|deployment| deployment.name).collect()
    }

    /// Returns the deployments that can't do without a release version: as [`Uses`] says. Reads every instance.
    pub fn users_of_release(&self, name: &ReleaseName, version: &Version) -> BTreeSet<DeploymentName> {
        let is_it = |used: &ReleaseRef| used.name == *name && used.version == *version;
        self.who_uses(Uses {
            record: &|record| record.releases.iter().any(is_it),
            spec: &|spec| spec.jobs.iter().any(|job| is_it(&job.release)),
            vm: &|_| false,
        })
    }

    /// Returns the deployments that can't do without a stemcell: as [`Uses`] says. Reads every instance.
    pub fn users_of_stemcell(&self, name: &str, version: &Version) -> BTreeSet<DeploymentName> {
        let is_it = |used: &StemcellRef| used.name == name && used.version == *version;
        self.who_uses(Uses {
            record: &|record| record.stemcells.iter().any(|(used, at)| used == name && at == version),
            spec: &|spec| is_it(&spec.stemcell),
            vm: &is_it,
        })
    }

    /// Returns all that was uploaded and that some deployment can't do without: as [`Uses`] says. Reads every instance.
    pub fn artifacts_in_use(&self) -> InUse {
        let used = RefCell::new(InUse::default());
        let release = |release: &ReleaseRef| {
            used.borrow_mut().releases.insert(release.clone());
        };
        let stemcell = |stemcell: &StemcellRef| {
            let key = (stemcell.name.clone(), stemcell.version.clone());
            used.borrow_mut().stemcells.insert(key);
        };
        self.who_uses(Uses {
            record: &|record| {
                record.releases.iter().for_each(release);
                used.borrow_mut().stemcells.extend(record.stemcells.iter().cloned());
                false
            },
            spec: &|spec| {
                spec.jobs.iter().for_each(|job| release(&job.release));
                stemcell(&spec.stemcell);
                false
            },
            vm: &|of| {
                stemcell(of);
                false
            },
        });
        used.into_inner()
    }

    fn who_uses(&self, uses: Uses<'_>) -> BTreeSet<DeploymentName> {
        let mut users = BTreeSet::new();
        for deployment in self.deployments() {
            if deployment.record.is_some_and(|record| (uses.record)(&record)) {
                users.insert(deployment.name);
            }
        }
        for (_, instance) in INSTANCES.rows(self.kv, Direction::Forward) {
            let spec = instance.spec;
            if (uses.spec)(&spec) || self.vms(&spec.id).iter().any(|vm| (uses.vm)(&vm.stemcell)) {
                users.insert(spec.deployment);
            }
        }
        for orphan in self.orphaned_vms().into_iter().filter(|orphan| (uses.vm)(&orphan.vm.stemcell)) {
            users.insert(orphan.deployment);
        }
        for (task, ()) in TASKS_OPEN.rows(self.kv, Direction::Forward) {
            let record = PLAN_RECORDS.get(self.kv, &task).filter(|record| (uses.record)(record));
            users.extend(record.map(|record| record.name));
            let targets = TARGETS.rows_of(self.kv, &task, Direction::Forward);
            users.extend(targets.map(|(_, t)| t.spec).filter(uses.spec).map(|spec| spec.deployment));
        }
        users
    }
}

/// What deployments can't do without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Release versions.
    pub releases: BTreeSet<ReleaseRef>,
    /// Names and versions of stemcells.
    pub stemcells: BTreeSet<(String, Version)>,
}

/// How something that was uploaded is found to be in use: by a last success or what an open task is about to save as one,
/// by what instances are or are about to be, and by VMs, which may lag behind or wait for their deletion: clouds do not
/// delete what is below a VM.
struct Uses<'a> {
    record: &'a dyn Fn(&DeploymentRecord) -> bool,
    spec: &'a dyn Fn(&InstanceSpec) -> bool,
    vm: &'a dyn Fn(&StemcellRef) -> bool,
}
