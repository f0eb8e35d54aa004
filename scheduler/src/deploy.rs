//! The second half of planning a deploy: what changed, and the work in its order (`spec/lifecycle.md` §1).

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{InstanceSpec, InstanceState, Lifecycle, Vm};
use model::manifest::InstanceGroup;
use model::manifest::update::Turns;
use model::plan::{Change, Fate, Phase, Plan, Stage, Target, Unit, Wave};
use model::step::{Action, Script, StopIntent, WatchKind};
use model::task::TaskError;
use model::*;
use serde_json::Value;

use crate::chance::{Ids, SeededIds};
use crate::diff::{self, Comparison};
use crate::disk::{self, DiskChange, SameDisk};
use crate::draft::{Draft, DraftInstance, RenderedHashes};
use crate::facts::{Facts, Known};
use crate::input::{DrainMode, PlanInput};
use crate::order::{self, History, InLine, label};
use crate::steps::{Steps, Units};
use crate::update::{self, Departure, Jobs, Metadata, Turn, VmFate};

/// Finds what changed and orders the work of a deploy.
pub fn plan(
    input: &PlanInput<'_>,
    draft: &Draft,
    rendered: &BTreeMap<InstanceId, RenderedHashes>,
) -> Result<Plan, TaskError> {
    let facts = Facts::of(&input.deployment);
    let mut deploy = Deploy {
        input,
        draft,
        facts: &facts,
        units: Units::default(),
        agents: SeededIds::new(input.deployment.seed, "agents"),
        disks: SeededIds::new(input.deployment.seed, "disks"),
        targets: BTreeMap::new(),
        phases: Vec::new(),
    };
    let members = deploy.members(rendered);
    // Groups that are gone take nobody with them: the others have nothing to be told.
    let any_change = !draft.surplus.is_empty()
        || members.iter().any(|m| m.fate != Fate::Untouched && (m.known.is_some() || m.vm != VmFate::None));
    deploy.compile();
    deploy.delete_leftovers();
    deploy.delete_vanished()?;
    deploy.create_missing(&members);
    deploy.update_groups(&members)?;
    deploy.save(&members);
    if any_change {
        deploy.post_deploy(&members);
    }
    Ok(Plan {
        deployment: Some(input.deployment.name.clone()),
        generation: input.deployment.generation,
        targets: deploy.targets.into_values().collect(),
        reservations: draft.reservations.clone(),
        phases: deploy.phases,
        record: Some(draft.record.clone()),
        warnings: draft.warnings.clone(),
    })
}

/// A desired instance with what happens to it.
struct Member<'a> {
    draft: DraftInstance,
    known: Option<&'a Known<'a>>,
    changes: Vec<Change>,
    fate: Fate,
    vm: VmFate,
    disk: DiskChange,
    ignored: bool,
}

struct Deploy<'a> {
    input: &'a PlanInput<'a>,
    draft: &'a Draft,
    facts: &'a Facts<'a>,
    units: Units,
    agents: SeededIds,
    disks: SeededIds,
    targets: BTreeMap<InstanceId, Target>,
    phases: Vec<Phase>,
}

/// Makes a stage of one wave.
fn stage(title: Option<&str>, tags: Vec<String>, max_in_flight: u32, units: Vec<Unit>) -> Stage {
    let total = units.len() as u32;
    Stage { title: title.map(str::to_owned), tags, total, waves: vec![Wave { max_in_flight, units }] }
}

impl<'a> Deploy<'a> {
    /// Decides each desired instance's fate.
    fn members(&mut self, rendered: &BTreeMap<InstanceId, RenderedHashes>) -> Vec<Member<'a>> {
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
        let ignored = known.is_some_and(|k| k.instance.ignore);
        let mut member = Member {
            fate: if known.is_some() { Fate::Untouched } else { Fate::New },
            draft,
            known,
            changes: Vec::new(),
            vm: known.and_then(|k| k.vm).map_or(VmFate::None, |vm| VmFate::Keep(vm.agent.clone())),
            disk: DiskChange::Keep,
            ignored,
        };
        if let Some(known) = known.filter(|_| ignored) {
            // Left alone, but somebody must be the bootstrap instance.
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
        if ignored || at_rest {
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
            self.decide_disk(&mut member);
        }
        member
    }

    fn decide_vm(&mut self, member: &mut Member<'_>, vm: &Vm) {
        if !diff::needs_new_vm(&member.changes) {
            return;
        }
        member.fate = Fate::Recreated;
        let (old, new) = (vm.agent.clone(), AgentId::new(self.agents.next()));
        member.vm = match member.known.is_some_and(Known::is_unresponsive) {
            true => VmFate::ReplaceDead { old, new },
            false => VmFate::Replace { old, new },
        };
    }

    fn decide_disk(&mut self, member: &mut Member<'_>) {
        // The comparison found a difference that size and properties do not show: a rotated secret.
        let same = match member
            .changes
            .iter()
            .any(|c| matches!(c, Change::RecreatePersistentDisks | Change::PersistentDisk))
        {
            true => SameDisk::Replace,
            false => SameDisk::Keep,
        };
        let active = member.known.and_then(|k| k.disk);
        let wanted = member.draft.spec.persistent_disk.as_ref();
        member.disk = disk::change(active, wanted, same, || DiskId::new(self.disks.next()));
    }

    fn target(&mut self, member: &Member<'_>) {
        let target = Target {
            spec: member.draft.spec.clone(),
            state: member.draft.state,
            fate: member.fate,
            changes: member.changes.clone(),
            compilation: false,
        };
        self.targets.insert(target.spec.id.clone(), target);
    }

    fn phase(&mut self, stages: Vec<Stage>) {
        if stages.iter().any(|s| !s.waves.is_empty()) {
            self.phases.push(Phase { stages });
        }
    }

    fn compile(&mut self) {
        if let Some((phase, targets)) = self.draft.compile.phase(&mut self.units, &mut self.agents) {
            self.phases.push(phase);
            self.targets.extend(targets.into_iter().map(|t| (t.spec.id.clone(), t)));
        }
    }

    /// VMs that an interrupted task left behind are deleted before anything is built on them.
    fn delete_leftovers(&mut self) {
        let mut units = Vec::new();
        let going: BTreeSet<&InstanceId> = self.draft.obsolete.iter().collect();
        for known in self.facts.values().filter(|k| !k.stale_vms.is_empty() && !k.instance.ignore) {
            if going.contains(&known.instance.spec.id) {
                continue;
            }
            let mut steps = Steps::default();
            update::delete_vms(&mut steps, &known.instance.spec.id, &known.stale_vms);
            units.push(self.units.unit(label(&known.instance.spec), BTreeSet::new(), steps));
        }
        if !units.is_empty() {
            self.phase(vec![stage(None, Vec::new(), self.input.director.threads_max, units)]);
        }
    }

    /// Instances of groups that are gone, and compile workers that were left behind.
    fn delete_vanished(&mut self) -> Result<(), TaskError> {
        let surplus: BTreeSet<&InstanceId> = self.draft.surplus.keys().collect();
        let vanished: Vec<InstanceId> =
            self.draft.obsolete.iter().filter(|id| !surplus.contains(id)).cloned().collect();
        let units = self.delete_all(&vanished)?;
        if !units.is_empty() {
            let title = Some("Deleting unneeded instances");
            self.phase(vec![stage(title, Vec::new(), self.input.director.threads_max, units)]);
        }
        Ok(())
    }

    fn delete_all(&mut self, ids: &[InstanceId]) -> Result<Vec<Unit>, TaskError> {
        let facts = self.facts;
        ids.iter().filter_map(|id| facts.get(id)).map(|known| self.delete(known)).collect()
    }

    fn delete(&mut self, known: &Known<'_>) -> Result<Unit, TaskError> {
        let id = &known.instance.spec.id;
        // Placement never gives one up; whoever changes it should hear of it here and not from the operator.
        if known.instance.ignore {
            return Err(TaskError::new(
                ErrorCode::DeploymentIgnoredInstancesDeletion,
                format!(
                    "The ignored instance '{}' would be deleted. Operation not allowed.",
                    known.instance.slug()
                ),
            ));
        }
        let spec = &known.instance.spec;
        let agents = known.vm.iter().chain(&known.stale_vms).map(|vm| &vm.agent).collect();
        let departure = Departure {
            instance: id,
            agents,
            jobs: if known.instance.compilation { Jobs::Stopped } else { known.jobs() },
            disks: known.disk.iter().chain(&known.stale_disks).copied().collect(),
            intent: StopIntent::DeleteInstance,
            drain: self.drain_mode(&spec.group),
        };
        self.targets.insert(
            id.clone(),
            Target {
                spec: spec.clone(),
                state: known.instance.state,
                fate: Fate::Deleted,
                changes: Vec::new(),
                compilation: known.instance.compilation,
            },
        );
        Ok(self.units.unit(label(spec), BTreeSet::new(), departure.steps()))
    }

    /// VMs that are missing come first, for all groups at once.
    fn create_missing(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        for member in members {
            let VmFate::Fresh(agent) = &member.vm else { continue };
            let mut steps = Steps::default();
            let disk = member.known.and_then(|k| k.disk);
            update::create_vm(&mut steps, &member.draft.spec.id, agent, disk);
            self.target(member);
            units.push(self.units.unit(label(&member.draft.spec), BTreeSet::new(), steps));
        }
        if !units.is_empty() {
            let title = Some("Creating missing vms");
            self.phase(vec![stage(title, Vec::new(), self.input.director.threads_max, units)]);
        }
    }

    /// Serial groups take turns; neighbours that are not serial go together.
    fn update_groups(&mut self, members: &[Member<'_>]) -> Result<(), TaskError> {
        let groups = &self.draft.groups;
        let mut at = 0;
        while at < groups.len() {
            let turns = groups[at].update.turns;
            let mut end = at + 1;
            while turns == Turns::Parallel
                && end < groups.len()
                && groups[end].update.turns == Turns::Parallel
            {
                end += 1;
            }
            let batch = &groups[at..end];
            let mut deletes = Vec::new();
            for group in batch {
                deletes.extend(self.delete_surplus(group)?);
            }
            self.phase(deletes);
            let mut updates = Vec::new();
            for group in batch {
                updates.extend(self.update_group(group, members)?);
            }
            self.phase(updates);
            at = end;
        }
        Ok(())
    }

    fn delete_surplus(&mut self, group: &InstanceGroup) -> Result<Option<Stage>, TaskError> {
        let surplus: Vec<InstanceId> =
            self.draft.surplus.iter().filter(|(_, g)| **g == group.name).map(|(id, _)| id.clone()).collect();
        let units = self.delete_all(&surplus)?;
        if units.is_empty() {
            return Ok(None);
        }
        let max_in_flight = group.update.in_flight_of(units.len())?;
        Ok(Some(stage(
            Some("Deleting unneeded instances"),
            vec![group.name.to_string()],
            max_in_flight,
            units,
        )))
    }

    fn update_group(
        &mut self,
        group: &InstanceGroup,
        members: &[Member<'_>],
    ) -> Result<Option<Stage>, TaskError> {
        let of_group = |m: &&Member<'_>| m.draft.spec.group == group.name;
        let leading = members.iter().filter(of_group).find(|m| m.draft.spec.bootstrap);
        let leading = leading.and_then(|m| m.draft.spec.az.as_ref());
        let drain = self.drain_mode(&group.name);
        let mut line = Vec::new();
        for member in members.iter().filter(of_group) {
            let fresh = matches!(member.vm, VmFate::Fresh(_));
            if member.fate == Fate::Untouched || (member.fate == Fate::New && !fresh) {
                continue;
            }
            self.target(member);
            let spec = &member.draft.spec;
            line.push(InLine { spec, steps: Box::new(move |watch| turn_steps(member, drain, watch)) });
        }
        if line.is_empty() {
            return Ok(None);
        }
        let history = if self.input.deployment.record.is_some() { History::Again } else { History::First };
        let total = line.len() as u32;
        let waves = order::waves(line, leading, &group.update, history, &mut self.units)?;
        let tags = vec![group.name.to_string()];
        Ok(Some(Stage { title: Some("Updating instance".into()), tags, total, waves }))
    }

    /// Instances that nobody touches may still have to be written down anew; then the deployment as a whole.
    fn save(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        for member in members {
            let stored = member.known.map(|k| (&k.instance.spec, k.instance.state));
            let on_paper = member.fate == Fate::New && member.vm == VmFate::None;
            let refreshed = member.fate == Fate::Untouched
                && stored.is_some_and(|(spec, state)| {
                    let asleep = state != InstanceState::Started;
                    !asleep && (*spec != member.draft.spec || state != member.draft.state)
                });
            if !on_paper && !refreshed {
                continue;
            }
            self.target(member);
            let mut steps = Steps::default();
            steps.push(Action::SaveInstance { instance: member.draft.spec.id.clone() });
            if stored.is_some_and(|(spec, _)| spec.networks != member.draft.spec.networks) {
                steps.push(Action::ReleaseAddresses { instance: member.draft.spec.id.clone() });
            }
            units.push(self.units.unit(label(&member.draft.spec), BTreeSet::new(), steps));
        }
        if !units.is_empty() {
            self.phase(vec![stage(None, Vec::new(), self.input.director.threads_max, units)]);
        }
        let mut steps = Steps::default();
        steps.push(Action::SaveDeployment);
        let unit = self.units.unit(self.input.deployment.name.to_string(), BTreeSet::new(), steps);
        self.phase(vec![stage(None, Vec::new(), 1, vec![unit])]);
    }

    /// Runs on every instance that is up, changed or not, once anything changed.
    fn post_deploy(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        for member in members.iter().filter(|m| !m.ignored && m.draft.state == InstanceState::Started) {
            let agent = match &member.vm {
                VmFate::None => continue,
                VmFate::Keep(agent) | VmFate::Fresh(agent) => agent,
                VmFate::Replace { new, .. } | VmFate::ReplaceDead { new, .. } => new,
            };
            self.target(member);
            let mut steps = Steps::default();
            steps.push(Action::RunScript {
                instance: member.draft.spec.id.clone(),
                agent: agent.clone(),
                script: Script::PostDeploy,
                intent: None,
            });
            units.push(self.units.unit(label(&member.draft.spec), BTreeSet::new(), steps));
        }
        if !units.is_empty() {
            self.phase(vec![stage(None, Vec::new(), self.input.director.threads_max, units)]);
        }
    }

    fn drain_mode(&self, group: &GroupName) -> DrainMode {
        let skip = &self.input.options.skip_drain;
        let listed = |text: &String| text.split(',').any(|g| g == "*" || g == group.as_str());
        if skip.iter().any(listed) { DrainMode::Skip } else { DrainMode::Drain }
    }
}

fn turn_steps(member: &Member<'_>, drain: DrainMode, watch: WatchKind) -> Steps {
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
        active_disk: known.and_then(|k| k.disk),
        stale_disks: known.map(|k| k.stale_disks.clone()).unwrap_or_default(),
        disk: member.disk.clone(),
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
