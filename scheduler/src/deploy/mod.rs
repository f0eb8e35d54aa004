//! The second half of planning a deploy: what changed, and the work in its order.

mod ahead;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::instance::{InstanceSpec, InstanceState};
use model::manifest::InstanceGroup;
use model::manifest::update::Turns;
use model::plan::{Fate, Phase, Plan, Stage, Target, Unit, Wave};
use model::step::{Action, Script, StopIntent};
use model::task::TaskError;
use model::*;

use crate::chance::SeededIds;
use crate::draft::{Draft, RenderedHashes};
use crate::facts::{Facts, Known};
use crate::input::{DrainMode, PlanInput, is_spare};
use crate::order::{self, History, InLine, label};
use crate::steps::{Steps, Units};
use crate::update::{Departure, Jobs, VmFate};
use members::{Member, turn_steps};

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
    deploy.clear_leftovers(&members);
    deploy.delete_vanished()?;
    deploy.create_vms(&members);
    deploy.download_packages(&members);
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
        // A change of state stores no success: what was deployed stays what it was.
        record: input.change.is_none().then(|| draft.record.clone()),
        warnings: draft.warnings.clone(),
        dns_subjects: draft.dns_subjects.clone(),
    })
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

/// Returns an instance as it is, but in the place that it has now: its group may have another name, it may lead.
fn with_identity_of(wanted: &InstanceSpec, before: &InstanceSpec) -> InstanceSpec {
    InstanceSpec {
        group: wanted.group.clone(),
        index: wanted.index,
        az: wanted.az.clone(),
        bootstrap: wanted.bootstrap,
        address: wanted.address.clone(),
        ..before.clone()
    }
}

impl<'a> Deploy<'a> {
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
            disks: known.all_disks(),
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

    /// Instances that nobody touches may still have to be written down anew; then the deployment as a whole, unless only
    /// states were to change.
    fn save(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        let excess = self.excess_addresses(members);
        for member in members {
            let stored = member.known.map(|k| (&k.instance.spec, k.instance.state));
            let on_paper = member.fate == Fate::New && member.vm == VmFate::None;
            let (spec, differs) = match stored {
                // What it will be is compared with what it was when it starts; who it is counts at once.
                Some((before, state)) if state != InstanceState::Started => {
                    let spec = with_identity_of(&member.draft.spec, before);
                    let differs = spec != *before;
                    (spec, differs)
                }
                Some((before, state)) => {
                    let differs = *before != member.draft.spec || state != member.draft.state;
                    (member.draft.spec.clone(), differs)
                }
                None => (member.draft.spec.clone(), false),
            };
            let refreshed = differs && member.fate == Fate::Untouched;
            let mut steps = Steps::default();
            if on_paper || refreshed {
                steps.push(Action::SaveInstance { instance: spec.id.clone() });
            }
            let moved = refreshed && stored.is_some_and(|(before, _)| before.networks != spec.networks);
            if moved || excess.contains(&spec.id) {
                steps.push(Action::ReleaseAddresses { instance: spec.id.clone() });
            }
            if steps.is_empty() {
                continue;
            }
            units.push(self.units.unit(label(&spec), BTreeSet::new(), steps));
            self.target(member);
            if let Some(target) = self.targets.get_mut(&spec.id) {
                target.spec = spec;
            }
        }
        if !units.is_empty() {
            self.phase(vec![stage(None, Vec::new(), self.input.director.threads_max, units)]);
        }
        if self.input.change.is_some() {
            return;
        }
        let mut steps = Steps::default();
        steps.push(Action::SaveDeployment);
        let unit = self.units.unit(self.input.deployment.name.to_string(), BTreeSet::new(), steps);
        self.phase(vec![stage(None, Vec::new(), 1, vec![unit])]);
    }

    /// Returns the instances that nobody touches and that hold addresses for a VM which was never made, or is gone.
    fn excess_addresses(&self, members: &[Member<'_>]) -> BTreeSet<InstanceId> {
        let mut held: BTreeMap<&InstanceId, Vec<IpAddr>> = BTreeMap::new();
        for address in self.input.addresses {
            if let Some(id) = &address.instance {
                held.entry(id).or_default().push(address.ip);
            }
        }
        let is_up = |m: &&Member<'_>| m.draft.state == InstanceState::Started && !m.left_alone;
        let untouched = members.iter().filter(|m| m.fate == Fate::Untouched).filter(is_up);
        let holds_more = |m: &&Member<'_>| {
            // An orphan takes its own along.
            let orphans = m.known.iter().flat_map(|k| &k.stale_vms).filter(|vm| is_spare(vm));
            let used: BTreeSet<IpAddr> = orphans
                .flat_map(|vm| &vm.networks)
                .chain(&m.draft.spec.networks)
                .filter_map(|n| n.ip)
                .collect();
            held.get(&m.draft.spec.id).is_some_and(|held| held.iter().any(|ip| !used.contains(ip)))
        };
        untouched.filter(holds_more).map(|m| m.draft.spec.id.clone()).collect()
    }

    /// Runs on every instance that is up, changed or not, once anything changed.
    fn post_deploy(&mut self, members: &[Member<'_>]) {
        let mut units = Vec::new();
        for member in members.iter().filter(|m| !m.left_alone && m.draft.state == InstanceState::Started) {
            let Some(agent) = member.vm.agent_afterwards() else { continue };
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
