//! Errands: what they leave as their result, and when they are not run again.

use agent_api::fake::Behaviour;
use model::DeploymentName;
use model::task::{TaskKind, TaskState};
use serde_json::{Value, json};
use state::command::Command;

use crate::artifacts::{Shape, errand, errand_when_changed};
use crate::ended::Ended;
use crate::world::TestWorld;

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world
}

fn line(ended: &Ended) -> Value {
    serde_json::from_str(&ended.result).unwrap()
}

#[tokio::test]
async fn an_errand_gets_a_vm_runs_once_and_leaves_its_result() {
    let world = deployed().await;
    let ended = world.run(errand()).await.done();
    let line = line(&ended);
    assert_eq!((&line["exit_code"], &line["errand_name"]), (&json!(0), &json!("smoke")));
    assert_eq!(line["logs"]["blobstore_id"], json!("0".repeat(64)));
    assert_eq!(world.outside.done("run_errand"), 1);
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone");
}

#[tokio::test]
async fn an_errand_that_exits_with_a_code_has_run_all_the_same() {
    let world = deployed().await;
    world.outside.answer("run_errand", json!({"exit_code": 3, "stdout": "no", "stderr": ""}));
    let ended = world.run(errand()).await.done();
    let line = line(&ended);
    assert_eq!((&line["exit_code"], &line["stdout"]), (&json!(3), &json!("no")));
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone");
}

#[tokio::test]
async fn an_errand_whose_logs_can_not_be_fetched_fails_and_leaves_its_result() {
    let world = deployed().await;
    world.outside.answer("run_errand", json!({"exit_code": 0, "stdout": "fine", "stderr": ""}));
    world.outside.behave("fetch_logs", Behaviour::Fail("no space left".into()));
    let ended = world.run(errand()).await;
    assert_eq!(line(&ended)["stdout"], json!("fine"));
    assert_eq!(line(&ended)["logs"], json!({"blobstore_id": null, "sha1": null}));
    assert!(ended.error().contains("no space left"));
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone");
    world.outside.behave_as_usual();
    world.run(errand_when_changed()).await.done();
    assert_eq!(world.outside.done("run_errand"), 2, "a task that failed is no reason not to run it");
}

#[tokio::test]
async fn an_errand_that_is_cancelled_leaves_what_it_printed() {
    let world = deployed().await;
    world.outside.behave("run_errand", Behaviour::Hang { then: Value::Null });
    let task = world.queue(errand());
    world.until_asked("run_errand", 1).await;
    world.apply(Command::TaskCancel { task });
    let ended = world.ended(task).await;
    assert_eq!(ended.task.state, TaskState::Cancelled);
    let line = line(&ended);
    assert_eq!((&line["exit_code"], &line["stdout"]), (&json!(143), &json!("begun\n")));
    assert_eq!(line["logs"]["blobstore_id"], json!("0".repeat(64)));
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone");
}

/// Runs the errand if something has changed; returns whether it was run.
async fn was_run(world: &TestWorld) -> bool {
    let before = world.outside.done("run_errand");
    let ended = world.run(errand_when_changed()).await.done();
    let runs = world.outside.done("run_errand") - before;
    assert_eq!(ended.result.lines().count(), runs);
    assert_eq!(ended.task.result.is_some_and(|text| text == "skipped - no changes detected"), runs == 0);
    runs == 1
}

#[tokio::test]
async fn an_errand_that_ran_well_is_run_again_when_something_has_changed() {
    let world = deployed().await;
    assert!(was_run(&world).await, "it never ran");
    assert!(!was_run(&world).await);
    let vms = world.outside.vms_ever();
    assert!(!was_run(&world).await);
    assert_eq!(world.outside.vms_ever(), vms, "no VM is made for nothing");
    world.run(Shape::default().deploy()).await.done();
    assert!(!was_run(&world).await, "the same deploy again");
    world.run(errand()).await.done();
    assert!(!was_run(&world).await, "it was run in any case, and ran well");

    world.outside.answer("run_errand", json!({"exit_code": 3, "stdout": "", "stderr": ""}));
    world.run(errand()).await.done();
    world.outside.behave_as_usual();
    assert!(was_run(&world).await, "it ran badly");
    assert!(!was_run(&world).await);

    world.run(Shape { smoke_properties: json!({"depth": 2}), ..Shape::default() }.deploy()).await.done();
    assert!(was_run(&world).await, "its properties have changed");
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    assert!(world.read(|state| state.errand(&DeploymentName::new("p"), "smoke")).is_none());
}
