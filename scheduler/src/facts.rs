//! What is known of each instance, looked up by id instead of searched for.

use std::collections::BTreeMap;

use model::instance::{Disk, Instance, InstanceState, Vm};
use model::*;

use crate::input::{AgentObservation, DeploymentFacts, is_spare};
use crate::update::Jobs;

/// One instance with its VMs, disks and what its agent said.
#[derive(Clone, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) instance: &'a Instance,
    /// The current VM.
    pub(crate) vm: Option<&'a Vm>,
    /// VMs that an interrupted task left behind: those that were never introduced to the instance, and those that were made
    /// ahead and never elected.
    pub(crate) stale_vms: Vec<&'a Vm>,
    /// That of them which stands ready to take the place of the current one: the newest whose agent answers.
    pub(crate) spare: Option<&'a Vm>,
    /// The current disks: the one that is mounted first, then the others in the order of their names.
    pub(crate) disks: Vec<&'a Disk>,
    /// Disks that are not current (any more, or yet).
    pub(crate) stale_disks: Vec<&'a Disk>,
    pub(crate) agent: Option<&'a AgentObservation>,
}

impl<'a> Known<'a> {
    /// Returns the current disk that is mounted.
    pub(crate) fn mounted_disk(&self) -> Option<&'a Disk> {
        self.disks.iter().copied().find(|disk| disk.spec.is_mounted())
    }

    /// Returns all disks that it has, current or not.
    pub(crate) fn all_disks(&self) -> Vec<&'a Disk> {
        self.disks.iter().chain(&self.stale_disks).copied().collect()
    }

    /// Returns whether the agent did not answer when it was asked.
    pub(crate) fn is_unresponsive(&self) -> bool {
        matches!(self.agent, Some(AgentObservation::Unresponsive { .. }))
    }

    /// Returns whether the agent says that all is well; silence counts as well, nobody may have asked.
    pub(crate) fn is_running(&self) -> bool {
        match self.agent {
            Some(AgentObservation::Answered { job_state }) => job_state == "running",
            Some(AgentObservation::Unresponsive { .. }) => false,
            None => self.instance.state == InstanceState::Started,
        }
    }

    /// Returns whether there are jobs to stop before anything is done to the VM.
    pub(crate) fn jobs(&self) -> Jobs {
        let stopped = self.instance.state != InstanceState::Started && self.instance.update_completed;
        if stopped || self.vm.is_none() || self.is_unresponsive() { Jobs::Stopped } else { Jobs::Running }
    }
}

/// All instances of a deployment by id.
pub(crate) struct Facts<'a>(BTreeMap<&'a InstanceId, Known<'a>>);

impl<'a> Facts<'a> {
    pub(crate) fn of(deployment: &DeploymentFacts<'a>) -> Self {
        let mut known: BTreeMap<&InstanceId, Known<'a>> = deployment
            .instances
            .iter()
            .map(|instance| {
                let id = &instance.spec.id;
                let agent = deployment.agents.get(id);
                let (stale_vms, disks, stale_disks) = (Vec::new(), Vec::new(), Vec::new());
                (id, Known { instance, vm: None, stale_vms, spare: None, disks, stale_disks, agent })
            })
            .collect();
        for vm in deployment.vms {
            let Some(owner) = known.get_mut(&vm.instance) else { continue };
            if vm.is_current() && owner.vm.is_none() {
                owner.vm = Some(vm);
            } else {
                owner.stale_vms.push(vm);
            }
        }
        for owner in known.values_mut() {
            let stale = owner.stale_vms.iter().copied();
            let ready = stale.filter(|vm| is_spare(vm) && !deployment.silent_spares.contains(&vm.agent));
            owner.spare = ready.max_by_key(|vm| (vm.created_at, vm.agent.clone()));
        }
        for disk in deployment.disks {
            let Some(owner) = known.get_mut(&disk.instance) else { continue };
            let is_taken = owner.disks.iter().any(|other| other.spec.name == disk.spec.name);
            if disk.active && !is_taken {
                owner.disks.push(disk);
            } else {
                owner.stale_disks.push(disk);
            }
        }
        for owner in known.values_mut() {
            owner.disks.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        }
        Self(known)
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&Known<'a>> {
        self.0.get(id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Known<'a>> {
        self.0.values()
    }
}
