//! The step sequences of one instance: update in place, new VM, stop, detach, delete.

use model::instance::{Disk, InstanceState, Vm};
use model::step::{Action, DrainKind, StopIntent, VmRole, WatchKind};
use model::*;

use crate::disk::DiskChanges;
use crate::input::DrainMode;
use crate::steps::{Steps, Stop};

/// Which VM the instance has when its turn comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VmFate {
    /// None, and none is wanted.
    None,
    /// It keeps the one it has.
    Keep(AgentId),
    /// It got one in this plan, before its turn.
    Fresh(AgentId),
    /// It gets a new one. The old agent answers, so that things can be done in order.
    Replace { old: AgentId, new: AgentId },
    /// It gets a new one. The old agent is dead.
    ReplaceDead { old: AgentId, new: AgentId },
    /// It gets one that was made ahead, beside the old one.
    Swap { old: Old, new: AgentId, made: Made },
}

/// The VM that is swapped for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// Its agent answers, so that things can be done in order.
    Answers(AgentId),
    /// Its agent is dead.
    Dead(AgentId),
}

/// Who made a VM ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// This plan does, before anybody's turn.
    Now,
    /// An earlier task did.
    Before,
}

impl VmFate {
    /// Returns the agent that answers for the instance after its turn.
    pub(crate) fn agent_afterwards(&self) -> Option<&AgentId> {
        match self {
            Self::None => None,
            Self::Keep(agent) | Self::Fresh(agent) => Some(agent),
            Self::Replace { new, .. } | Self::ReplaceDead { new, .. } | Self::Swap { new, .. } => Some(new),
        }
    }
}

/// Whether jobs run that must be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// They run, or may.
    Running,
    /// They do not; there is nothing to stop.
    Stopped,
}

/// Whether metadata in the cloud must be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// It is right.
    Fresh,
    /// Tags changed.
    Stale,
}

/// One instance's turn.
#[derive(Clone, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) state: InstanceState,
    pub(crate) vm: VmFate,
    pub(crate) jobs: Jobs,
    pub(crate) active_disks: Vec<&'a Disk>,
    /// Disks that no longer count; they are detached and given up.
    pub(crate) stale_disks: Vec<&'a Disk>,
    pub(crate) disk_changes: DiskChanges,
    pub(crate) metadata: Metadata,
    pub(crate) drain: DrainMode,
    pub(crate) watch: WatchKind,
}

impl Turn<'_> {
    /// Returns the whole sequence.
    pub(crate) fn steps(&self) -> Steps {
        let mut steps = Steps::default();
        steps.push(Action::BeginUpdate { instance: self.instance.clone() });
        self.prepare_and_stop(&mut steps);
        match self.state {
            InstanceState::Detached => self.detach(&mut steps),
            InstanceState::Stopped => {}
            InstanceState::Started => self.bring_up(&mut steps),
        }
        if self.state != InstanceState::Started {
            steps.push(Action::ReleaseAddresses { instance: self.instance.clone() });
            steps.push(Action::SaveInstance { instance: self.instance.clone() });
        }
        steps.push(Action::CompleteUpdate { instance: self.instance.clone() });
        steps
    }

    /// Returns the sequence for tags alone: nobody is stopped.
    pub(crate) fn metadata_steps(&self) -> Steps {
        let mut steps = Steps::default();
        steps.push(Action::BeginUpdate { instance: self.instance.clone() });
        self.write_metadata(&mut steps);
        steps.push(Action::SaveInstance { instance: self.instance.clone() });
        steps.push(Action::CompleteUpdate { instance: self.instance.clone() });
        steps
    }

    fn prepare_and_stop(&self, steps: &mut Steps) {
        let agent = match &self.vm {
            VmFate::Keep(agent)
            | VmFate::Replace { old: agent, .. }
            | VmFate::Swap { old: Old::Answers(agent), .. } => agent,
            // Even a VM that has just been made is stopped before its jobs start for the first time; one for an
            // instance that was at rest is not.
            VmFate::Fresh(agent) if self.jobs == Jobs::Running => agent,
            _ => return,
        };
        let goes = matches!(self.vm, VmFate::Replace { .. } | VmFate::Swap { .. });
        let stays = !goes && self.state != InstanceState::Detached;
        if stays {
            steps.push(Action::Prepare { instance: self.instance.clone(), agent: agent.clone() });
        }
        if self.jobs == Jobs::Running {
            let update = stays && self.state == InstanceState::Started && self.disk_changes.is_empty();
            let stop = Stop {
                intent: if stays { StopIntent::KeepVm } else { StopIntent::DeleteVm },
                drain: if update { DrainKind::Update } else { DrainKind::Shutdown },
                mode: self.drain,
            };
            steps.stop(self.instance, agent, stop);
        }
    }

    fn detach(&self, steps: &mut Steps) {
        let (VmFate::Keep(agent) | VmFate::Replace { old: agent, .. }) = &self.vm else {
            if let VmFate::ReplaceDead { old, .. } = &self.vm {
                steps.push(Action::DeleteVm { instance: self.instance.clone(), agent: old.clone() });
            }
            return;
        };
        steps.take_all(self.instance, agent, self.disks());
        steps.push(Action::DeleteVm { instance: self.instance.clone(), agent: agent.clone() });
    }

    fn bring_up(&self, steps: &mut Steps) {
        let agent = match &self.vm {
            VmFate::None => return,
            VmFate::Keep(agent) | VmFate::Fresh(agent) => agent,
            VmFate::Replace { old, new } => {
                steps.take_all(self.instance, old, self.disks());
                self.replace_vm(steps, old, new);
                new
            }
            VmFate::ReplaceDead { old, new } => {
                self.replace_vm(steps, old, new);
                new
            }
            VmFate::Swap { old, new, .. } => {
                self.swap_vms(steps, old, new);
                new
            }
        };
        self.change_disks(steps, agent);
        // Agents of VMs that were just introduced know all but what has changed since.
        let knows = !matches!(self.vm, VmFate::Keep(_) | VmFate::Fresh(_));
        if !knows || self.disk_changes.concern_names() {
            steps.push(Action::UpdateSettings { instance: self.instance.clone(), agent: agent.clone() });
        }
        steps.push(Action::ReleaseAddresses { instance: self.instance.clone() });
        if self.metadata == Metadata::Stale {
            self.write_metadata(steps);
        }
        steps.apply(self.instance, agent);
        steps.push(Action::SaveInstance { instance: self.instance.clone() });
        steps.start(self.instance, agent, self.watch);
    }

    fn change_disks(&self, steps: &mut Steps, agent: &AgentId) {
        let is_swap = matches!(self.vm, VmFate::Swap { .. });
        // What goes was taken from the old VM, and the new one never gets it.
        let is_there = |disk: &Disk| disk.spec.is_mounted() && !(is_swap && self.disk_changes.remove(disk));
        if self.disks().any(is_there) {
            steps.push(Action::CheckDisks { instance: self.instance.clone(), agent: agent.clone() });
        }
        match is_swap {
            true => self.disk_changes.steps_without_removals(steps, self.instance, agent),
            false => self.disk_changes.steps(steps, self.instance, agent),
        }
        for stale in &self.stale_disks {
            if let VmFate::Keep(agent) = &self.vm {
                self.take_stale_disk(steps, agent, stale);
            }
            let (instance, disk) = (self.instance.clone(), stale.id.clone());
            steps.push(Action::OrphanDisk { instance, disk });
        }
    }

    /// Disks that no longer count may still be mounted, where a copy was broken off. A new VM never had them, and one
    /// whose creation was broken off was attached to none.
    fn take_stale_disk(&self, steps: &mut Steps, agent: &AgentId, stale: &Disk) {
        if stale.cid.is_none() {
            return;
        }
        let (instance, agent, disk) = (self.instance.clone(), agent.clone(), stale.id.clone());
        if stale.spec.is_mounted() {
            steps.push(Action::UnmountDisk {
                instance: instance.clone(),
                agent: agent.clone(),
                disk: disk.clone(),
            });
        }
        steps.push(Action::DetachDisk { instance, agent, disk });
    }

    /// The old VM lives on as an orphan, so that everything is taken from it first; a dead one gives nothing and is
    /// deleted at once. The new one gets the disks that the instance goes on with.
    fn swap_vms(&self, steps: &mut Steps, old: &Old, new: &AgentId) {
        let instance = || self.instance.clone();
        let instead_of = match old {
            Old::Answers(agent) => {
                steps.take_all(self.instance, agent, self.disks());
                self.stale_disks.iter().for_each(|stale| self.take_stale_disk(steps, agent, stale));
                Some(agent.clone())
            }
            Old::Dead(agent) => {
                steps.push(Action::DeleteVm { instance: instance(), agent: agent.clone() });
                None
            }
        };
        steps.push(Action::ElectVm { instance: instance(), agent: new.clone(), instead_of });
        steps.give_all(self.instance, new, self.disks().filter(|disk| !self.disk_changes.remove(disk)));
        steps.push(Action::UpdateSettings { instance: instance(), agent: new.clone() });
    }

    fn replace_vm(&self, steps: &mut Steps, old: &AgentId, new: &AgentId) {
        steps.push(Action::DeleteVm { instance: self.instance.clone(), agent: old.clone() });
        create_vm(steps, self.instance, new, self.disks());
    }

    fn write_metadata(&self, steps: &mut Steps) {
        let Some(agent) = self.vm.agent_afterwards() else { return };
        let (instance, agent) = (self.instance.clone(), agent.clone());
        steps.push(Action::SetVmMetadata { instance: instance.clone(), agent, compiling: None });
        // A disk that was just attached has its metadata, and one that was given up is nobody's any more.
        for disk in self.disks().filter(|disk| self.disk_changes.keep(disk)) {
            steps.push(Action::SetDiskMetadata { instance: instance.clone(), disk: disk.id.clone() });
        }
    }

    fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.active_disks.iter().copied()
    }
}

/// Deletes VMs that an interrupted task left behind: the next one takes their addresses.
pub(crate) fn delete_vms(steps: &mut Steps, instance: &InstanceId, vms: &[&Vm]) {
    for vm in vms {
        steps.push(Action::DeleteVm { instance: instance.clone(), agent: vm.agent.clone() });
    }
}

/// Adds a new VM with the disks that the instance already has.
pub(crate) fn create_vm<'d>(
    steps: &mut Steps,
    instance: &InstanceId,
    agent: &AgentId,
    disks: impl IntoIterator<Item = &'d Disk>,
) {
    steps.create_vm(instance, agent, VmRole::Current);
    steps.give_all(instance, agent, disks);
    steps.bind_vm(instance, agent);
}

/// Adds a new VM beside the one that the instance works with. The disks stay where they are.
pub(crate) fn create_vm_ahead(steps: &mut Steps, instance: &InstanceId, agent: &AgentId) {
    steps.create_vm(instance, agent, VmRole::Spare);
    steps.bind_vm(instance, agent);
}

/// An instance that goes away.
#[derive(Clone, Debug)]
pub(crate) struct Departure<'a> {
    pub(crate) instance: &'a InstanceId,
    /// Its VMs; jobs are stopped on the first if it can be talked to.
    pub(crate) agents: Vec<&'a AgentId>,
    pub(crate) jobs: Jobs,
    pub(crate) disks: Vec<&'a Disk>,
    pub(crate) intent: StopIntent,
    pub(crate) drain: DrainMode,
}

impl Departure<'_> {
    /// Returns the whole sequence. Disks go with the VM and are given up, not deleted.
    pub(crate) fn steps(&self) -> Steps {
        let mut steps = Steps::default();
        if let (Some(agent), Jobs::Running) = (self.agents.first(), self.jobs) {
            let stop = Stop { intent: self.intent, drain: DrainKind::Shutdown, mode: self.drain };
            steps.stop(self.instance, agent, stop);
        }
        for agent in &self.agents {
            steps.push(Action::DeleteVm { instance: self.instance.clone(), agent: (*agent).clone() });
        }
        for disk in &self.disks {
            steps.push(Action::OrphanDisk { instance: self.instance.clone(), disk: disk.id.clone() });
        }
        steps.push(Action::DeleteInstance { instance: self.instance.clone() });
        steps
    }
}
