//! What is done about VMs before anybody's turn: leftovers go, missing ones are made, and those that will take another
//! one's place are made ahead and download their packages while the others work.

use std::collections::BTreeSet;

use model::step::Action;
use model::*;

use super::members::Member;
use super::{Deploy, stage};
use crate::input::is_spare;
use crate::order::label;
use crate::steps::Steps;
use crate::update::{self, Made, VmFate};

impl Deploy<'_> {
    /// VMs that an interrupted task left behind go before anything is built on them. One that was made ahead and is used
    /// now stays; one that is not becomes an orphan, which nobody has to wait for.
    pub(super) fn clear_leftovers(&mut self, members: &[Member<'_>]) {
        let used: BTreeSet<&AgentId> = members.iter().filter_map(|m| m.vm.agent_afterwards()).collect();
        let left_alone: BTreeSet<&InstanceId> =
            members.iter().filter(|m| m.left_alone).map(|m| &m.draft.spec.id).collect();
        let going: BTreeSet<&InstanceId> = self.draft.obsolete.iter().collect();
        let mut units = Vec::new();
        for known in self.facts.values().filter(|k| !k.instance.ignore) {
            let id = &known.instance.spec.id;
            if going.contains(id) {
                continue;
            }
            let mut steps = Steps::default();
            for vm in known.stale_vms.iter().filter(|vm| !used.contains(&vm.agent)) {
                if !is_spare(vm) {
                    update::delete_vms(&mut steps, id, &[*vm]);
                } else if !left_alone.contains(id) {
                    steps.push(Action::OrphanVm { instance: id.clone(), agent: vm.agent.clone() });
                }
            }
            if !steps.is_empty() {
                units.push(self.units.unit(label(&known.instance.spec), BTreeSet::new(), steps));
            }
        }
        if !units.is_empty() {
            self.phase(vec![stage(None, Vec::new(), self.input.director.threads_max, units)]);
        }
    }

    /// For all groups at once. A VM that is made ahead leaves the disks where they are.
    pub(super) fn create_vms(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        for member in members {
            let (id, mut steps) = (&member.draft.spec.id, Steps::default());
            match &member.vm {
                VmFate::Fresh(agent) => {
                    let disks = member.known.iter().flat_map(|k| k.disks.iter().copied());
                    update::create_vm(&mut steps, id, agent, disks);
                }
                VmFate::Swap { new, made: Made::Now, .. } => update::create_vm_ahead(&mut steps, id, new),
                _ => continue,
            }
            self.target(member);
            units.push(self.units.unit(label(&member.draft.spec), BTreeSet::new(), steps));
        }
        if !units.is_empty() {
            let title = Some("Creating missing vms");
            self.phase(vec![stage(title, Vec::new(), self.input.director.threads_max, units)]);
        }
    }

    /// What VMs that were made ahead download now keeps nobody waiting when their turn comes.
    pub(super) fn download_packages(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        for member in members {
            let VmFate::Swap { new, .. } = &member.vm else { continue };
            self.target(member);
            let spec = &member.draft.spec;
            let mut steps = Steps::default();
            steps.push(Action::Prepare { instance: spec.id.clone(), agent: new.clone() });
            units.push(self.units.unit(label(spec), BTreeSet::new(), steps));
        }
        if !units.is_empty() {
            let title = Some("Downloading packages");
            self.phase(vec![stage(title, Vec::new(), self.input.director.threads_max, units)]);
        }
    }
}
