//! Tasks that go on where one thing fails: several repairs at once, clean-ups, deletions by force.

use std::time::Duration;

use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use model::DeploymentName;
use model::task::{TaskKind, TaskState};

use crate::artifacts::{Shape, errand};
use crate::world::TestWorld;

async fn deployed(shape: Shape) -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(shape.deploy()).await.done();
    world
}

/// Destroys the VMs of the first web instances; returns the task that repairs them.
fn kill(world: &TestWorld, number: u32) -> TaskKind {
    let mut web = world.read(|state| state.instances(&DeploymentName::new("p")));
    web.retain(|i| i.spec.group.as_str() == "web" && i.spec.index < number);
    for instance in &web {
        let vm = world.read(|state| state.active_vm(&instance.spec.id).unwrap());
        world.destroy_vm(vm.cid.unwrap());
    }
    TaskKind::ScanAndFix { instances: web.into_iter().map(|i| i.spec.id).collect(), unknown: Vec::new() }
}

fn asked(world: &TestWorld, script: &str) -> usize {
    world.outside.requests().iter().filter(|name| **name == script).count()
}

#[tokio::test]
async fn an_instance_that_can_not_be_repaired_does_not_keep_the_others_from_it() {
    let world = deployed(Shape { instances: 3, ..Shape::default() }).await;
    let repair = kill(&world, 2);
    let before = asked(&world, "post-deploy");
    world.outside.cloud.inject("create_vm", Fault::Fail(CpiErrorKind::NoDiskSpace));
    let error = world.run(repair.clone()).await.error();
    assert!(error.starts_with("Error resolving problem '"), "{error}");
    assert!(error.contains("injected failure") && !error.contains('\n'), "{error}");
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    // On the one that was repaired, and on the one that was never touched.
    assert_eq!(asked(&world, "post-deploy") - before, 2);
    world.assert_consistent();
    world.run(repair).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 3);
}

#[tokio::test]
async fn all_that_can_not_be_repaired_is_told() {
    let world = deployed(Shape { instances: 3, ..Shape::default() }).await;
    let repair = kill(&world, 2);
    let before = asked(&world, "post-deploy");
    for _ in 0..2 {
        world.outside.cloud.inject("create_vm", Fault::Fail(CpiErrorKind::NoDiskSpace));
    }
    let error = world.run(repair).await.error();
    let lines: Vec<&str> = error.lines().collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.starts_with("Error resolving problem '")),
        "{error}"
    );
    assert_eq!(asked(&world, "post-deploy"), before, "nothing was repaired");
}

/// The watchers have asked it by two ways before they called it dead. Whoever resurrects it must not wait for it twice more:
/// that is time in which nothing runs.
#[tokio::test]
async fn who_was_called_dead_is_not_waited_for_as_long_as_others() {
    let world = deployed(Shape { instances: 3, ..Shape::default() }).await;
    let instance = world.first_web();
    let agent = world.read(|state| state.active_vm(&instance).unwrap()).agent;
    let before = world.outside.patience_with(&agent).len();
    world.outside.hush(&agent);
    let repair = TaskKind::ScanAndFix { instances: vec![instance], unknown: Vec::new() };
    world.call_dead(&agent);
    world.run(repair).await.done();
    let patience = world.outside.patience_with(&agent)[before..].to_vec();
    // Once when its VM is looked for, once before that is deleted.
    assert_eq!(patience, [Duration::from_secs(1); 2]);
}

#[tokio::test]
async fn repairs_respect_max_in_flight() {
    let world = deployed(Shape { instances: 3, ..Shape::default() }).await;
    let repair = kill(&world, 3);
    world.outside.behave("start", agent_api::fake::Behaviour::Hang { then: serde_json::Value::Null });
    let task = world.queue(repair);
    world.until_open(task, "start").await;
    assert_eq!(world.outside.cloud.cloud().vms.len(), 1, "one at a time, as the manifest says");
    world.outside.behave_as_usual();
    world.outside.release();
    world.ended(task).await.done();
    world.assert_consistent();
}

#[tokio::test]
async fn a_disk_that_can_not_be_deleted_does_not_keep_the_others() {
    let world = deployed(Shape::default()).await;
    world.run(Shape { disk_mib: 0, ..Shape::default() }.deploy()).await.done();
    let disks: Vec<_> = world.read(|state| state.orphaned_disks().into_iter().map(|d| d.disk.id).collect());
    assert_eq!(disks.len(), 2);
    let ended = {
        *world.outside.failing.lock().unwrap() = None;
        // Both are begun at once; whichever comes first fails.
        world.outside.cloud.inject("delete_disk", Fault::Fail(CpiErrorKind::Other));
        world.run(TaskKind::DeleteOrphanedDisks { disks }).await
    };
    assert!(ended.error().contains("injected failure"));
    assert_eq!(world.read(|state| state.orphaned_disks()).len(), 1);
    world.assert_consistent();
}

#[tokio::test]
async fn all_orphans_are_tried_however_many_fail() {
    let world = deployed(Shape { instances: 40, disk_mib: 8, ..Shape::default() }).await;
    world.run(TaskKind::DeleteDeployment { force: true }).await.done();
    let disks: Vec<_> = world.read(|state| state.orphaned_disks().into_iter().map(|d| d.disk.id).collect());
    // More than are deleted at once: some begin only after others have failed.
    assert_eq!(disks.len(), 40);
    for _ in 0..32 {
        world.outside.cloud.inject("delete_disk", Fault::Fail(CpiErrorKind::Other));
    }
    let error = world.run(TaskKind::DeleteOrphanedDisks { disks }).await.error();
    assert_eq!(error.lines().count(), 32);
    assert_eq!(world.read(|state| state.orphaned_disks()).len(), 32);
    world.assert_consistent();
}

#[tokio::test]
async fn a_forced_deletion_reports_what_it_can_not_delete() {
    let world = deployed(Shape::default()).await;
    world.outside.cloud.inject("delete_vm", Fault::Fail(CpiErrorKind::Other));
    world.run(TaskKind::DeleteDeployment { force: false }).await.error();
    world.outside.cloud.inject("delete_vm", Fault::Fail(CpiErrorKind::Other));
    let ended = world.run(TaskKind::DeleteDeployment { force: true }).await.done();
    assert!(world.read(|state| state.deployments()).is_empty());
    let leaks = world.read(|state| state.leaks());
    let left: Vec<String> = world.outside.cloud.cloud().vms.keys().map(ToString::to_string).collect();
    assert_eq!((leaks.len(), left.len()), (1, 1));
    assert!(leaks[0].what.contains(&left[0]), "{}", leaks[0].what);
    assert!(
        ended.lines().iter().any(|line| line.starts_with("warning: Something may have been left behind"))
    );
}

#[tokio::test]
async fn the_vm_of_an_errand_goes_although_its_disk_can_not_be_unmounted() {
    let world = deployed(Shape { smoke_disk_mib: 512, ..Shape::default() }).await;
    // The first run makes the disk, the second one has one to put away.
    world.run(errand()).await.done();
    for failing in ["unmount_disk", "detach_disk"] {
        *world.outside.failing.lock().unwrap() = Some(failing.into());
        let ended = world.run(errand()).await;
        *world.outside.failing.lock().unwrap() = None;
        assert_eq!(ended.task.state, TaskState::Done, "{failing}: {:?}", ended.task.error);
        assert!(ended.lines().iter().any(|line| line.starts_with("warning: Passed over")), "{failing}");
        assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "{failing}: the errand's VM is gone");
        world.assert_consistent();
    }
    world.run(errand()).await.done();
}
