//! What tasks that were broken off leave behind: VMs and disks of which nobody knows whether they exist, VMs that never
//! joined their instance, disks that are half copied. The next task finds them and tidies up.

use std::time::Duration;

use agent_api::Method;
use agent_api::fake::Behaviour;
use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use model::instance::{InstanceState, Vm};
use model::task::{StateChange, TaskKind, TaskState};
use model::{DeploymentName, InstanceId};
use state::command::Command;

use crate::artifacts::{Shape, become_state, change, errand, errand_kept_alive};
use crate::gate::{Point, Side};
use crate::scenes::{Scene, Undisturbed};
use crate::summary::summary;
use crate::world::{TestWorld, renderer};

fn lost_after(kind: &str, nth: usize) -> Point {
    Point { name: format!("finished:{kind}"), nth, side: Side::Before }
}

#[tokio::test]
async fn a_search_that_fails_once_is_made_again() {
    let renderer = renderer().await;
    let undisturbed = Undisturbed::play(Scene::FreshDeploy, &renderer).await;
    for (kind, search) in [("create_vm", "find_vm"), ("create_disk", "find_disk")] {
        let world = Scene::FreshDeploy.prepare(&renderer).await;
        world.outside.cloud.inject(search, Fault::Fail(CpiErrorKind::Other));
        world.run_through(Shape::default().deploy(), lost_after(kind, 1)).await.done();
        undisturbed.assert_same(&world, kind);

        let world = Scene::FreshDeploy.prepare(&renderer).await;
        world.outside.cloud.inject(kind, Fault::LoseAnswer);
        world.outside.cloud.inject(search, Fault::Fail(CpiErrorKind::Other));
        world.run(Shape::default().deploy()).await.done();
        undisturbed.assert_same(&world, kind);
    }
}

#[tokio::test]
async fn a_vm_that_could_not_be_searched_for_is_found_by_the_next_deploy() {
    // The first VM compiles and is deleted by the same task; the second one is an instance's.
    for nth in [1, 2] {
        let world = TestWorld::seed().await;
        *world.outside.deaf.lock().unwrap() = true;
        let error = world.run_through(Shape::default().deploy(), lost_after("create_vm", nth)).await.error();
        assert!(error.contains("its cloud did not answer when it was searched for"), "{error}");
        assert!(world.read(|state| state.leaks()).is_empty(), "it is not lost: its row is there");
        *world.outside.deaf.lock().unwrap() = false;
        world.run(Shape::default().deploy()).await.done();
        // The one that compiled became an orphan when it could not be deleted.
        world.run(world.deletion_of_workers()).await.done();
        assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
        world.assert_consistent();
    }
}

#[tokio::test]
async fn a_worker_whose_vm_can_not_be_deleted_is_an_orphan_and_fails_no_deploy() {
    for fault in [Fault::Fail(CpiErrorKind::Other), Fault::LoseAnswer, Fault::Fail(CpiErrorKind::TimedOut)] {
        let world = TestWorld::seed().await;
        world.outside.cloud.inject("delete_vm", fault.clone());
        let ended = world.run(Shape::default().deploy()).await.done();
        assert!(ended.lines().iter().any(|line| line.starts_with("warning: Passed over")), "{fault:?}");
        let orphans = world.read(|state| state.orphaned_vms());
        assert!(orphans.len() == 1 && orphans[0].slug.starts_with("compilation-"), "{fault:?}: {orphans:?}");
        let workers = world.read(|state| state.instances(&DeploymentName::new("p")).into_iter());
        assert_eq!(workers.filter(|instance| instance.compilation).count(), 0, "{fault:?}");
        world.run(world.deletion_of_workers()).await.done();
        assert_eq!(world.read(|state| state.orphaned_vms()), [], "{fault:?}");
        assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "{fault:?}");
        world.assert_consistent();
    }
}

#[tokio::test]
async fn a_disk_that_could_not_be_searched_for_is_kept_as_an_orphan() {
    let world = TestWorld::seed().await;
    *world.outside.deaf.lock().unwrap() = true;
    world.run_through(Shape::default().deploy(), lost_after("create_disk", 1)).await.error();
    *world.outside.deaf.lock().unwrap() = false;
    assert_eq!(world.outside.cloud.cloud().disks.len(), 1);
    world.run(Shape::default().deploy()).await.done();
    let orphans = world.read(|state| state.orphaned_disks());
    assert_eq!(orphans.iter().map(|orphan| &orphan.disk.cid).collect::<Vec<_>>(), [&None]);
    let disks = orphans.into_iter().map(|orphan| orphan.disk.id).collect();
    world.run(TaskKind::DeleteOrphanedDisks { disks }).await.done();
    assert_eq!(world.outside.cloud.cloud().disks.len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn a_worker_that_could_not_be_searched_for_is_found_when_it_is_deleted_later() {
    let world = TestWorld::seed().await;
    world.leave_workers();
    *world.outside.deaf.lock().unwrap() = true;
    world.run_through(Shape::default().deploy(), lost_after("create_vm", 1)).await.error();
    *world.outside.deaf.lock().unwrap() = false;
    let orphans = world.read(|state| state.orphaned_vms());
    assert_eq!(orphans.iter().map(|orphan| &orphan.vm.cid).collect::<Vec<_>>(), [&None]);
    assert_eq!(world.outside.cloud.cloud().vms.len(), 1);
    world.run(world.deletion_of_workers()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 0);
    assert!(world.read(|state| state.leaks()).is_empty());
    world.assert_consistent();
}

/// Returns the VM of the newest web instance.
fn newest(world: &TestWorld) -> (InstanceId, Vm) {
    world.read(|state| {
        let instances = state.instances(&DeploymentName::new("p"));
        let web = instances.into_iter().filter(|i| i.spec.group.as_str() == "web");
        let id = web.max_by_key(|i| i.spec.index).unwrap().spec.id;
        let vm = state.active_vm(&id).unwrap();
        (id, vm)
    })
}

/// Fails unless the instance has another VM than this one by now, and its agent was told who it is.
#[track_caller]
fn assert_replaced(world: &TestWorld, (instance, before): (InstanceId, Vm)) {
    let vm = world.read(|state| state.active_vm(&instance)).unwrap();
    assert!(vm.bound && vm.agent != before.agent, "{vm:?}");
    let deeds = world.outside.deeds().into_iter().filter(|(agent, _)| *agent == vm.agent);
    let introduced = deeds.filter(|(_, deed)| {
        matches!(&deed.method, Method::Apply { spec } if spec.get("configuration_hash").is_none())
    });
    assert_eq!(introduced.count(), 1);
    world.assert_consistent();
}

fn three() -> TaskKind {
    Shape { instances: 3, ..Shape::default() }.deploy()
}

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world
}

#[tokio::test]
async fn a_vm_whose_agent_never_answered_is_replaced_by_the_next_deploy() {
    let world = deployed().await;
    world.outside.behave("ping", Behaviour::Fail("restarting agent".into()));
    let error = world.run(three()).await.error();
    assert!(error.contains("Timed out pinging"), "{error}");
    let left = newest(&world);
    // It is silent for good: a deploy that asked it how it is would fail.
    world.outside.behave_as_usual();
    world.outside.agents.disconnect(&left.1.agent);
    world.run(three()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 3);
    assert_replaced(&world, left);
}

#[tokio::test]
async fn a_vm_that_was_waited_for_in_vain_does_not_stay() {
    let world = deployed().await;
    world.depose().await;
    *world.agent_wait.lock().unwrap() = Duration::from_secs(600);
    world.lead();
    world.outside.behave("ping", Behaviour::Fail("restarting agent".into()));
    let task = world.queue(three());
    world.until_open(task, "await_agent").await;
    world.apply(Command::TaskCancel { task });
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);
    let left = newest(&world);
    world.outside.behave_as_usual();
    world.run(three()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 3);
    assert_replaced(&world, left);
}

#[tokio::test]
async fn whoever_makes_the_next_vm_deletes_the_one_that_was_left() {
    let repairs = [
        (change(StateChange::Recreate), become_state(InstanceState::Started)),
        (change(StateChange::Recreate), change(StateChange::Restart)),
        (change(StateChange::Recreate), become_state(InstanceState::Detached)),
    ];
    for (breaking, repairing) in repairs {
        let world = deployed().await;
        *world.outside.failing.lock().unwrap() = Some("bind_vm".into());
        world.run(breaking).await.error();
        *world.outside.failing.lock().unwrap() = None;
        assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
        let case = format!("{repairing:?}");
        world.run(repairing).await.done();
        let vms = if case.contains("Detached") { 1 } else { 2 };
        assert_eq!(world.outside.cloud.cloud().vms.len(), vms, "{case}");
        world.assert_consistent();
    }
    let world = deployed().await;
    *world.outside.failing.lock().unwrap() = Some("bind_vm".into());
    world.run(errand_kept_alive()).await.error();
    *world.outside.failing.lock().unwrap() = None;
    world.run(errand()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn a_disk_that_is_half_copied_is_unmounted_before_it_is_detached() {
    let world = deployed().await;
    world.outside.behave("migrate_disk", Behaviour::Fail("no space left".into()));
    world.run(Shape { disk_mib: 2048, ..Shape::default() }.deploy()).await.error();
    world.outside.behave_as_usual();
    let (before, vm) = (summary(&world), world.read(|state| state.active_vm(&world.first_web()).unwrap()));
    assert_eq!(world.outside.agents.mounted(&vm.agent).len(), 2, "{before}");
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.agents.mounted(&vm.agent).len(), 1);
    assert_eq!(world.read(|state| state.orphaned_disks()).len(), 1);
    world.assert_consistent();
}
