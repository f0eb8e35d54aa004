//! Dry runs: they show the plan and leave no trace but their own task.

use std::collections::BTreeSet;

use model::instance::InstanceState;
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskKind};
use model::{DeploymentName, VariableName};
use serde_json::json;

use crate::artifacts::Shape;
use crate::ended::without_ids;
use crate::summary::summary;
use crate::world::TestWorld;

/// A deployment with a generated password.
fn shape() -> Shape {
    Shape { password: "((pw))", variables: json!([{"name": "pw", "type": "password"}]), ..Shape::default() }
}

async fn dry_run(world: &TestWorld, shape: &Shape) -> String {
    let options = DeployOptions { dry_run: true, ..DeployOptions::default() };
    told(world, shape.deploy_with(options)).await
}

/// Runs a task that is to do nothing; returns what it would do.
async fn told(world: &TestWorld, kind: TaskKind) -> String {
    world.log.proposed.lock().unwrap().clear();
    let before = (summary(world), world.outside.deeds().len(), world.outside.cloud.calls().len());
    let ended = world.run(kind).await.done();
    let proposed: BTreeSet<String> = world.log.proposed.lock().unwrap().iter().cloned().collect();
    assert_eq!(
        proposed.iter().map(String::as_str).collect::<Vec<_>>(),
        ["log", "log:task_finish", "log:task_line", "log:task_take"]
    );
    assert_eq!(before, (summary(world), world.outside.deeds().len(), world.outside.cloud.calls().len()));
    without_ids(&ended.task.result.unwrap())
}

#[tokio::test]
async fn a_dry_run_writes_nothing_but_its_task() {
    let world = TestWorld::seed().await;
    let shown = dry_run(&world, &shape()).await;
    assert!(shown.contains("Creating missing vms") && shown.contains("Compiling packages"), "{shown}");
    assert_eq!(dry_run(&world, &shape()).await, shown, "the same again");
    let password = VariableName::new("/directorate/p/pw");
    world.read(|state| {
        assert!(state.deployment(&DeploymentName::new("p")).is_none());
        assert!(state.variable_sets(&DeploymentName::new("p")).is_empty());
        assert!(state.latest_variable(&password).is_none());
    });

    world.run(shape().deploy()).await.done();
    assert!(world.read(|state| state.latest_variable(&password)).is_some());
    let shown = dry_run(&world, &shape()).await;
    assert!(!shown.contains("Updating instance"), "values that exist are used: {shown}");
    let shown = dry_run(&world, &Shape { port: json!(9090), ..shape() }).await;
    assert!(shown.contains("Updating instance [web]"), "{shown}");
}

#[tokio::test]
async fn a_dry_run_of_a_stop_stops_nothing() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let stop = |dry_run| TaskKind::ChangeState {
        change: StateChange::Become(InstanceState::Stopped),
        filter: InstanceFilter::default(),
        skip_drain: false,
        max_in_flight: None,
        canaries: None,
        dry_run,
        created_before: None,
    };
    let shown = told(&world, stop(true)).await;
    assert!(shown.contains("Updating instance [web]"), "{shown}");
    world.run(stop(false)).await.done();
    assert!(!told(&world, stop(true)).await.contains("Updating instance [web]"), "it is stopped");
}

#[tokio::test]
async fn a_dry_run_fails_as_the_deploy_would() {
    let world = TestWorld::seed().await;
    let undefined = Shape { password: "((nobody-knows))", ..Shape::default() };
    let options = DeployOptions { dry_run: true, ..DeployOptions::default() };
    let dry = world.run(undefined.deploy_with(options)).await.error();
    assert_eq!(dry, world.run(undefined.deploy()).await.error());
    assert!(dry.contains("nobody-knows"), "{dry}");
}
