//! Desired instances: what changed about each, and what becomes of its VM and disks.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{DiskSpec, InstanceSpec, InstanceState, Lifecycle, Vm};
use model::plan::{Change, Fate};
use model::step::WatchKind;
use model::*;
use serde_json::Value;

use super::Deploy;
use crate::chance::Ids;
use crate::diff::{self, Comparison};
use crate::disk::{DiskChanges, SameDisk};
use crate::draft::{DraftInstance, RenderedHashes};
use crate::facts::Known;
use crate::hotswap;
use crate::input::{DrainMode, PlanInput};
use crate::state_change;
use crate::steps::Steps;
use crate::update::{Jobs, Made, Metadata, Old, Turn, VmFate};

/// A desired instance with what happens to it.
pub(super) struct Member<'a> {
    pub(super) draft: DraftInstance,
    pub(super) known: Option<&'a Known<'a>>,
    pub(super) changes: Vec<Change>,
    pub(super) fate: Fate,
    pub(super) vm: VmFate,
    pub(super) disk_changes: DiskChanges,
    /// Nothing is done to it, whatever differs.
    pub(super) left_alone: bool,
}

impl<'a> Deploy<'a> {
    /// Decides each desired instance's fate.
    pub(super) fn members(&mut self, rendered: &BTreeMap<InstanceId, RenderedHashes>) -> Vec<Member<'a>> {
        let comparison = Comparison {
            input: self.input,
            group_tags_before: tags_of_record(self.input),
            group_tags_now: (self.draft.groups.iter())
                .map(|g| (g.name.clone(), g.tags.iter().map(|(k, _)| k.clone()).collect()))
                .collect(),
        };
        let with_vm: BTreeSet<&GroupName> = (self.draft.instances.iter())
            .filter(|i| self.facts.get(&i.spec.id).is_some_and(|k| k.vm.is_some()))
            .map(|i| &i.spec.group)
            .collect();
        let mut members = Vec::with_capacity(self.draft.instances.len());
        for instance in &self.draft.instances {
            let mut instance = instance.clone();
            let known = self.facts.get(&instance.spec.id);
            if let Some(hashes) = rendered.get(&instance.spec.id) {
                instance.spec.configuration_hash = Some(hashes.configuration_hash.clone());
                instance.spec.template_hashes = hashes.template_hashes.clone();
            }
            let at_rest =
                instance.spec.lifecycle == Lifecycle::Errand && !with_vm.contains(&instance.spec.group);
            members.push(self.member(instance, known, &comparison, at_rest));
        }
        members
    }

    fn member(
        &mut self,
        draft: DraftInstance,
        known: Option<&'a Known<'a>>,
        comparison: &Comparison<'_>,
        at_rest: bool,
    ) -> Member<'a> {
        let left_alone = known.is_some_and(|k| state_change::is_left_alone(self.input, k.instance));
        let mut member = Member {
            fate: if known.is_some() { Fate::Untouched } else { Fate::New },
            draft,
            known,
            changes: Vec::new(),
            vm: known.and_then(|k| k.vm).map_or(VmFate::None, |vm| VmFate::Keep(vm.agent.clone())),
            disk_changes: DiskChanges::default(),
            left_alone,
        };
        if let Some(known) = known.filter(|_| left_alone) {
            // Somebody must be the bootstrap instance all the same.
            let bootstrap = member.draft.spec.bootstrap;
            member.draft.spec = InstanceSpec { bootstrap, ..known.instance.spec.clone() };
            member.draft.state = known.instance.state;
        }
        // An errand group without VMs gets its instances on paper only, and keeps what its last errand rendered.
        if let Some(known) = known.filter(|_| at_rest) {
            let stored = &known.instance.spec;
            member.draft.spec.configuration_hash = stored.configuration_hash.clone();
            member.draft.spec.template_hashes = stored.template_hashes.clone();
        }
        if left_alone || at_rest {
            return member;
        }
        if let Some(known) = known {
            member.changes = comparison.changes(known, &member.draft);
            let errand = member.draft.spec.lifecycle == Lifecycle::Errand;
            if member.changes.is_empty() && !errand {
                return member;
            }
            member.fate = Fate::Updated;
        }
        let wants_vm = member.draft.state != InstanceState::Detached;
        match known.and_then(|k| k.vm) {
            Some(vm) if wants_vm && member.draft.state == InstanceState::Started => {
                self.decide_vm(&mut member, vm);
            }
            // Nobody can be asked to stop or unmount anything there.
            Some(vm) if known.is_some_and(Known::is_unresponsive) => {
                member.vm =
                    VmFate::ReplaceDead { old: vm.agent.clone(), new: AgentId::new(self.agents.next()) };
            }
            Some(_) => {}
            None if wants_vm => member.vm = VmFate::Fresh(AgentId::new(self.agents.next())),
            None => {}
        }
        if member.draft.state == InstanceState::Started {
            self.decide_disks(&mut member);
        }
        member
    }

    fn decide_vm(&mut self, member: &mut Member<'_>, vm: &Vm) {
        if !diff::needs_new_vm(&member.changes) {
            return;
        }
        member.fate = Fate::Recreated;
        let (ahead, old) = (member.draft.ahead.clone(), vm.agent.clone());
        let made = if ahead.is_some() { Made::Before } else { Made::Now };
        let new = ahead.unwrap_or_else(|| AgentId::new(self.agents.next()));
        let dead = member.known.is_some_and(Known::is_unresponsive);
        member.vm = match (self.is_swapped(&member.draft.spec.group), dead) {
            (true, true) => VmFate::Swap { old: Old::Dead(old), new, made },
            (true, false) => VmFate::Swap { old: Old::Answers(old), new, made },
            (false, true) => VmFate::ReplaceDead { old, new },
            (false, false) => VmFate::Replace { old, new },
        };
    }

    fn is_swapped(&self, group: &GroupName) -> bool {
        self.draft.groups.iter().any(|g| g.name == *group && hotswap::applies(g))
    }

    fn decide_disks(&mut self, member: &mut Member<'_>) {
        let recreates = member.changes.contains(&Change::RecreatePersistentDisks);
        let set = member.known.map(|known| known.instance.variable_set).unwrap_or_default();
        let same = |wanted: &DiskSpec| {
            // Nobody copies a disk that has a name: to have it replaced for nothing would be to lose what is on it.
            let is_asked = recreates && wanted.is_mounted();
            match is_asked || diff::is_rotated(self.input, set, &wanted.cloud_properties) {
                true => SameDisk::Replace,
                false => SameDisk::Keep,
            }
        };
        let active = member.known.map(|known| known.disks.as_slice()).unwrap_or_default();
        let fresh = || DiskId::new(self.disks.next());
        member.disk_changes = DiskChanges::of(active, &member.draft.spec, same, fresh);
    }
}

/// Returns the steps of an instance's turn.
pub(super) fn turn_steps(member: &Member<'_>, drain: DrainMode, watch: WatchKind) -> Steps {
    let known = member.known;
    let tags = member.changes.contains(&Change::Tags);
    let jobs = match (known, &member.vm) {
        (None, _) => Jobs::Running,
        (Some(known), VmFate::Fresh(_)) if known.instance.state == InstanceState::Started => Jobs::Running,
        (Some(known), _) => known.jobs(),
    };
    let turn = Turn {
        instance: &member.draft.spec.id,
        state: member.draft.state,
        vm: member.vm.clone(),
        jobs,
        active_disks: known.map(|k| k.disks.clone()).unwrap_or_default(),
        stale_disks: known.map(|k| k.stale_disks.clone()).unwrap_or_default(),
        disk_changes: member.disk_changes.clone(),
        metadata: if tags { Metadata::Stale } else { Metadata::Fresh },
        drain,
        watch,
    };
    let errand = member.draft.spec.lifecycle == Lifecycle::Errand;
    if known.is_some() && diff::is_minimal(&member.changes) && !errand {
        return turn.metadata_steps();
    }
    turn.steps()
}

/// Tags that groups gave their VMs when the deployment last succeeded.
fn tags_of_record(input: &PlanInput<'_>) -> BTreeMap<GroupName, BTreeSet<String>> {
    let groups =
        input.deployment.record.and_then(|r| r.manifest.get("instance_groups")).and_then(Value::as_array);
    let entry = |group: &Value| {
        let name = GroupName::new(group.get("name")?.as_str()?);
        let tags = group.get("tags")?.as_object()?.keys().cloned().collect();
        Some((name, tags))
    };
    groups.into_iter().flatten().filter_map(entry).collect()
}
