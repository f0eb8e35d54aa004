//! Answers that are lost, late or wrong: from clouds, from the log, from the state.

use std::time::Duration;

use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use model::task::{TaskKind, TaskState};
use state::command::Command;

use crate::artifacts::Shape;
use crate::gate::{Point, Side};
use crate::scenes::{Scene, Undisturbed};
use crate::world::{TestWorld, renderer};

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_found() {
    let renderer = renderer().await;
    let undisturbed = Undisturbed::play(Scene::FreshDeploy, &renderer).await;
    for method in ["create_vm", "create_disk"] {
        let world = Scene::FreshDeploy.prepare(&renderer).await;
        world.outside.cloud.inject(method, Fault::LoseAnswer);
        world.run(Shape::default().deploy()).await.done();
        undisturbed.assert_same(&world, method);
    }
}

#[tokio::test]
async fn a_creation_that_was_never_answered_and_not_done_fails() {
    for method in ["create_vm", "create_disk"] {
        let world = TestWorld::seed().await;
        world.outside.cloud.inject(method, Fault::Fail(CpiErrorKind::TimedOut));
        let error = world.run(Shape::default().deploy()).await.error();
        assert!(error.contains(&format!("in '{method}' CPI method")), "{error}");
        assert!(world.read(|state| state.leaks()).is_empty(), "the cloud says that there is nothing");
        world.run(Shape::default().deploy()).await.done();
        world.assert_consistent();
    }
}

#[tokio::test]
async fn what_nobody_can_tell_is_reported_as_a_leak() {
    for (method, at) in [("create_vm", "with agent id"), ("create_disk", "with disk id")] {
        let world = TestWorld::seed().await;
        *world.outside.blind.lock().unwrap() = true;
        world.outside.cloud.inject(method, Fault::LoseAnswer);
        world.run(Shape::default().deploy()).await.error();
        let leaks = world.read(|state| state.leaks());
        assert!(leaks.len() == 1 && leaks[0].what.contains(at), "{leaks:?}");
        let told = format!("(once you have looked: dctl leaks clear {})", leaks[0].id);
        let scanned = world.run(TaskKind::ScanCloud).await.done().events;
        let is_told = |line: &str| line.contains("what may be left in the cloud") && line.contains(&told);
        assert!(scanned.lines().any(is_told), "{scanned}");
        world.apply(Command::LeakClear { id: leaks[0].id });
        let scanned = world.run(TaskKind::ScanCloud).await.done().events;
        assert!(!scanned.contains("what may be left"), "{scanned}");
        assert!(world.read(|state| state.locks()).is_empty());
    }
}

#[tokio::test]
async fn whoever_answers_garbage_to_a_creation_does_not_hold_the_task_up_for_long() {
    let world = TestWorld::seed().await;
    *world.outside.blind.lock().unwrap() = true;
    world.depose().await;
    *world.agent_wait.lock().unwrap() = Duration::from_secs(600);
    world.lead();
    world.outside.cloud.inject("create_vm", Fault::Fail(CpiErrorKind::InvalidResponse));
    let task = world.queue(Shape::default().deploy());
    while world.outside.cloud.count("create_vm") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::pause();
    for _ in 0..6 {
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    let told = world.ended(task).await.error();
    assert!(told.contains("may have been created"), "{told}");
    assert_eq!(world.read(|state| state.leaks()).len(), 1);
}

#[tokio::test]
async fn a_leader_lost_in_a_creation_that_nobody_can_look_for_leaves_a_leak() {
    for kind in ["create_vm", "create_disk"] {
        let world = TestWorld::seed().await;
        *world.outside.blind.lock().unwrap() = true;
        let point = Point { name: format!("finished:{kind}"), nth: 1, side: Side::Before };
        let ended = world.run_through(Shape::default().deploy(), point).await;
        let leaks = world.read(|state| state.leaks());
        assert!(leaks.len() == 1 && leaks[0].what.contains("may have been created"), "{leaks:?}");
        match kind {
            // It may have the address.
            "create_vm" => assert_eq!(ended.error(), leaks[0].what),
            // Nobody is in its way: another one is made.
            _ => drop(ended.done()),
        }
    }
}

#[tokio::test]
async fn an_agent_tells_of_the_vm_that_its_cloud_can_not_be_searched_for() {
    let renderer = renderer().await;
    let undisturbed = Undisturbed::play(Scene::FreshDeploy, &renderer).await;
    for nth in 1..=3 {
        let world = Scene::FreshDeploy.prepare(&renderer).await;
        *world.outside.blind.lock().unwrap() = true;
        *world.outside.name_vms.lock().unwrap() = true;
        let point = Point { name: "finished:create_vm".into(), nth, side: Side::Before };
        world.run_through(Shape::default().deploy(), point).await.done();
        assert_eq!(world.read(|state| state.leaks()), []);
        undisturbed.assert_same(&world, &format!("create_vm {nth}"));
    }
}

#[tokio::test]
async fn a_half_made_vm_whose_agent_enrolled_leaves_its_place_to_the_next_one() {
    let world = TestWorld::seed().await;
    let point = Point { name: "finished:create_vm".into(), nth: 1, side: Side::Before };
    world.gate.arm(Some(point));
    let id = world.queue(Shape::default().deploy());
    assert!(world.stopped_before_end_of(id).await);
    world.depose().await;
    // Clouds remove what they had not finished: the next leader looks for it and finds nothing.
    let vms: Vec<_> = world.outside.cloud.cloud().vms.keys().cloned().collect();
    vms.into_iter().for_each(|cid| world.destroy_vm(cid));
    world.gate.arm(None);
    world.lead();
    world.ended(id).await.done();
    world.assert_consistent();
}

#[tokio::test]
async fn a_creation_that_may_be_tried_again_is() {
    let world = TestWorld::seed().await;
    world.outside.cloud.inject("create_vm", Fault::FailRetryable(CpiErrorKind::VmCreationFailed));
    world.run(Shape::default().deploy()).await.done();
    assert_eq!((world.outside.cloud.count("create_vm"), world.outside.vms_ever()), (4, 3));
    world.assert_consistent();

    let world = TestWorld::seed().await;
    for _ in 0..5 {
        world.outside.cloud.inject("create_vm", Fault::FailRetryable(CpiErrorKind::VmCreationFailed));
    }
    world.run(Shape::default().deploy()).await.error();
    assert_eq!(world.outside.cloud.count("create_vm"), 5);
    world.assert_consistent();
}

#[tokio::test]
async fn a_log_that_fails_once_delays_the_task_only() {
    let renderer = renderer().await;
    let undisturbed = Undisturbed::play(Scene::FreshDeploy, &renderer).await;
    // `compile_package`: another stage waits for this one's units, and must not wait for ever.
    let names = [
        "log:task_take",
        "log:plan_commit",
        "started:create_vm",
        "finished:create_vm",
        "finished:compile_package",
        "log:task_finish",
    ];
    for name in names {
        let world = Scene::FreshDeploy.prepare(&renderer).await;
        *world.log.hiccup.lock().unwrap() = Some(name);
        let ended = world.run(Shape::default().deploy()).await.done();
        undisturbed.assert_same(&world, name);
        assert_eq!(ended.told(), undisturbed.ended.told(), "{name}");
    }
}

#[tokio::test]
async fn a_task_whose_records_the_state_refuses_ends_and_frees_its_lock() {
    let world = TestWorld::seed().await;
    *world.log.refuse.lock().unwrap() = Some("finished:bind_vm");
    let ended = world.run(Shape::default().deploy()).await;
    assert_eq!(ended.task.state, TaskState::Error);
    assert!(
        ended
            .task
            .error
            .unwrap()
            .message
            .contains("the state refuses its records: the record makes no sense")
    );
    assert!(world.read(|state| state.locks()).is_empty());
    *world.log.refuse.lock().unwrap() = None;
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn a_leftover_disk_that_was_never_attached_is_given_up() {
    let world = TestWorld::seed().await;
    world.outside.cloud.inject("attach_disk", Fault::Fail(CpiErrorKind::Other));
    world.run(Shape::default().deploy()).await.error();
    world.outside.cloud.inject("detach_disk", Fault::Fail(CpiErrorKind::DiskNotAttached));
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.cloud.count("detach_disk"), 1);
    assert_eq!(world.read(|state| state.orphaned_disks()).len(), 1);
    world.assert_consistent();
}
