//! The step sequences of one instance: update in place, new VM, stop, detach, delete.

use model::instance::{Disk, InstanceState, Vm};
use model::step::{Action, DrainKind, StopIntent, VmRole, WatchKind};
use model::*;

use crate::disk::{self, DiskChange};
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
    pub(crate) active_disk: Option<&'a Disk>,
    /// Disks that no longer count; they are detached and given up.
    pub(crate) stale_disks: Vec<&'a Disk>,
    pub(crate) disk: DiskChange,
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
            VmFate::Keep(agent) | VmFate::Replace { old: agent, .. } => agent,
            // Even a VM that has just been made is stopped before its jobs start for the first time; one for an
            // instance that was at rest is not.
            VmFate::Fresh(agent) if self.jobs == Jobs::Running => agent,
            _ => return,
        };
        let stays = !matches!(self.vm, VmFate::Replace { .. }) && self.state != InstanceState::Detached;
        if stays {
            steps.push(Action::Prepare { instance: self.instance.clone(), agent: agent.clone() });
        }
        if self.jobs == Jobs::Running {
            let update = stays && self.state == InstanceState::Started && self.disk == DiskChange::Keep;
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
        if let Some(disk) = self.active_disk {
            steps.unmount(self.instance, agent, &disk.id);
        }
        steps.push(Action::DeleteVm { instance: self.instance.clone(), agent: agent.clone() });
    }

    fn bring_up(&self, steps: &mut Steps) {
        let agent = match &self.vm {
            VmFate::None => return,
            VmFate::Keep(agent) | VmFate::Fresh(agent) => agent,
            VmFate::Replace { old, new } => {
                if let Some(disk) = self.active_disk {
                    steps.unmount(self.instance, old, &disk.id);
                }
                self.replace_vm(steps, old, new);
                new
            }
            VmFate::ReplaceDead { old, new } => {
                self.replace_vm(steps, old, new);
                new
            }
        };
        if self.active_disk.is_some() {
            steps.push(Action::CheckDisks { instance: self.instance.clone(), agent: agent.clone() });
        }
        disk::steps(steps, &self.disk, self.instance, agent);
        self.give_up_stale_disks(steps);
        if matches!(self.vm, VmFate::Keep(_) | VmFate::Fresh(_)) {
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

    /// Disks that no longer count may still be mounted, where a copy was broken off. A new VM never had them, and one
    /// whose creation was broken off was attached to none.
    fn give_up_stale_disks(&self, steps: &mut Steps) {
        for stale in &self.stale_disks {
            let (instance, disk) = (self.instance.clone(), stale.id.clone());
            if let (VmFate::Keep(agent), Some(_)) = (&self.vm, &stale.cid) {
                let (instance, disk) = (instance.clone(), disk.clone());
                steps.push(Action::UnmountDisk {
                    instance: instance.clone(),
                    agent: agent.clone(),
                    disk: disk.clone(),
                });
                steps.push(Action::DetachDisk { instance, agent: agent.clone(), disk });
            }
            steps.push(Action::OrphanDisk { instance, disk });
        }
    }

    fn replace_vm(&self, steps: &mut Steps, old: &AgentId, new: &AgentId) {
        steps.push(Action::DeleteVm { instance: self.instance.clone(), agent: old.clone() });
        create_vm(steps, self.instance, new, self.active_disk);
    }

    fn write_metadata(&self, steps: &mut Steps) {
        let agent = match &self.vm {
            VmFate::Keep(agent) | VmFate::Fresh(agent) => agent,
            VmFate::Replace { new, .. } | VmFate::ReplaceDead { new, .. } => new,
            VmFate::None => return,
        };
        let (instance, agent) = (self.instance.clone(), agent.clone());
        steps.push(Action::SetVmMetadata { instance: instance.clone(), agent, compiling: None });
        // A disk that was just attached has its metadata, and one that was given up is nobody's any more.
        if let (Some(disk), DiskChange::Keep) = (self.active_disk, &self.disk) {
            steps.push(Action::SetDiskMetadata { instance, disk: disk.id.clone() });
        }
    }
}

/// Deletes VMs that an interrupted task left behind: the next one takes their addresses.
pub(crate) fn delete_vms(steps: &mut Steps, instance: &InstanceId, vms: &[&Vm]) {
    for vm in vms {
        steps.push(Action::DeleteVm { instance: instance.clone(), agent: vm.agent.clone() });
    }
}

/// Adds a new VM with the disk that the instance already has.
pub(crate) fn create_vm(steps: &mut Steps, instance: &InstanceId, agent: &AgentId, disk: Option<&Disk>) {
    steps.create_vm(instance, agent, VmRole::Current);
    if let Some(disk) = disk {
        steps.mount(instance, agent, &disk.id);
    }
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
