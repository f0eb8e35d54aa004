//! Resurrection: new VMs, from stored specs, for instances whose VMs are gone or dead.

use std::collections::BTreeSet;

use model::instance::InstanceState;
use model::manifest::Overrides;
use model::manifest::update::Turns;
use model::plan::{Change, Fate, Needs, OnFailure, Phase, Plan, Stage, Target, Unit, Wave};
use model::step::{Action, Script, WatchKind};
use model::task::TaskError;
use model::*;

use crate::chance::{Ids, SeededIds};
use crate::facts::{Facts, Known};
use crate::input::{DeploymentFacts, Director};
use crate::order::label;
use crate::steps::{Steps, Units};
use crate::stored::{self, StoredGroups};
use crate::update;

/// Plans new VMs for instances whose VMs are gone or dead. Those that need none (any more) are passed over: between
/// the alarm and the plan somebody may have deleted, stopped or repaired them.
///
/// Groups take turns as in a deploy, and no more instances of a group are touched at once. But there is no canary: these
/// instances do not run anyway, and one that can't be helped must not keep the others from being.
pub fn plan_resurrection(
    director: &Director,
    deployment: &DeploymentFacts<'_>,
    instances: &[InstanceId],
) -> Result<Plan, TaskError> {
    let facts = Facts::of(deployment);
    let wanted: BTreeSet<&InstanceId> = instances.iter().collect();
    let mut agents = SeededIds::new(deployment.seed, "agents");
    let dead = wanted.into_iter().filter_map(|id| facts.get(id)).filter(|known| needs_vm(known));
    let dead: Vec<Dead<'_, '_>> =
        dead.map(|known| Dead { known, agent: AgentId::new(agents.next()) }).collect();
    let mut units = Units::default();
    let mut repairs = Vec::new();
    let mut phases = repair(deployment, &dead, &mut units, &mut repairs)?;
    let mut targets: Vec<Target> = (dead.iter().map(|dead| dead.known.instance))
        .map(|i| stored::target(i, i.state, Fate::Recreated, vec![Change::Recreate]))
        .collect();
    let afterwards = afterwards(&facts, &dead, &repairs, &mut units, &mut targets);
    if !afterwards.is_empty() {
        phases.push(stored::phase(None, director.threads_max, afterwards));
    }
    Ok(stored::plan(deployment, targets, phases, Vec::new()))
}

/// An instance that gets a new VM, with this agent.
struct Dead<'f, 'a> {
    known: &'f Known<'a>,
    agent: AgentId,
}

/// Returns the phases of the repairs: one group at a time, neighbours that are not serial together. Notes each instance's
/// unit in `repairs`.
fn repair(
    deployment: &DeploymentFacts<'_>,
    dead: &[Dead<'_, '_>],
    units: &mut Units,
    repairs: &mut Vec<(InstanceId, UnitNo)>,
) -> Result<Vec<Phase>, TaskError> {
    let mut phases: Vec<Phase> = Vec::new();
    let mut before = None;
    for (group, update) in StoredGroups::of(deployment, Overrides::default()).iter() {
        let mine: Vec<&Dead<'_, '_>> =
            dead.iter().filter(|dead| dead.known.instance.spec.group == *group).collect();
        if mine.is_empty() {
            continue;
        }
        let joins = update.turns == Turns::Parallel && before == Some(Turns::Parallel);
        before = Some(update.turns);
        let max_in_flight = update.in_flight_of(mine.len())?;
        let mut members = Vec::with_capacity(mine.len());
        for Dead { known, agent } in mine {
            let spec = &known.instance.spec;
            let unit = units.unit(label(spec), BTreeSet::new(), revive(known, agent));
            repairs.push((spec.id.clone(), unit.no));
            members.push(Unit { on_failure: OnFailure::GoOn, ..unit });
        }
        let title = Some("Applying problem resolutions".to_owned());
        let waves = vec![Wave { max_in_flight, units: members }];
        let stage = Stage { title, tags: Vec::new(), total: dead.len() as u32, waves };
        match phases.last_mut().filter(|_| joins) {
            Some(phase) => phase.stages.push(stage),
            None => phases.push(Phase { stages: vec![stage] }),
        }
    }
    Ok(phases)
}

/// Post-deploy scripts run on everything that is up, once anything was repaired; on a repaired instance, if it was.
fn afterwards(
    facts: &Facts<'_>,
    dead: &[Dead<'_, '_>],
    repairs: &[(InstanceId, UnitNo)],
    units: &mut Units,
    targets: &mut Vec<Target>,
) -> Vec<Unit> {
    let all: BTreeSet<UnitNo> = repairs.iter().map(|(_, unit)| *unit).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let mut afterwards = Vec::new();
    for known in facts.values() {
        let instance = known.instance;
        let id = &instance.spec.id;
        if instance.ignore || instance.compilation || instance.state != InstanceState::Started {
            continue;
        }
        let repaired = dead.iter().find(|dead| dead.known.instance.spec.id == *id);
        let agent = match (repaired, known.vm) {
            (Some(dead), _) => &dead.agent,
            (None, Some(vm)) if !known.is_unresponsive() => &vm.agent,
            _ => continue,
        };
        let mut steps = Steps::default();
        let (instance_id, agent) = (id.clone(), agent.clone());
        let script = Script::PostDeploy;
        steps.push(Action::RunScript { instance: instance_id, agent, script, intent: None });
        let own = repairs.iter().find(|(repaired, _)| repaired == id).map(|(_, unit)| *unit);
        let (after, needs) = match own {
            Some(own) => (BTreeSet::from([own]), Needs::All),
            None => {
                targets.push(stored::target(instance, instance.state, Fate::Untouched, Vec::new()));
                (all.clone(), Needs::Any)
            }
        };
        let unit = units.unit(label(&instance.spec), after, steps);
        afterwards.push(Unit { needs, on_failure: OnFailure::GoOn, ..unit });
    }
    afterwards
}

fn needs_vm(known: &Known<'_>) -> bool {
    let dead = known.vm.is_none() || known.is_unresponsive();
    !known.instance.ignore && known.instance.expects_vm() && dead
}

/// The old VM goes first, whatever is left of it: two VMs with one disk would be worse than none.
fn revive(known: &Known<'_>, agent: &AgentId) -> Steps {
    let id = &known.instance.spec.id;
    let mut steps = Steps::default();
    steps.push(Action::BeginUpdate { instance: id.clone() });
    for vm in known.vm.iter().chain(&known.stale_vms) {
        steps.push(Action::DeleteVm { instance: id.clone(), agent: vm.agent.clone() });
    }
    update::create_vm(&mut steps, id, agent, known.disk);
    steps.apply(id, agent);
    steps.push(Action::SaveInstance { instance: id.clone() });
    if known.instance.state == InstanceState::Started {
        steps.start(id, agent, WatchKind::Update);
    }
    steps.push(Action::CompleteUpdate { instance: id.clone() });
    steps
}
