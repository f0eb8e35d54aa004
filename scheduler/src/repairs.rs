//! Repairs: work on single instances of a deployment that runs, group by group, and what follows once they are done.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::InstanceState;
use model::manifest::UpdateConfig;
use model::manifest::update::{Overrides, Turns};
use model::plan::{Change, Fate, Needs, OnFailure, Phase, Plan, Stage, Target, Unit, Wave};
use model::step::{Action, Script};
use model::task::TaskError;
use model::*;

use crate::facts::Facts;
use crate::input::{DeploymentFacts, Director};
use crate::order::label;
use crate::steps::{Steps, Units};
use crate::stored::{self, StoredGroups};

/// Something that is done for one instance.
pub(crate) struct Repair {
    /// The instance. It may be gone.
    pub(crate) instance: InstanceId,
    /// Its group.
    pub(crate) group: GroupName,
    /// What the event line shows.
    pub(crate) label: String,
    /// Two repairs of one instance are never done side by side: the one with the lower turn comes first.
    pub(crate) turn: usize,
    /// The deeds.
    pub(crate) steps: Steps,
    /// Whose agent answers for the instance if the repair has ended well.
    pub(crate) agent: Answering,
}

/// Whose agent answers for an instance after its repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// The one that answered before, if one did.
    AsBefore,
    /// The one in a new VM.
    New(AgentId),
    /// The one in the old VM, which did not answer before.
    Again(AgentId),
    /// None does.
    Nobody,
}

/// When post-deploy scripts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostDeploy {
    /// Once anything was repaired; on a repaired instance, if it was.
    IfAnyEndedWell,
    /// If nothing has failed.
    IfAllEndedWell,
}

/// How repairs are gone about.
pub(crate) struct Terms<'a> {
    /// Overrides of the groups' `max_in_flight`.
    pub(crate) max_in_flight: &'a BTreeMap<GroupName, String>,
    /// When post-deploy scripts run.
    pub(crate) post_deploy: PostDeploy,
}

/// Plans repairs, and the post-deploy scripts after them.
pub(crate) fn plan(
    director: &Director,
    deployment: &DeploymentFacts<'_>,
    repairs: Vec<Repair>,
    terms: &Terms<'_>,
) -> Result<Plan, TaskError> {
    let facts = Facts::of(deployment);
    let mut units = Units::default();
    let mut done = Vec::with_capacity(repairs.len());
    let mut phases = in_turns(deployment, &repairs, terms, &mut units, &mut done)?;
    let mut targets = targets(&facts, &repairs);
    let afterwards = afterwards(&facts, &repairs, &done, terms.post_deploy, &mut units, &mut targets);
    if !afterwards.is_empty() {
        phases.push(stored::phase(None, director.threads_max, afterwards));
    }
    let targets = targets.into_values().collect();
    Ok(stored::plan(deployment, targets, phases, Vec::new()))
}

/// Returns the phases of the repairs: one group at a time, neighbours that are not serial together. No more instances of a
/// group are touched at once than in a deploy. But there is no canary: these instances do not run anyway, and one that
/// can't be helped must not keep the others from being. Notes in `done` which unit does what for whom.
fn in_turns<'r>(
    deployment: &DeploymentFacts<'_>,
    repairs: &'r [Repair],
    terms: &Terms<'_>,
    units: &mut Units,
    done: &mut Vec<(&'r InstanceId, UnitNo)>,
) -> Result<Vec<Phase>, TaskError> {
    let mut phases: Vec<Phase> = Vec::new();
    let mut before = None;
    let stored = StoredGroups::of(deployment, Overrides::default());
    let mut of_gone: Vec<&Repair> = repairs.iter().collect();
    for (group, update) in stored.iter() {
        let mine: Vec<&Repair> = repairs.iter().filter(|repair| repair.group == *group).collect();
        of_gone.retain(|repair| repair.group != *group);
        if mine.is_empty() {
            continue;
        }
        let own = terms.max_in_flight.get(group).unwrap_or(&update.max_in_flight).clone();
        let max_in_flight = UpdateConfig { max_in_flight: own, ..update.clone() }.in_flight_of(mine.len())?;
        let joins = update.turns == Turns::Parallel && before == Some(Turns::Parallel);
        before = Some(update.turns);
        let stage = stage(&mine, max_in_flight, repairs.len(), units, done);
        match phases.last_mut().filter(|_| joins) {
            Some(phase) => phase.stages.push(stage),
            None => phases.push(Phase { stages: vec![stage] }),
        }
    }
    if !of_gone.is_empty() {
        phases.push(Phase { stages: vec![stage(&of_gone, 1, repairs.len(), units, done)] });
    }
    Ok(phases)
}

fn stage<'r>(
    mine: &[&'r Repair],
    max_in_flight: u32,
    total: usize,
    units: &mut Units,
    done: &mut Vec<(&'r InstanceId, UnitNo)>,
) -> Stage {
    let mut turns: BTreeMap<usize, Vec<Unit>> = BTreeMap::new();
    for repair in mine {
        let unit = units.unit(repair.label.clone(), BTreeSet::new(), repair.steps.clone());
        done.push((&repair.instance, unit.no));
        turns.entry(repair.turn).or_default().push(Unit { on_failure: OnFailure::GoOn, ..unit });
    }
    let waves = turns.into_values().map(|units| Wave { max_in_flight, units }).collect();
    let title = Some("Applying problem resolutions".to_owned());
    Stage { title, tags: Vec::new(), total: total as u32, waves }
}

fn targets(facts: &Facts<'_>, repairs: &[Repair]) -> BTreeMap<InstanceId, Target> {
    let mut targets = BTreeMap::new();
    for repair in repairs {
        let Some(known) = facts.get(&repair.instance) else { continue };
        let (fate, changes) = match repair.agent {
            Answering::New(_) => (Fate::Recreated, vec![Change::Recreate]),
            _ if targets.contains_key(&repair.instance) => continue,
            _ => (Fate::Untouched, Vec::new()),
        };
        let target = stored::target(known.instance, known.instance.state, fate, changes);
        targets.insert(repair.instance.clone(), target);
    }
    targets
}

/// Post-deploy scripts run on everything that is up.
fn afterwards(
    facts: &Facts<'_>,
    repairs: &[Repair],
    done: &[(&InstanceId, UnitNo)],
    when: PostDeploy,
    units: &mut Units,
    targets: &mut BTreeMap<InstanceId, Target>,
) -> Vec<Unit> {
    let all: BTreeSet<UnitNo> = done.iter().map(|(_, unit)| *unit).collect();
    if all.is_empty() && when == PostDeploy::IfAnyEndedWell {
        return Vec::new();
    }
    let mut afterwards = Vec::new();
    for known in facts.values() {
        let instance = known.instance;
        let id = &instance.spec.id;
        if instance.ignore || instance.compilation || instance.state != InstanceState::Started {
            continue;
        }
        let repaired = repairs.iter().filter(|repair| repair.instance == *id);
        let answering = repaired.map(|repair| &repair.agent).rfind(|agent| **agent != Answering::AsBefore);
        let agent = match (answering, known.vm) {
            (Some(Answering::New(agent) | Answering::Again(agent)), _) => agent,
            (Some(Answering::AsBefore) | None, Some(vm)) if !known.is_unresponsive() => &vm.agent,
            _ => continue,
        };
        let mut steps = Steps::default();
        let (instance_id, agent, script) = (id.clone(), agent.clone(), Script::PostDeploy);
        steps.push(Action::RunScript { instance: instance_id, agent, script, intent: None });
        let own: BTreeSet<UnitNo> = done.iter().filter(|(of, _)| *of == id).map(|(_, unit)| *unit).collect();
        let (after, needs) = match when {
            PostDeploy::IfAllEndedWell => (all.clone(), Needs::All),
            PostDeploy::IfAnyEndedWell if own.is_empty() => (all.clone(), Needs::Any),
            PostDeploy::IfAnyEndedWell => (own, Needs::All),
        };
        let untouched = || stored::target(instance, instance.state, Fate::Untouched, Vec::new());
        targets.entry(id.clone()).or_insert_with(untouched);
        let unit = units.unit(label(&instance.spec), after, steps);
        afterwards.push(Unit { needs, on_failure: OnFailure::GoOn, ..unit });
    }
    afterwards
}
