//! Certificates of agents that end: each agent is told its settings once more, with another one in them. Jobs run on, but the
//! agent is gone for as long as a restart takes.

use std::collections::BTreeSet;

use model::AgentId;
use model::plan::{Fate, OnFailure, Plan, Unit};
use model::step::Action;

use crate::facts::Facts;
use crate::input::DeploymentFacts;
use crate::order::label;
use crate::steps::{Steps, Units};
use crate::stored;

/// Few at once: whoever watches a deployment should not see it without its agents.
const AT_ONCE: u32 = 3;

/// Plans other certificates for these agents, as far as instances work with their VMs; none if there is nobody.
pub fn plan_rotation(deployment: &DeploymentFacts<'_>, agents: &BTreeSet<AgentId>) -> Option<Plan> {
    let facts = Facts::of(deployment);
    let (mut units, mut targets, mut rotations) = (Units::default(), Vec::new(), Vec::new());
    for known in facts.values() {
        let Some(vm) = known.vm.filter(|vm| agents.contains(&vm.agent)) else { continue };
        let (spec, mut steps) = (&known.instance.spec, Steps::default());
        steps.push(Action::UpdateSettings { instance: spec.id.clone(), agent: vm.agent.clone() });
        // One that does not answer says nothing about the others.
        let unit = units.unit(label(spec), BTreeSet::new(), steps);
        rotations.push(Unit { on_failure: OnFailure::GoOn, ..unit });
        targets.push(stored::target(known.instance, known.instance.state, Fate::Untouched, Vec::new()));
    }
    let phases = vec![stored::phase(Some("Rotating certificates"), AT_ONCE, rotations)];
    (!targets.is_empty()).then(|| stored::plan(deployment, targets, phases, Vec::new()))
}
