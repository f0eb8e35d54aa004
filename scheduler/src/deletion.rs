//! Deleting a whole deployment: every instance, whether ignored or not.

use std::collections::BTreeSet;

use model::GroupName;
use model::instance::Instance;
use model::plan::{Fate, Phase, Plan, Stage, Target, Wave};
use model::step::{Action, StopIntent};
use model::task::TaskError;

use crate::facts::Facts;
use crate::input::{Deletion, DeploymentFacts, Director, DrainMode};
use crate::order::label;
use crate::steps::{Steps, Units};
use crate::update::{Departure, Jobs};

/// Plans the deletion of a whole deployment. Disks are given up, not deleted.
pub fn plan_delete_deployment(
    director: &Director,
    deployment: &DeploymentFacts<'_>,
    deletion: Deletion,
) -> Result<Plan, TaskError> {
    let facts = Facts::of(deployment);
    let mut units = Units::default();
    let (mut targets, mut deletions) = (Vec::new(), Vec::new());
    let mut all: Vec<_> = facts.values().collect();
    all.sort_by_cached_key(|known| place(deployment, known.instance));
    for known in all {
        let instance = known.instance;
        // Forced or not: jobs that can be stopped are, for others may count on it. Only that they fail holds nothing up then.
        let jobs = if instance.compilation { Jobs::Stopped } else { known.jobs() };
        let departure = Departure {
            instance: &instance.spec.id,
            agents: known.vm.iter().chain(&known.stale_vms).map(|vm| &vm.agent).collect(),
            jobs,
            disks: known.all_disks(),
            intent: StopIntent::DeleteDeployment,
            drain: DrainMode::Drain,
        };
        let steps = match deletion {
            Deletion::Forced => departure.steps().passing_over_failures(),
            Deletion::Orderly => departure.steps(),
        };
        deletions.push(units.unit(label(&instance.spec), BTreeSet::new(), steps));
        targets.push(Target {
            spec: instance.spec.clone(),
            state: instance.state,
            fate: Fate::Deleted,
            changes: Vec::new(),
            compilation: instance.compilation,
        });
    }
    let mut phases = Vec::new();
    if !deletions.is_empty() {
        phases.push(phase(Some("Deleting instances"), director.threads_max, deletions));
    }
    let mut last = Steps::default();
    last.push(Action::DeleteDeployment);
    let last = units.unit(deployment.name.to_string(), BTreeSet::new(), last);
    phases.push(phase(None, 1, vec![last]));
    Ok(Plan {
        deployment: Some(deployment.name.clone()),
        generation: deployment.generation,
        targets,
        reservations: Vec::new(),
        phases,
        record: None,
        warnings: Vec::new(),
        dns_subjects: Vec::new(),
    })
}

/// Returns where an instance stands among those that are told to go: as the manifest lists its group, and by index.
fn place<'a>(deployment: &DeploymentFacts<'a>, instance: &'a Instance) -> (usize, &'a GroupName, u32) {
    let groups = deployment.record.and_then(|record| record.manifest["instance_groups"].as_array());
    let is_it = |group: &serde_json::Value| group["name"] == instance.spec.group.as_str();
    let at = groups.and_then(|groups| groups.iter().position(is_it)).unwrap_or(usize::MAX);
    (at, &instance.spec.group, instance.spec.index)
}

fn phase(title: Option<&str>, max_in_flight: u32, units: Vec<model::plan::Unit>) -> Phase {
    let total = units.len() as u32;
    let waves = vec![Wave { max_in_flight, units }];
    Phase { stages: vec![Stage { title: title.map(str::to_owned), tags: Vec::new(), total, waves }] }
}
