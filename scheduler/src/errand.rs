//! Errands: on the instances of a service group, or in a group whose VMs exist for the errand only.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{InstanceSpec, InstanceState, Lifecycle, NetworkKind};
use model::manifest::Overrides;
use model::plan::{Change, Fate, Phase, Plan, Stage, Target, Unit};
use model::release::ReleaseVersion;
use model::step::Action;
use model::task::TaskError;
use model::*;
use sha2::{Digest as _, Sha256};

use crate::chance::{Ids, SeededIds};
use crate::desired::matches;
use crate::disk::{DiskChanges, SameDisk};
use crate::facts::{Facts, Known};
use crate::input::{Afterwards, DeploymentFacts, Director, DrainMode, ErrandRequest};
use crate::order::{self, History, InLine, label};
use crate::steps::{Steps, Units};
use crate::stored::{self, StoredGroups};
use crate::update::{self, Jobs, Metadata, Turn, VmFate};

/// Plans a run of an errand; none if it is not to be run again on instances that have not changed.
pub fn plan_errand(
    director: &Director,
    deployment: &DeploymentFacts<'_>,
    releases: &[ReleaseVersion],
    request: &ErrandRequest<'_>,
) -> Result<Option<Plan>, TaskError> {
    let facts = Facts::of(deployment);
    let chosen = choose(&facts, releases, request)?;
    let digest = chosen.digest(&facts, request.variables);
    if request.unless == Some(digest.as_str()) {
        return Ok(None);
    }
    let mut errand = Errand {
        director,
        units: Units::default(),
        agents: SeededIds::new(deployment.seed, "agents"),
        disks: SeededIds::new(deployment.seed, "disks"),
        targets: BTreeMap::new(),
        phases: Vec::new(),
        warnings: Vec::new(),
    };
    let groups = StoredGroups::of(deployment, Overrides::default());
    let agents = errand.bring_up(&facts, &chosen, &groups)?;
    errand.remember(request.errand, None);
    let runs = errand.run(&chosen, &agents);
    errand.remember(request.errand, Some(digest));
    if request.afterwards == Afterwards::DeleteVms {
        errand.take_down(&facts, &chosen, &agents, runs);
    }
    let targets = errand.targets.into_values().collect();
    Ok(Some(stored::plan(deployment, targets, errand.phases, errand.warnings)))
}

/// What runs where.
struct Chosen<'f, 'a> {
    /// Groups whose VMs are made for the errand.
    groups: BTreeSet<&'f GroupName>,
    /// Instances that run it, with the job that is the errand.
    runs: Vec<(&'f Known<'a>, JobName)>,
}

impl Chosen<'_, '_> {
    /// Returns a digest over everything that the errand could tell apart: the instances that run it or that are made for
    /// it, with their jobs, packages and addresses. What they were rendered into is not among them: instances that are
    /// made for an errand are rendered by it, from all of this.
    fn digest(&self, facts: &Facts<'_>, variables: &str) -> String {
        let made = facts.values().filter(|k| self.groups.contains(&k.instance.spec.group));
        let specs = made.chain(self.runs.iter().map(|(known, _)| *known)).map(|k| &k.instance.spec);
        let of_one = |spec: &InstanceSpec| {
            let fixed = spec.networks.iter().filter(|n| n.kind != NetworkKind::Dynamic);
            let addresses: Vec<_> = fixed.map(|n| (&n.name, n.ip)).collect();
            let seen = (&spec.id, &spec.jobs, &spec.packages, &spec.stemcell.version, addresses);
            // Texts, numbers and maps with texts as keys: that always has a form in JSON.
            hex(&Sha256::digest(serde_json::to_vec(&seen).unwrap_or_default()))
        };
        let each: BTreeSet<String> = specs.map(of_one).collect();
        let all = each.into_iter().chain([variables.to_owned()]).collect::<Vec<_>>().join("\n");
        hex(&Sha256::digest(all))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Finds the errand: a group of that name whose lifecycle is `errand`, or every instance that has the job.
fn choose<'f, 'a>(
    facts: &'f Facts<'a>,
    releases: &[ReleaseVersion],
    request: &ErrandRequest<'_>,
) -> Result<Chosen<'f, 'a>, TaskError> {
    let mut members: Vec<&Known<'a>> =
        facts.values().filter(|k| !k.instance.compilation && !k.instance.ignore).collect();
    members.sort_by_key(|k| (&k.instance.spec.group, k.instance.spec.index));
    let is_errand = |spec: &InstanceSpec, name: &JobName| {
        let used = spec.jobs.iter().find(|j| j.name == *name).map(|j| &j.release);
        let release = releases.iter().find(|r| Some(&r.release) == used);
        release.and_then(|r| r.job(name.as_str())).is_some_and(|j| j.is_errand())
    };
    let mut chosen = Chosen { groups: BTreeSet::new(), runs: Vec::new() };
    let whole_group: Vec<&Known<'a>> = (members.iter().copied())
        .filter(|k| k.instance.spec.lifecycle == Lifecycle::Errand)
        .filter(|k| k.instance.spec.group.as_str() == request.errand)
        .collect();
    if let Some(first) = whole_group.first().copied() {
        if !request.instances.is_empty() {
            return Err(TaskError::new(
                ErrorCode::ErrandError,
                "Filtering by instances is not supported when running errand by instance group name",
            ));
        }
        let spec = &first.instance.spec;
        let job = spec.jobs.iter().find(|j| is_errand(spec, &j.name)).or(spec.jobs.first());
        let job = job.ok_or_else(|| unknown(request.errand))?;
        chosen.groups.insert(&spec.group);
        chosen.runs.push((first, job.name.clone()));
        return Ok(chosen);
    }
    let job = JobName::new(request.errand);
    members.retain(|known| is_errand(&known.instance.spec, &job));
    if members.is_empty() {
        return Err(unknown(request.errand));
    }
    let is_wanted = |spec: &InstanceSpec| {
        request.instances.is_empty() || request.instances.iter().any(|filter| matches(filter, spec))
    };
    let specs = members.iter().map(|known| &known.instance.spec);
    let wanted: BTreeSet<&GroupName> = specs.filter(|spec| is_wanted(spec)).map(|spec| &spec.group).collect();
    for known in members.into_iter().filter(|known| wanted.contains(&known.instance.spec.group)) {
        let spec = &known.instance.spec;
        match spec.lifecycle {
            // All VMs of such a group are made, but only its first instance runs the errand.
            Lifecycle::Errand if !chosen.groups.insert(&spec.group) => {}
            _ if is_wanted(spec) => chosen.runs.push((known, job.clone())),
            _ => {}
        }
    }
    Ok(chosen)
}

fn unknown(errand: &str) -> TaskError {
    TaskError::new(ErrorCode::JobNotFound, format!("Errand '{errand}' doesn't exist"))
}

struct Errand<'a> {
    director: &'a Director,
    units: Units,
    agents: SeededIds,
    disks: SeededIds,
    targets: BTreeMap<InstanceId, Target>,
    phases: Vec<Phase>,
    warnings: Vec<String>,
}

type Agents = BTreeMap<InstanceId, AgentId>;

impl Errand<'_> {
    fn target(&mut self, known: &Known<'_>, fate: Fate) {
        let target = stored::target(known.instance, known.instance.state, fate, Vec::<Change>::new());
        self.targets.entry(target.spec.id.clone()).or_insert(target);
    }

    /// Makes missing VMs and updates every instance of the errand's groups. Returns the agents of all instances.
    fn bring_up(
        &mut self,
        facts: &Facts<'_>,
        chosen: &Chosen<'_, '_>,
        groups: &StoredGroups,
    ) -> Result<Agents, TaskError> {
        let mut agents: Agents =
            facts.values().filter_map(|k| Some((k.instance.spec.id.clone(), k.vm?.agent.clone()))).collect();
        let members: Vec<&Known<'_>> =
            facts.values().filter(|k| chosen.groups.contains(&k.instance.spec.group)).collect();
        let mut missing = Vec::new();
        let mut fresh = BTreeSet::new();
        for known in members.iter().filter(|k| k.vm.is_none()) {
            let id = &known.instance.spec.id;
            let agent = AgentId::new(self.agents.next());
            let mut steps = Steps::default();
            update::delete_vms(&mut steps, id, &known.stale_vms);
            update::create_vm(&mut steps, id, &agent, known.disks.iter().copied());
            missing.push(self.units.unit(label(&known.instance.spec), BTreeSet::new(), steps));
            agents.insert(id.clone(), agent);
            fresh.insert(id.clone());
        }
        if !missing.is_empty() {
            self.phases.push(stored::phase(Some("Creating missing vms"), self.director.threads_max, missing));
        }
        for (group, config) in groups.iter().filter(|(g, _)| chosen.groups.contains(g)) {
            let mine: Vec<&Known<'_>> =
                members.iter().copied().filter(|k| k.instance.spec.group == *group).collect();
            for known in &mine {
                self.target(known, Fate::Updated);
            }
            let leading = mine.iter().find(|k| k.instance.spec.bootstrap);
            let leading = leading.and_then(|k| k.instance.spec.az.as_ref());
            let visits: Vec<Visit<'_, '_>> = (mine.iter().copied())
                .filter_map(|known| {
                    let agent = agents.get(&known.instance.spec.id)?.clone();
                    let is_fresh = fresh.contains(&known.instance.spec.id);
                    let vm = if is_fresh { VmFate::Fresh(agent) } else { VmFate::Keep(agent) };
                    let (wanted, fresh) = (&known.instance.spec, || DiskId::new(self.disks.next()));
                    let disk_changes = DiskChanges::of(&known.disks, wanted, |_| SameDisk::Keep, fresh);
                    Some(Visit { known, vm, disk_changes })
                })
                .collect();
            let line: Vec<InLine<'_>> = (visits.iter())
                .map(|visit| InLine {
                    spec: &visit.known.instance.spec,
                    steps: Box::new(move |watch| turn(visit, watch)),
                })
                .collect();
            let total = line.len() as u32;
            let waves = order::waves(line, leading, config, History::Again, &mut self.units)?;
            let title = Some("Updating instance".to_owned());
            let stage = Stage { title, tags: vec![group.to_string()], total, waves };
            self.phases.push(Phase { stages: vec![stage] });
        }
        Ok(agents)
    }

    fn run(&mut self, chosen: &Chosen<'_, '_>, agents: &Agents) -> Vec<UnitNo> {
        let mut runs: Vec<Unit> = Vec::new();
        for (known, job) in &chosen.runs {
            let id = &known.instance.spec.id;
            let Some(agent) = agents.get(id) else {
                self.warnings.push(format!(
                    "Skipping instance: {}. No matching VM reference was found for it.",
                    known.instance.slug()
                ));
                continue;
            };
            self.target(known, Fate::Untouched);
            let mut steps = Steps::default();
            steps.push(Action::RunErrand { instance: id.clone(), agent: agent.clone(), errand: job.clone() });
            runs.push(self.units.unit(label(&known.instance.spec), BTreeSet::new(), steps));
        }
        if runs.len() > 1 {
            self.warnings
                .push(format!("Executing errand on multiple instances in parallel: {}.", runs.len()));
        }
        let numbers = runs.iter().map(|u| u.no).collect();
        if !runs.is_empty() {
            self.phases.push(stored::phase(Some("Running errand"), self.director.threads_max, runs));
        }
        numbers
    }

    /// Has it remembered on what the errand has run well; none: forgotten, since it is about to run anew.
    fn remember(&mut self, errand: &str, digest: Option<String>) {
        let mut steps = Steps::default();
        steps.push(Action::SaveErrand { errand: errand.to_owned(), digest });
        let unit = self.units.unit(errand.to_owned(), BTreeSet::new(), steps);
        self.phases.push(stored::phase(None, 1, vec![unit]));
    }

    /// Deletes the VMs of errand groups, whether the errand went well, failed or was cancelled.
    fn take_down(&mut self, facts: &Facts<'_>, chosen: &Chosen<'_, '_>, agents: &Agents, runs: Vec<UnitNo>) {
        // Whatever was started before: a VM that was made must go even if the errand never ran.
        let started: BTreeSet<UnitNo> = (self.phases.iter())
            .flat_map(|p| &p.stages)
            .flat_map(|s| &s.waves)
            .flat_map(|w| &w.units)
            .map(|u| u.no)
            .chain(runs)
            .collect();
        let mut units = Vec::new();
        for known in facts.values().filter(|k| chosen.groups.contains(&k.instance.spec.group)) {
            let id = &known.instance.spec.id;
            let Some(agent) = agents.get(id) else { continue };
            let mut steps = Steps::default();
            // So that the disks are written out. Where that can't be, the VM goes all the same, and its disks stay.
            steps.take_all(id, agent, known.disks.iter().copied());
            steps = steps.passing_over_failures();
            steps.push(Action::DeleteVm { instance: id.clone(), agent: agent.clone() });
            let unit = self.units.unit(label(&known.instance.spec), started.clone(), steps);
            units.push(Unit { cleanup: true, ..unit });
        }
        if !units.is_empty() {
            self.phases.push(stored::phase(None, self.director.threads_max, units));
        }
    }
}

/// An instance of an errand group whose turn comes.
struct Visit<'f, 'a> {
    known: &'f Known<'a>,
    vm: VmFate,
    disk_changes: DiskChanges,
}

/// The full update of an errand group's instance, changed or not. Its disks are made when it first gets a VM.
fn turn(visit: &Visit<'_, '_>, watch: model::step::WatchKind) -> Steps {
    let known = visit.known;
    let turn = Turn {
        instance: &known.instance.spec.id,
        state: InstanceState::Started,
        vm: visit.vm.clone(),
        jobs: Jobs::Running,
        active_disks: known.disks.clone(),
        stale_disks: known.stale_disks.clone(),
        disk_changes: visit.disk_changes.clone(),
        metadata: Metadata::Fresh,
        drain: DrainMode::Drain,
        watch,
    };
    turn.steps()
}
