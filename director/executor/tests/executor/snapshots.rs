//! Snapshots of disks: taken when jobs have stopped, kept as long as the disk, deleted with it; and nothing of them is
//! lost, whatever clouds answer.

use std::time::Duration;

use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use executor::ports::Snapshots;
use model::snapshot::Snapshot;
use model::task::{StateChange, TaskKind};
use state::query::EventFilter;

use crate::artifacts::Shape;
use crate::world::TestWorld;

const TAKE_ALL: TaskKind = TaskKind::TakeSnapshots { instance: None };
const DELETE_ALL: TaskKind = TaskKind::DeleteSnapshots { cid: None };

/// A world whose director takes snapshots, with a deployment of two instances that have disks.
pub async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.take_snapshots().await;
    world.run(Shape::default().deploy()).await.done();
    world
}

fn listed(world: &TestWorld) -> Vec<Snapshot> {
    world.read(|state| state.deployment_snapshots(&"p".into()))
}

fn take_one(world: &TestWorld) -> TaskKind {
    TaskKind::TakeSnapshots { instance: Some(world.first_web()) }
}

#[tokio::test]
async fn an_update_takes_one_when_jobs_have_stopped_and_before_the_disk_changes() {
    let world = deployed().await;
    assert_eq!(listed(&world), [], "a first deploy has no disk yet when it stops jobs");
    world.run(Shape { disk_mib: 2048, ..Shape::default() }.deploy()).await.done();
    let calls: Vec<String> = world.outside.cloud.calls().iter().map(|c| c.call.method().into()).collect();
    let at = |method: &str| calls.iter().position(|call| call == method).unwrap();
    assert!(at("snapshot_disk") < at("detach_disk"), "{calls:?}");
    // They went with the disks that were given up.
    assert_eq!(listed(&world), []);
    let kept = world.read(|state| {
        let orphans = state.orphaned_disks().into_iter();
        orphans.flat_map(|orphan| state.snapshots_of(&orphan.disk.id)).collect::<Vec<_>>()
    });
    assert!(kept.len() == 2 && kept.iter().all(|snapshot| snapshot.clean), "{kept:?}");
    let (web, cloud) = (world.first_web(), world.outside.cloud.cloud());
    let agent = world.read(|state| state.active_vm(&web)).unwrap().agent;
    let metadata = cloud.snapshots.values().map(|taken| &taken.metadata);
    let of_web = metadata.filter(|tags| tags["instance_id"] == web.as_str()).collect::<Vec<_>>();
    let expected = [("deployment", "p"), ("job", "web"), ("index", "0"), ("director_name", "directorate")];
    let expected = expected.into_iter().chain([("director_uuid", "u"), ("agent_id", agent.as_str())]);
    assert!(expected.into_iter().all(|(key, value)| of_web[0][key] == value), "{of_web:?}");
    world.assert_consistent();
}

#[tokio::test]
async fn a_restart_of_one_instance_takes_one_and_a_deletion_none() {
    let world = deployed().await;
    let instance = world.first_web();
    let change = StateChange::Restart;
    world.run(TaskKind::ChangeInstance { change, instance, skip_drain: false, fix: false }).await.done();
    assert_eq!(listed(&world).len(), 1);
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    assert_eq!(world.outside.cloud.count("snapshot_disk"), 1);
    world.assert_consistent();
}

#[tokio::test]
async fn an_orphaned_disk_takes_its_snapshots_along_in_the_end() {
    let world = deployed().await;
    world.run(TAKE_ALL).await.done();
    world.run(Shape { disk_mib: 0, ..Shape::default() }.deploy()).await.done();
    world.assert_consistent();
    assert_eq!(world.outside.cloud.cloud().snapshots.len(), 4, "two by hand, two before the update");
    let disks = world.read(|state| state.orphaned_disks().into_iter().map(|o| o.disk.id).collect());
    world.run(TaskKind::DeleteOrphanedDisks { disks }).await.done();
    let cloud = world.outside.cloud.cloud();
    assert_eq!((cloud.snapshots.len(), cloud.disks.len()), (0, 0));
    let filter = EventFilter {
        action: Some("delete".into()),
        object_type: Some("snapshot".into()),
        ..EventFilter::default()
    };
    assert_eq!(world.read(|state| state.events(&filter, None, 100)).len(), 4);
    world.assert_consistent();
}

#[tokio::test]
async fn people_take_and_delete_them_and_are_told_as_bosh_does() {
    let world = deployed().await;
    let told = world.run(TAKE_ALL).await.done();
    assert_eq!(told.task.result.as_deref(), Some("snapshots of deployment 'p' created"));
    assert_eq!(told.events, "");
    let told = world.run(take_one(&world)).await.done();
    let snapshots = listed(&world);
    assert!(snapshots.len() == 3 && snapshots.iter().all(|snapshot| !snapshot.clean), "{snapshots:?}");
    let newest = snapshots.into_iter().max_by_key(|snapshot| snapshot.created_at).unwrap();
    let cid = newest.cid.unwrap();
    assert_eq!(told.task.result, Some(format!("snapshot(s) {cid} created")));
    for _ in 0..2 {
        let told = world.run(TaskKind::DeleteSnapshots { cid: Some(cid.clone()) }).await.done();
        assert_eq!(told.task.result, Some(format!("snapshot(s) {cid} deleted")));
        assert_eq!(listed(&world).len(), 2);
    }
    let told = world.run(DELETE_ALL).await.done();
    assert_eq!(told.task.result.as_deref(), Some("snapshots of deployment 'p' deleted"));
    assert_eq!((listed(&world), world.outside.cloud.cloud().snapshots.len()), (vec![], 0));
    world.assert_consistent();
}

#[tokio::test]
async fn where_none_are_taken_nothing_is_done_and_what_there_is_can_be_deleted() {
    let world = deployed().await;
    world.run(TAKE_ALL).await.done();
    *world.snapshots.lock().unwrap() = Snapshots::Off;
    world.depose().await;
    world.lead();
    let told = world.run(TAKE_ALL).await.done();
    assert_eq!(told.task.result.as_deref(), Some("snapshots of deployment 'p' created"));
    world.run(Shape { port: serde_json::json!(9090), ..Shape::default() }.deploy()).await.done();
    assert_eq!(listed(&world).len(), 2);
    world.run(DELETE_ALL).await.done();
    assert_eq!(listed(&world), []);
}

#[tokio::test]
async fn a_cloud_that_takes_none_is_passed_over_and_one_that_fails_is_not() {
    let world = deployed().await;
    let fail = |kind| world.outside.cloud.inject("snapshot_disk", Fault::Fail(kind));
    (0..2).for_each(|_| fail(CpiErrorKind::NotImplemented));
    world.run(Shape { port: serde_json::json!(9090), ..Shape::default() }.deploy()).await.done();
    assert_eq!(listed(&world), []);
    fail(CpiErrorKind::NotSupported);
    let error = world.run(Shape::default().deploy()).await.error();
    assert!(error.contains("in 'snapshot_disk' CPI method"), "{error}");
    assert_eq!(listed(&world), []);
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(listed(&world).len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn one_that_was_taken_although_no_answer_came_is_found() {
    let world = deployed().await;
    world.outside.cloud.inject("snapshot_disk", Fault::LoseAnswer);
    world.run(take_one(&world)).await.done();
    assert_eq!(listed(&world).len(), 1);
    world.assert_consistent();
}

#[tokio::test]
async fn one_that_is_taken_late_goes_to_the_others_of_its_disk() {
    let world = deployed().await;
    world.outside.cloud.inject("snapshot_disk", Fault::Late);
    let error = world.run(take_one(&world)).await.error();
    assert!(error.contains("in 'snapshot_disk' CPI method"), "{error}");
    assert_eq!(listed(&world), []);
    let expected: Vec<String> =
        world.read(|state| state.latecomers().iter().map(|row| row.as_leak().what).collect());
    assert!(expected.len() == 1 && expected[0].starts_with("snapshot with snapshot id"), "{expected:?}");
    assert_eq!(world.outside.cloud.carry_out_late_calls(), 1);
    let filed = world
        .until("the snapshot is filed", |state| {
            state.deployment_snapshots(&"p".into()).into_iter().find(|snapshot| snapshot.cid.is_some())
        })
        .await;
    assert_eq!(Some(filed.disk), world.read(|state| state.disks(&world.first_web())).pop().map(|d| d.id));
    world.assert_consistent();
    world.run(DELETE_ALL).await.done();
    world.assert_consistent();
}

#[tokio::test]
async fn one_that_nobody_can_be_asked_about_is_a_leak() {
    let world = deployed().await;
    *world.outside.blind.lock().unwrap() = true;
    world.outside.cloud.inject("snapshot_disk", Fault::LoseAnswer);
    let error = world.run(take_one(&world)).await.error();
    assert!(error.contains("in 'snapshot_disk' CPI method"), "{error}");
    let leaks = world.read(|state| state.leaks());
    assert!(leaks.len() == 1 && leaks[0].what.contains("a snapshot of disk"), "{leaks:?}");
}

#[tokio::test]
async fn where_nobody_answers_the_row_stays_until_somebody_has_looked() {
    let world = deployed().await;
    *world.outside.deaf.lock().unwrap() = true;
    world.outside.cloud.inject("snapshot_disk", Fault::LoseAnswer);
    (0..4).for_each(|_| world.outside.cloud.inject("snapshot_disk", Fault::Delay(Duration::ZERO)));
    let error = world.run(take_one(&world)).await.error();
    assert!(error.contains("did not answer when it was searched for"), "{error}");
    *world.outside.deaf.lock().unwrap() = false;
    assert_eq!(listed(&world)[0].cid, None);
    world.run(DELETE_ALL).await.done();
    assert_eq!(world.outside.cloud.cloud().snapshots.len(), 0);
    world.assert_consistent();
}

#[tokio::test]
async fn a_snapshot_that_is_gone_is_deleted_whatever_the_cloud_calls_that() {
    let world = deployed().await;
    world.run(TAKE_ALL).await.done();
    let fail = |kind| world.outside.cloud.inject("delete_snapshot", Fault::Fail(kind));
    fail(CpiErrorKind::Other);
    let error = world.run(DELETE_ALL).await.error();
    assert!(error.contains("in 'delete_snapshot' CPI method"), "{error}");
    // The other one is gone all the same.
    assert_eq!(listed(&world).len(), 1);
    world.outside.cloud.tamper(|cloud| cloud.snapshots.clear());
    fail(CpiErrorKind::DiskNotFound);
    world.run(DELETE_ALL).await.done();
    assert_eq!(listed(&world), []);
    world.assert_consistent();
}
