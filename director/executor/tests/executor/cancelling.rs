//! Tasks that are cancelled: where they notice it, what still runs, and that nothing stays behind.

use std::time::Duration;

use agent_api::fake::Behaviour;
use model::TaskId;
use model::task::{TaskKind, TaskState};
use serde_json::{Value, json};
use state::command::Command;

use crate::artifacts::{Shape, errand};
use crate::summary::summary;
use crate::world::TestWorld;

/// Has agents do nothing about a method until they are released.
fn hang() -> Behaviour {
    Behaviour::Hang { then: Value::Null }
}

fn cancel(world: &TestWorld, task: TaskId) {
    world.apply(Command::TaskCancel { task });
}

/// Fails unless the task ended as cancelled, and the same deploy then brings everything up.
async fn ends_cancelled(world: &TestWorld, task: TaskId) {
    let ended = world.ended(task).await;
    assert_eq!(ended.task.state, TaskState::Cancelled, "{}", ended.events);
    assert!(world.read(|state| state.locks()).is_empty());
    world.assert_consistent();
    world.outside.behave_as_usual();
    world.run(Shape::default().deploy()).await.done();
    let up = summary(world);
    assert!(up.contains("web/0 Started clean") && up.contains("web/1 Started clean"), "{up}");
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "{up}");
    world.assert_consistent();
}

#[tokio::test]
async fn waiting_for_an_agent_is_given_up() {
    let world = TestWorld::seed().await;
    world.depose().await;
    *world.agent_wait.lock().unwrap() = Duration::from_secs(600);
    world.lead();
    world.outside.behave("ping", Behaviour::Fail("restarting agent".into()));
    let task = world.queue(Shape::default().deploy());
    world.until_open(task, "await_agent").await;
    cancel(&world, task);
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn compiling_is_given_up_and_its_workers_are_deleted() {
    let world = TestWorld::seed().await;
    world.outside.behave("compile_package", hang());
    let task = world.queue(Shape::default().deploy());
    world.until_open(task, "compile_package").await;
    assert_eq!(world.outside.cloud.cloud().vms.len(), 1);
    cancel(&world, task);
    world.ended(task).await;
    assert!(world.outside.cloud.cloud().vms.is_empty(), "the worker is gone");
    assert!(world.read(|state| state.addresses()).iter().all(|a| !a.slug.starts_with("compilation")));
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn a_drain_is_given_up() {
    let world = TestWorld::seed().await;
    world.outside.behave("drain", hang());
    let task = world.queue(Shape::default().deploy());
    world.until_open(task, "drain").await;
    cancel(&world, task);
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn an_agent_that_is_away_does_not_hold_up_a_cancellation_for_long() {
    let world = TestWorld::seed().await;
    world.outside.behave("drain", hang());
    let task = world.queue(Shape::default().deploy());
    world.until_asked("drain", 1).await;
    let vms = world.read(|state| state.vms(&world.first_web()));
    world.outside.agents.disconnect(&vms[0].agent);
    cancel(&world, task);
    tokio::time::pause();
    for _ in 0..6 {
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);
    world.outside.agents.connect(&vms[0].agent);
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn a_watch_is_given_up() {
    let world = TestWorld::seed().await;
    world.outside.answer("get_state", json!({"job_state": "failing", "networks": {}}));
    let task = world.queue(Shape { watch: json!("600000-1200000"), ..Shape::default() }.deploy());
    world.until_open(task, "watch").await;
    cancel(&world, task);
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn what_is_not_a_checkpoint_ends_first_and_no_further_instance_begins() {
    let world = TestWorld::seed().await;
    world.outside.behave("post-start", hang());
    let task = world.queue(Shape::default().deploy());
    world.until_asked("post-start", 1).await;
    cancel(&world, task);
    world.outside.behave_as_usual();
    world.outside.release();
    world.ended(task).await;
    let left = summary(&world);
    assert!(left.contains("web/0 Started clean") && left.contains("web/1 Started dirty"), "{left}");
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn an_errand_is_given_up_and_its_vm_is_deleted() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world.outside.behave("run_errand", hang());
    let task = world.queue(errand());
    world.until_open(task, "run_errand").await;
    cancel(&world, task);
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn a_cancellation_outlives_the_leader_that_should_have_seen_it() {
    let world = TestWorld::seed().await;
    world.outside.behave("drain", hang());
    let task = world.queue(Shape::default().deploy());
    world.until_open(task, "drain").await;
    world.depose().await;
    cancel(&world, task);
    world.lead();
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn a_cancellation_before_there_is_a_plan_leaves_no_plan() {
    let world = TestWorld::seed().await;
    *world.log.ambush.lock().unwrap() = Some((
        "log:plan_commit".to_owned(),
        Box::new(|log, command| {
            let Command::PlanCommit { task, .. } = command else { panic!("{command:?}") };
            log.apply(state::log::Proposal::own(Command::TaskCancel { task: *task }))
                .outcome
                .accepted()
                .unwrap();
        }),
    ));
    let task = world.queue(Shape::default().deploy());
    let ended = world.ended(task).await;
    assert_eq!((ended.task.state, ended.task.planned), (TaskState::Cancelled, false));
    ends_cancelled(&world, task).await;
}

#[tokio::test]
async fn a_cancellation_that_comes_too_late_cancels_nothing() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world.outside.behave("post-stop", hang());
    let task = world.queue(TaskKind::DeleteDeployment { force: false });
    world.until_asked("post-stop", 2).await;
    cancel(&world, task);
    world.outside.release();
    // Its only unit that is left deletes the deployment, and it was not begun.
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);

    let world = TestWorld::seed().await;
    world.outside.behave("post-deploy", hang());
    let task = world.queue(Shape::default().deploy());
    world.until_asked("post-deploy", 2).await;
    cancel(&world, task);
    world.outside.release();
    world.ended(task).await.done();
}
