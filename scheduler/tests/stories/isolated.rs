//! Changes of one instance with the spec that is stored of it.

use model::instance::InstanceState;
use model::plan::Plan;
use model::task::{StateChange, TaskError};
use model::{ErrorCode, InstanceId};
use scheduler::input::{AgentObservation, DrainMode};
use scheduler::{IsolatedChange, Silence};
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, manifest};
use crate::perform::{Faults, perform};
use crate::world::View;

const STOPPED: StateChange = StateChange::Become(InstanceState::Stopped);
const STARTED: StateChange = StateChange::Become(InstanceState::Started);
const DETACHED: StateChange = StateChange::Become(InstanceState::Detached);

fn id(view: &View, index: u32) -> InstanceId {
    view.instances.iter().find(|instance| instance.spec.index == index).unwrap().spec.id.clone()
}

fn plan(view: &View, change: StateChange, index: u32, silence: Silence) -> Result<Option<Plan>, TaskError> {
    let instance = &id(view, index);
    let wanted = IsolatedChange { change, instance, drain: DrainMode::Drain, silence };
    scheduler::plan_isolated_change(&view.facts(), &wanted)
}

/// Makes the change; returns what operators see of it, or nothing if there was nothing to do.
#[track_caller]
fn change(director: &mut Director, change: StateChange) -> Vec<String> {
    let Some(plan) = plan(&director.view(), change, 0, Silence::Fails).unwrap() else { return Vec::new() };
    assert_eq!(perform(&mut director.world, &plan, &Faults::default()).error, None);
    told(&plan)
}

fn told(plan: &Plan) -> Vec<String> {
    let stages = plan.phases.iter().flat_map(|phase| &phase.stages);
    let waves = stages.flat_map(|stage| stage.waves.iter().map(move |wave| (&stage.title, wave)));
    let units = waves.flat_map(|(title, wave)| wave.units.iter().map(move |unit| (title, unit)));
    units
        .map(|(title, unit)| {
            assert!(title.as_deref().unwrap().starts_with("Updating instance g/"), "{title:?}");
            let steps: Vec<&str> = unit.steps.iter().map(|step| step.action.name()).collect();
            format!("{}: {}", unit.label, steps.join(" "))
        })
        .collect()
}

fn with_port(instances: usize, port: u32) -> Value {
    let mut group = group(instances);
    group["persistent_disk"] = json!(1);
    group["jobs"][0]["properties"]["port"] = json!(port);
    manifest(&[group])
}

fn deployed() -> Director {
    let mut director = Director::new(&cloud_config());
    director.deploy(&with_port(2, 1));
    director
}

fn ports(director: &Director) -> Vec<u64> {
    director.instances().iter().map(|i| i.spec.jobs[0].properties["port"].as_u64().unwrap()).collect()
}

const STOP: &str = "run_script drain stop run_script";
const DELETE: &str = "Deleting VM: check_disks unmount_disk detach_disk delete_vm";
const CREATE: &str =
    "create_vm set_vm_metadata await_agent attach_disk set_disk_metadata mount_disk update_settings bind_vm";
const START: &str = "apply save_instance run_script start watch run_script complete_update";

#[test]
fn an_instance_is_stopped_and_started_where_it_is() {
    let mut director = deployed();
    let stopped = change(&mut director, STOPPED);
    assert_eq!(stopped, [format!("Stopping instance: begin_update {STOP} save_instance complete_update")]);
    assert_eq!(change(&mut director, STOPPED), [""; 0], "it is stopped");
    let started = change(&mut director, STARTED);
    assert_eq!(started, [format!("Starting instance: begin_update update_settings {START}")]);
    assert_eq!(change(&mut director, STARTED), [""; 0], "it runs");
}

#[test]
fn a_hard_stop_lets_go_of_the_vm_and_a_start_brings_one_with_the_disk() {
    let mut director = deployed();
    let stopped = change(&mut director, DETACHED);
    let parts = [
        format!("Stopping instance: begin_update {STOP}"),
        format!("{DELETE} save_instance complete_update"),
    ];
    assert_eq!(stopped, parts);
    assert_eq!(change(&mut director, DETACHED), [""; 0]);
    assert_eq!(change(&mut director, STOPPED), [""; 0], "without a VM it is stopped as well as can be");
    let started = change(&mut director, STARTED);
    let parts = [format!("Creating VM: begin_update {CREATE}"), format!("Starting instance: {START}")];
    assert_eq!(started, parts);
}

#[test]
fn a_restart_keeps_the_vm_and_a_recreation_does_not() {
    let mut director = deployed();
    let stop = format!("Stopping instance: begin_update {STOP}");
    let restarted = change(&mut director, StateChange::Restart);
    assert_eq!(restarted, [stop.clone(), format!("Starting instance: update_settings {START}")]);
    let recreated = change(&mut director, StateChange::Recreate);
    let parts =
        [stop, DELETE.to_owned(), format!("Creating VM: {CREATE}"), format!("Starting instance: {START}")];
    assert_eq!(recreated, parts);
}

#[test]
fn what_was_deployed_meanwhile_is_left_for_the_next_deploy() {
    let mut director = deployed();
    change(&mut director, DETACHED);
    director.deploy(&with_port(2, 2));
    assert_eq!(ports(&director), [1, 2]);
    change(&mut director, STARTED);
    assert_eq!(ports(&director), [1, 2], "it is as it was when it was stopped");
    director.deploy(&with_port(2, 2));
    assert_eq!(ports(&director), [2, 2]);
}

#[test]
fn a_silent_agent_is_an_obstacle_unless_its_vm_is_given_up() {
    let mut director = deployed();
    let mut view = director.view();
    let error = TaskError::new(ErrorCode::RpcTimeout, "Timed out");
    let silent = id(&view, 0);
    view.agents.insert(silent, AgentObservation::Unresponsive { error: error.clone() });
    for change in [STOPPED, DETACHED, STARTED, StateChange::Restart, StateChange::Recreate] {
        assert_eq!(plan(&view, change, 0, Silence::Fails), Err(error.clone()), "{change:?}");
    }
    assert_eq!(plan(&view, STOPPED, 0, Silence::IsPassedOver), Err(error), "it would run on");
    let recreated = plan(&view, StateChange::Recreate, 0, Silence::IsPassedOver).unwrap().unwrap();
    let parts = [
        "Deleting VM: begin_update delete_vm".to_owned(),
        format!("Creating VM: {CREATE}"),
        format!("Starting instance: {START}"),
    ];
    assert_eq!(told(&recreated), parts);
    assert!(plan(&view, StateChange::Restart, 1, Silence::Fails).is_ok(), "the others are no concern of its");
}

#[test]
fn who_is_ignored_or_there_for_an_errand_is_left_alone() {
    let mut director = deployed();
    director.ignore(0);
    let refused = plan(&director.view(), STOPPED, 0, Silence::Fails).unwrap_err();
    assert_eq!(refused.code, 190020, "{refused:?}");
    let mut director = Director::new(&cloud_config());
    let mut group = group(1);
    group["lifecycle"] = json!("errand");
    director.deploy(&manifest(&[group]));
    let refused = plan(&director.view(), STARTED, 0, Silence::Fails).unwrap_err();
    assert_eq!(refused.code, 90000, "{refused:?}");
}
