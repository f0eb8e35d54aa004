//! For every kind of step: it fails for good; its leader is lost before and after it; it is done twice. And for those that
//! are nothing but a record, which cannot fail and have no deed to repeat: the leader is lost before and after the record.

use model::step::Action;
use model::task::TaskState;

use crate::gate::{Point, Side};
use crate::scenes::{Noted, Scene, Undisturbed};
use crate::summary::instances_of;
use crate::world::renderer;

#[tokio::test]
async fn a_failed_step_fails_the_task_and_the_next_one_repairs_it() {
    let renderer = renderer().await;
    for (kind, undisturbed) in Undisturbed::kinds(&renderer, Noted::Started).await {
        let scene = undisturbed.scene;
        let world = scene.prepare(&renderer).await;
        *world.outside.failing.lock().unwrap() = Some(kind.clone());
        let ended = world.run(scene.task(&world)).await;
        *world.outside.failing.lock().unwrap() = None;
        let case = format!("{scene:?}: {kind} fails\n{}", ended.events);
        if (scene, kind.as_str()) == (Scene::FreshDeploy, "delete_vm") {
            // Of one that has compiled: its VM is deleted later, and the deploy ends well.
            assert_eq!(ended.task.state, TaskState::Done, "{case}");
            assert_eq!(world.read(|state| state.orphaned_vms()).len(), 1, "{case}");
            world.assert_consistent();
            continue;
        }
        if kind == "confirm_problem" {
            // Whoever can't be asked is as silent as before.
            assert_eq!(ended.task.state, TaskState::Done, "{case}");
            continue;
        }
        assert_eq!(ended.task.state, TaskState::Error, "{case}");
        assert!(ended.events.lines().last().unwrap().contains("\"error\":{\"code\":"), "{case}");
        let message = ended.task.error.unwrap().message;
        assert!(message.contains("injected") || message.contains("Timed out pinging"), "{message}: {case}");
        assert!(world.read(|state| state.locks()).is_empty(), "{case}");
        world.assert_consistent();

        let repaired = world.run(scene.repair(&world)).await;
        assert_eq!(repaired.task.state, TaskState::Done, "{:?}\n{case}", repaired.task.error);
        assert_eq!(instances_of(&world), undisturbed.instances(), "{case}");
        world.assert_consistent();
    }
}

#[tokio::test]
async fn a_leader_lost_before_a_deed_is_followed_by_one_that_does_it() {
    let renderer = renderer().await;
    for (kind, undisturbed) in Undisturbed::kinds(&renderer, Noted::Started).await {
        let world = undisturbed.scene.prepare(&renderer).await;
        // The intent is committed; nothing that follows it happens.
        let point = Point { name: format!("started:{kind}"), nth: 1, side: Side::After };
        let ended = world.run_through(undisturbed.scene.task(&world), point).await;
        if kind == "run_errand" {
            assert!(ended.error().contains("was not repeated"));
            assert_eq!(world.outside.done("run_errand"), 0);
            assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone");
            continue;
        }
        let ended = ended.done();
        undisturbed.assert_same(&world, &format!("lost before {kind}"));
        assert_eq!(ended.told(), undisturbed.ended.told(), "lost before {kind}");
    }
}

#[tokio::test]
async fn a_leader_lost_after_a_deed_is_followed_by_one_that_finds_it_done() {
    lost_after(Memory::Kept).await;
}

#[tokio::test]
async fn a_deed_that_is_done_twice_does_no_harm() {
    lost_after(Memory::Lost).await;
}

#[tokio::test]
async fn a_leader_lost_after_a_mere_record_is_followed_by_one_that_does_not_repeat_it() {
    let renderer = renderer().await;
    let mut kinds = Undisturbed::kinds(&renderer, Noted::Finished).await;
    kinds.retain(|(kind, _)| Action::RECORD_NAMES.contains(&kind.as_str()));
    assert!(!kinds.is_empty());
    for (kind, undisturbed) in kinds {
        let world = undisturbed.scene.prepare(&renderer).await;
        // The record is committed; whoever made it never learns of it.
        let point = Point { name: format!("finished:{kind}"), nth: 1, side: Side::After };
        let ended = world.run_through(undisturbed.scene.task(&world), point).await.done();
        undisturbed.assert_same(&world, &format!("lost after {kind}"));
        assert_eq!(ended.told(), undisturbed.ended.told(), "lost after {kind}");
    }
}

/// Whether agents remember what they were asked for by the leader that was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Kept,
    Lost,
}

async fn lost_after(memory: Memory) {
    let renderer = renderer().await;
    for (kind, undisturbed) in Undisturbed::kinds(&renderer, Noted::Finished).await {
        let scene = undisturbed.scene;
        let world = scene.prepare(&renderer).await;
        *world.outside.forgetful.lock().unwrap() = memory == Memory::Lost;
        // The deed is done; its outcome does not come to be recorded.
        let point = Point { name: format!("finished:{kind}"), nth: 1, side: Side::Before };
        let ended = world.run_through(scene.task(&world), point).await.done();
        undisturbed.assert_same(&world, &format!("lost after {kind}"));
        assert_eq!(ended.told(), undisturbed.ended.told(), "lost after {kind}");
        assert_eq!(
            world.outside.done("run_errand"),
            usize::from(scene == Scene::Errand),
            "lost after {kind}"
        );
    }
}
