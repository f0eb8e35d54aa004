//! Groups as the last successful manifest described them, for tasks that use stored specs.

use std::collections::BTreeMap;

use model::instance::{Instance, WatchTime};
use model::manifest::UpdateConfig;
use model::manifest::update::{Overrides, Turns, VmStrategy};
use model::plan::{Phase, Stage, Target, Unit, Wave};
use model::*;
use serde_json::Value;

use crate::input::DeploymentFacts;

/// Update settings by group, in the order of the manifest.
pub(crate) struct StoredGroups {
    order: Vec<GroupName>,
    update: BTreeMap<GroupName, UpdateConfig>,
}

impl StoredGroups {
    /// Reads the record. What cannot be read any more falls back to one instance at a time: a task on stored specs
    /// must work even where the manifest would be refused today.
    pub(crate) fn of(deployment: &DeploymentFacts<'_>, overrides: Overrides<'_>) -> Self {
        let manifest = deployment.record.map_or(&Value::Null, |r| &r.manifest);
        let top = manifest.get("update").and_then(Value::as_object);
        let top = top.and_then(|block| UpdateConfig::parse_top(block, overrides).ok());
        let top = top.unwrap_or_else(|| careful(overrides));
        let (mut order, mut update) = (Vec::new(), BTreeMap::new());
        for group in manifest.get("instance_groups").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = group.get("name").and_then(Value::as_str).map(GroupName::new) else { continue };
            let block = group.get("update").and_then(Value::as_object);
            let config = UpdateConfig::parse_group(block, &top, overrides).unwrap_or_else(|_| top.clone());
            update.insert(name.clone(), config);
            order.push(name);
        }
        for instance in deployment.instances.iter().filter(|i| !i.compilation) {
            if !update.contains_key(&instance.spec.group) {
                update.insert(instance.spec.group.clone(), top.clone());
                order.push(instance.spec.group.clone());
            }
        }
        Self { order, update }
    }

    /// Returns the groups with their settings, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&GroupName, &UpdateConfig)> {
        self.order.iter().filter_map(|name| Some((name, self.update.get(name)?)))
    }
}

fn careful(overrides: Overrides<'_>) -> UpdateConfig {
    let window = WatchTime { min_ms: 1_000, max_ms: 300_000 };
    UpdateConfig {
        canaries: overrides.canaries.unwrap_or("1").to_owned(),
        max_in_flight: overrides.max_in_flight.unwrap_or("1").to_owned(),
        canary_watch_time: window,
        update_watch_time: window,
        turns: Turns::Serial,
        initial_az_turns: Turns::Serial,
        vm_strategy: VmStrategy::DeleteCreate,
    }
}

/// Makes a target from what is stored.
pub(crate) fn target(
    instance: &Instance,
    state: model::instance::InstanceState,
    fate: model::plan::Fate,
    changes: Vec<model::plan::Change>,
) -> Target {
    Target { spec: instance.spec.clone(), state, fate, changes, compilation: instance.compilation }
}

/// Makes a phase of one stage with one wave.
pub(crate) fn phase(title: Option<&str>, max_in_flight: u32, units: Vec<Unit>) -> Phase {
    let total = units.len() as u32;
    let waves = vec![Wave { max_in_flight, units }];
    Phase { stages: vec![Stage { title: title.map(str::to_owned), tags: Vec::new(), total, waves }] }
}

/// Makes a plan that stores nothing but what its steps store.
pub(crate) fn plan(
    deployment: &DeploymentFacts<'_>,
    targets: Vec<Target>,
    phases: Vec<Phase>,
    warnings: Vec<String>,
) -> model::plan::Plan {
    model::plan::Plan {
        deployment: Some(deployment.name.clone()),
        generation: deployment.generation,
        targets,
        reservations: Vec::new(),
        phases,
        record: None,
        warnings,
        dns_subjects: Vec::new(),
    }
}
