//! The vocabulary of step sequences: short names for deeds that come together, with their progress texts.

use std::collections::BTreeSet;

use model::instance::Disk;
use model::plan::{Needs, OnFailure, Progress, Step, Unit};
use model::step::{Action, DrainKind, Script, StopIntent, VmRole, WatchKind};
use model::*;

use crate::input::DrainMode;

/// What configuring jobs is of an update, in percent. Agents do it together with installing packages, as one deed.
const CONFIGURING: u8 = 10;

/// Numbers units through a plan.
#[derive(Default)]
pub(crate) struct Units(u32);

impl Units {
    /// Makes the next unit.
    pub(crate) fn unit(&mut self, label: String, after: BTreeSet<UnitNo>, steps: Steps) -> Unit {
        let no = UnitNo(self.0);
        self.0 += 1;
        let (needs, on_failure) = (Needs::All, OnFailure::Stop);
        let after = after.into_iter().collect();
        Unit { no, label, after, needs, on_failure, cleanup: false, steps: steps.0 }
    }
}

/// How jobs are stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) intent: StopIntent,
    pub(crate) drain: DrainKind,
    pub(crate) mode: DrainMode,
}

/// Steps in the making.
#[derive(Clone, Default)]
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    /// Returns whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a deed without a progress text.
    pub(crate) fn push(&mut self, action: Action) {
        self.0.push(Step { action, progress: None, on_failure: OnFailure::Stop });
    }

    /// Adds a deed that is told, and how much of an update it is, in percent. What is left out leaves its part out, too: an
    /// update without a stop ends at less than a hundred.
    fn show(&mut self, status: &str, worth: u8, action: Action) {
        let percent = self.told().saturating_add(worth).min(100);
        let progress = Some(Progress { status: status.into(), percent });
        self.0.push(Step { action, progress, on_failure: OnFailure::Stop });
    }

    /// Returns how far the steps so far lead, in percent.
    fn told(&self) -> u8 {
        let last = self.0.iter().rev().find(|step| step.progress.is_some());
        let configured = last.map_or(0, |step| if is_apply(step) { CONFIGURING } else { 0 });
        let shown = last.and_then(|step| step.progress.as_ref()).map_or(0, |progress| progress.percent);
        shown + configured
    }

    /// Puts a deed before all others.
    pub(crate) fn push_front(&mut self, action: Action) {
        self.0.insert(0, Step { action, progress: None, on_failure: OnFailure::Stop });
    }

    /// Adds a step without which the sequence goes on.
    pub(crate) fn push_passing_over_failure(&mut self, action: Action) {
        self.0.push(Step { action, progress: None, on_failure: OnFailure::GoOn });
    }

    /// Lets the sequence go on where one of its steps fails.
    pub(crate) fn passing_over_failures(mut self) -> Self {
        self.0.iter_mut().for_each(|step| step.on_failure = OnFailure::GoOn);
        self
    }

    /// Makes a VM and waits for its agent.
    pub(crate) fn create_vm(&mut self, instance: &InstanceId, agent: &AgentId, role: VmRole) {
        let (instance, agent) = (instance.clone(), agent.clone());
        self.push(Action::CreateVm { instance: instance.clone(), agent: agent.clone(), role });
        self.push(Action::SetVmMetadata {
            instance: instance.clone(),
            agent: agent.clone(),
            compiling: None,
        });
        self.push(Action::AwaitAgent { instance, agent });
    }

    /// Tells a new agent what it needs to know before it gets jobs.
    pub(crate) fn bind_vm(&mut self, instance: &InstanceId, agent: &AgentId) {
        let (instance, agent) = (instance.clone(), agent.clone());
        self.push(Action::UpdateSettings { instance: instance.clone(), agent: agent.clone() });
        self.push(Action::BindVm { instance, agent });
    }

    /// Gives a VM disks that are there, one after the other.
    pub(crate) fn give_all<'d>(
        &mut self,
        instance: &InstanceId,
        agent: &AgentId,
        disks: impl IntoIterator<Item = &'d Disk>,
    ) {
        disks.into_iter().for_each(|disk| self.give(instance, agent, key(disk)));
    }

    /// Attaches a disk, and mounts it unless it has a name: then its jobs do with it what they like.
    pub(crate) fn give(
        &mut self,
        instance: &InstanceId,
        agent: &AgentId,
        (disk, name): (&DiskId, Option<&DiskName>),
    ) {
        let (instance, agent, disk) = (instance.clone(), agent.clone(), disk.clone());
        self.push(Action::AttachDisk {
            instance: instance.clone(),
            agent: agent.clone(),
            disk: disk.clone(),
        });
        self.push(Action::SetDiskMetadata { instance: instance.clone(), disk: disk.clone() });
        if name.is_none() {
            self.push(Action::MountDisk { instance, agent, disk });
        }
    }

    /// Takes disks from a VM, one after the other.
    pub(crate) fn take_all<'d>(
        &mut self,
        instance: &InstanceId,
        agent: &AgentId,
        disks: impl IntoIterator<Item = &'d Disk>,
    ) {
        disks.into_iter().for_each(|disk| self.take(instance, agent, key(disk)));
    }

    /// Detaches a disk. One without a name is unmounted first, once the agent's disks were compared with the record.
    pub(crate) fn take(
        &mut self,
        instance: &InstanceId,
        agent: &AgentId,
        (disk, name): (&DiskId, Option<&DiskName>),
    ) {
        let (instance, agent, disk) = (instance.clone(), agent.clone(), disk.clone());
        if name.is_none() {
            self.push(Action::CheckDisks { instance: instance.clone(), agent: agent.clone() });
            self.push(Action::UnmountDisk {
                instance: instance.clone(),
                agent: agent.clone(),
                disk: disk.clone(),
            });
        }
        self.push(Action::DetachDisk { instance, agent, disk });
    }

    /// Stops the jobs, scripts around it.
    pub(crate) fn stop(&mut self, instance: &InstanceId, agent: &AgentId, stop: Stop) {
        let (i, a) = (|| instance.clone(), || agent.clone());
        if stop.mode == DrainMode::Drain {
            let script = Script::PreStop;
            let pre_stop = Action::RunScript { instance: i(), agent: a(), script, intent: Some(stop.intent) };
            self.show("executing pre-stop", 5, pre_stop);
            self.show("executing drain", 5, Action::Drain { instance: i(), agent: a(), drain: stop.drain });
        }
        self.show("stopping jobs", 20, Action::StopJobs { instance: i(), agent: a() });
        let script = Script::PostStop;
        let post_stop = Action::RunScript { instance: i(), agent: a(), script, intent: Some(stop.intent) };
        self.show("executing post-stop", 10, post_stop);
    }

    /// Installs jobs and packages.
    pub(crate) fn apply(&mut self, instance: &InstanceId, agent: &AgentId) {
        self.show(
            "installing packages",
            10,
            Action::Apply { instance: instance.clone(), agent: agent.clone() },
        );
    }

    /// Starts the jobs, and does not wait until they run.
    pub(crate) fn start_without_waiting(&mut self, instance: &InstanceId, agent: &AgentId) {
        let (i, a) = (|| instance.clone(), || agent.clone());
        let script = Script::PreStart;
        let pre_start = Action::RunScript { instance: i(), agent: a(), script, intent: None };
        self.show("executing pre-start", 10, pre_start);
        self.show("starting jobs", 20, Action::StartJobs { instance: i(), agent: a() });
    }

    /// Starts the jobs and waits until they run.
    pub(crate) fn start(&mut self, instance: &InstanceId, agent: &AgentId, watch: WatchKind) {
        let (i, a) = (|| instance.clone(), || agent.clone());
        let run = |script| Action::RunScript { instance: i(), agent: a(), script, intent: None };
        self.show("executing pre-start", 10, run(Script::PreStart));
        self.show("starting jobs", 20, Action::StartJobs { instance: i(), agent: a() });
        self.push(Action::Watch { instance: i(), agent: a(), watch });
        self.show("executing post-start", 10, run(Script::PostStart));
    }
}

fn key(disk: &Disk) -> (&DiskId, Option<&DiskName>) {
    (&disk.id, disk.spec.name.as_ref())
}

fn is_apply(step: &Step) -> bool {
    matches!(step.action, Action::Apply { .. })
}
