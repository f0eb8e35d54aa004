//! Deploys that must put right what is broken.

use model::instance::InstanceState;
use model::task::{DeployOptions, TaskError};
use scheduler::input::AgentObservation;
use serde_json::json;

use crate::director::{Director, cloud_config, group, manifest, steps};

/// Plans a deploy with `fix` that wants `state` of an instance whose agent is dead.
fn fixed(state: InstanceState) -> String {
    let mut director = Director::new(&cloud_config());
    let mut group = group(1);
    group["persistent_disk"] = json!(1);
    director.deploy(&manifest(&[group.clone()]));
    group["state"] = json!(state);
    let mut view = director.view();
    let error = TaskError { code: 450002, message: "Timed out".into() };
    let id = director.instances()[0].spec.id.clone();
    view.agents.insert(id, AgentObservation::Unresponsive { error });
    let options = DeployOptions { fix: true, ..DeployOptions::default() };
    let plan = director.plan_with(&view, &manifest(&[group]), &options).unwrap();
    steps(&plan, Some("Updating instance")).remove(0)
}

#[test]
fn a_dead_agent_is_not_asked_to_let_go_of_its_disk() {
    let steps = fixed(InstanceState::Detached);
    assert_eq!(steps, "begin_update delete_vm release_addresses save_instance complete_update");
}

#[test]
fn a_dead_agent_is_not_asked_to_stop() {
    assert_eq!(fixed(InstanceState::Stopped), "begin_update release_addresses save_instance complete_update");
}
