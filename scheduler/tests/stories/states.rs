//! Changes of state: what was deployed last, with other wishes for some instances.

use model::instance::InstanceState;
use model::plan::{Fate, Plan};
use model::task::{InstanceFilter, StateChange, TaskError};
use model::{InstanceId, Timestamp};
use scheduler::input::{AgentObservation, DrainMode, StateChangeRequest};
use serde_json::{Value, json};

use crate::director::{Director, cloud_config, group, is_empty, manifest, steps};
use crate::perform::{Faults, perform};
use crate::render;
use crate::world::View;

const STOPPED: StateChange = StateChange::Become(InstanceState::Stopped);
const STARTED: StateChange = StateChange::Become(InstanceState::Started);
const DETACHED: StateChange = StateChange::Become(InstanceState::Detached);

fn plan(director: &Director, view: &View, change: StateChange, which: &str) -> Result<Plan, TaskError> {
    plan_by_age(director, view, change, which, None)
}

fn plan_by_age(
    director: &Director,
    view: &View,
    change: StateChange,
    which: &str,
    created_before: Option<Timestamp>,
) -> Result<Plan, TaskError> {
    let (group, id_or_index) = which.split_once('/').map_or((which, None), |(g, i)| (g, Some(i.to_owned())));
    let group = (group != "*").then(|| group.into());
    let filter = InstanceFilter { group, id_or_index };
    let (drain, canaries) = (DrainMode::Drain, None);
    let request =
        StateChangeRequest { change, filter: &filter, drain, max_in_flight: None, canaries, created_before };
    let facts = view.facts();
    let (text, options) = (scheduler::stored_manifest(&facts)?, request.options());
    let mut input = view.input(&director.world, &text, &options);
    input.change = Some(&request);
    let draft = scheduler::draft(&input)?;
    let rendered = draft.to_render();
    let rendered = rendered.map(|spec| (spec.id.clone(), render::render(spec, &director.world))).collect();
    scheduler::plan(&input, &draft, &rendered)
}

/// Makes the change.
#[track_caller]
fn change(director: &mut Director, change: StateChange, which: &str) -> Plan {
    let view = director.view();
    let plan = plan(director, &view, change, which).unwrap();
    assert_eq!(perform(&mut director.world, &plan, &Faults::default()).error, None);
    plan
}

fn deployed(instances: usize) -> Director {
    let mut director = Director::new(&cloud_config());
    director.deploy(&with_port(instances, 1));
    director
}

fn with_port(instances: usize, port: u32) -> Value {
    let mut group = group(instances);
    group["jobs"][0]["properties"]["port"] = json!(port);
    manifest(&[group])
}

fn ports(director: &Director) -> Vec<u64> {
    director.instances().iter().map(|i| i.spec.jobs[0].properties["port"].as_u64().unwrap()).collect()
}

#[test]
fn a_start_brings_up_what_was_deployed_meanwhile() {
    for rest in [STOPPED, DETACHED] {
        let mut director = deployed(2);
        change(&mut director, rest, "g/0");
        director.deploy(&with_port(2, 2));
        assert_eq!(ports(&director), [1, 2], "whoever is down has what it had");
        change(&mut director, STARTED, "g/0");
        assert_eq!(ports(&director), [2, 2]);
        assert!(is_empty(&director.deploy(&with_port(2, 2))), "and nothing is left to do");
    }
}

#[test]
fn only_vms_that_are_old_enough_are_recreated() {
    let mut director = deployed(2);
    let mut view = director.view();
    view.vms[0].created_at = Timestamp(1_000);
    view.vms[1].created_at = Timestamp(2_000);
    let recreated = |before: i64| -> Vec<InstanceId> {
        let before = Some(Timestamp(before));
        let plan = plan_by_age(&director, &view, StateChange::Recreate, "*", before).unwrap();
        plan.targets.into_iter().filter(|t| t.fate == Fate::Recreated).map(|t| t.spec.id).collect()
    };
    assert_eq!(recreated(1_000), []);
    assert_eq!(recreated(2_000), [view.vms[0].instance.clone()]);
    assert_eq!(recreated(2_001).len(), 2);
}

#[test]
fn a_change_that_changes_nothing_does_nothing() {
    let mut director = deployed(1);
    assert!(is_empty(&change(&mut director, STARTED, "*")));
    change(&mut director, STOPPED, "*");
    assert!(is_empty(&change(&mut director, STOPPED, "*")));
    let plan = change(&mut director, STOPPED, "nobody");
    assert!(is_empty(&plan) && plan.warnings[0].contains("'nobody'"), "{:?}", plan.warnings);
}

#[test]
fn only_a_deploy_counts_as_a_success() {
    let mut director = deployed(1);
    let plan = change(&mut director, StateChange::Restart, "g/0");
    assert!(plan.record.is_none());
    assert!(plan.units().flat_map(|u| &u.steps).all(|s| s.action.name() != "save_deployment"));
    let mut director = Director::new(&cloud_config());
    let view = director.view();
    assert_eq!(plan_code(&director, &view, STOPPED), Some(440001), "there is nothing to go back to");
}

fn plan_code(director: &Director, view: &View, change: StateChange) -> Option<u32> {
    plan(director, view, change, "g/0").err().map(|error| error.code)
}

/// A deployment of two whose agents `dead` do not answer.
fn with_dead(dead: &[u32]) -> (Director, View) {
    let mut director = deployed(2);
    let mut view = director.view();
    for instance in director.instances().into_iter().filter(|i| dead.contains(&i.spec.index)) {
        let error = TaskError { code: 450002, message: "Timed out".into() };
        view.agents.insert(instance.spec.id.clone(), AgentObservation::Unresponsive { error });
    }
    (director, view)
}

#[test]
fn a_dead_agent_is_no_obstacle_if_its_vm_goes() {
    let (director, view) = with_dead(&[0]);
    for change in [STOPPED, StateChange::Restart] {
        assert_eq!(plan_code(&director, &view, change), Some(450002), "somebody must be asked");
    }
    let detached = plan(&director, &view, DETACHED, "g/0").unwrap();
    let wanted = "begin_update delete_vm release_addresses save_instance complete_update";
    assert_eq!(steps(&detached, Some("Updating instance")), [wanted]);
    let recreated = plan(&director, &view, StateChange::Recreate, "g/0").unwrap();
    assert!(steps(&recreated, Some("Updating instance"))[0].starts_with("begin_update delete_vm create_vm"));
}

#[test]
fn others_whose_agents_are_dead_are_left_alone() {
    let (director, view) = with_dead(&[0, 1]);
    let plan = plan(&director, &view, StateChange::Recreate, "g/0").unwrap();
    assert_eq!(steps(&plan, Some("Updating instance")).len(), 1, "one after the other");
    let other = director.instances()[1].slug();
    assert_eq!(plan.warnings, [format!("The agent of '{other}' does not answer; it was left alone.")]);
    let told: Vec<_> = plan.units().filter(|u| u.label.contains(&other)).collect();
    assert!(told.is_empty(), "no post-deploy either");
}

#[test]
fn links_stay_what_they_were() {
    let mut client = group(1);
    client["name"] = json!("client");
    client["jobs"] = json!([{"name": "client", "release": "golden"}]);
    let with = |servers: usize| manifest(&[group(servers), client.clone()]);
    let mut director = Director::new(&cloud_config());
    director.deploy(&with(1));
    // As if a deploy had broken off after it had added an instance.
    let plan = director.plan(&with(2)).unwrap();
    let seen = |director: &Director| {
        let client = director.world.instances.iter().find(|i| i.spec.group.as_str() == "client").unwrap();
        client.spec.jobs[0].links["endpoint"]["instances"].as_array().unwrap().len()
    };
    assert!(plan.targets.iter().any(|t| t.spec.group.as_str() == "client"), "a deploy would tell the client");
    for instance in &mut director.world.instances {
        for link in instance.spec.jobs.iter_mut().flat_map(|j| j.links.values_mut()) {
            link["instances"].as_array_mut().unwrap().push(json!({"name": "as it was then"}));
        }
    }
    assert_eq!(seen(&director), 2);
    change(&mut director, StateChange::Restart, "client/0");
    assert_eq!(seen(&director), 2);
}

#[test]
fn an_instance_that_is_down_follows_its_group_to_another_name() {
    for rest in [STOPPED, DETACHED] {
        let mut director = deployed(2);
        change(&mut director, rest, "*");
        let mut renamed = group(2);
        renamed["name"] = json!("h");
        renamed["migrated_from"] = json!([{"name": "g"}]);
        director.deploy(&manifest(&[renamed.clone()]));
        // The old name may be forgotten now: nobody is left behind under it.
        renamed.as_object_mut().unwrap().remove("migrated_from");
        assert!(is_empty(&director.deploy(&manifest(&[renamed]))));
        let names: Vec<_> = director.world.instances.iter().map(|i| i.spec.group.as_str()).collect();
        assert_eq!(names, ["h", "h"]);
    }
}

#[test]
fn an_instance_that_is_down_leads_its_group_when_nobody_else_is_left() {
    let mut director = deployed(2);
    change(&mut director, STOPPED, "*");
    let mut one = group(1);
    one["azs"] = json!(["z2"]);
    director.deploy(&manifest(&[one]));
    let leads: Vec<_> = director.instances().iter().map(|i| (i.spec.index, i.spec.bootstrap)).collect();
    assert_eq!(leads, [(1, true)]);
}
