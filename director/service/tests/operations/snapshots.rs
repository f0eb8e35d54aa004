//! Snapshots: who is asked for, what is listed, and which tasks come of it.

use model::step::{Action, StepOutcome};
use model::task::TaskKind;
use model::{LockName, TaskId};
use service::ops::snapshots_of_all;
use service::{Page, ServiceError};

use crate::fleet::{Fleet, admin};
use crate::nouns::{World, create_disk, disk_created, plan_of};

/// A deployment whose disk has two snapshots, and one of which the cloud has not told yet.
fn with_snapshots(world: &mut World) {
    let take = |snapshot: &str, clean| Action::SnapshotDisk {
        instance: "i1".into(),
        disk: "d1".into(),
        snapshot: snapshot.into(),
        clean,
    };
    let mount = Action::MountDisk { instance: "i1".into(), agent: "a1".into(), disk: "d1".into() };
    let task = world.planned(plan_of(vec![
        create_disk("d1"),
        mount,
        take("s2", true),
        take("s1", false),
        take("s3", true),
    ]));
    world.step(task, 1, 0, disk_created("disk-1"));
    world.step(task, 1, 1, StepOutcome::Done);
    world.step(task, 1, 2, StepOutcome::SnapshotTaken { cid: "snap-2".into() });
    world.step(task, 1, 3, StepOutcome::SnapshotTaken { cid: "snap-1".into() });
    let records = vec![crate::nouns::started(1, 4, 1)];
    world.must(state::command::Command::StepRecords { task, epoch: crate::nouns::EPOCH, records });
}

fn code(error: ServiceError) -> Option<u32> {
    match error {
        ServiceError::Told(told) => Some(told.code),
        _ => None,
    }
}

#[tokio::test]
async fn those_that_the_cloud_has_told_of_are_listed_by_instance() {
    let fleet = Fleet::new();
    with_snapshots(&mut fleet.world());
    let (service, page, web) = (fleet.service(), Page::default(), "web".into());
    for of in [None, Some(("api", "0")), Some(("api", "i1"))] {
        let rows = service.snapshots(&admin(), &web, of, &page).await.unwrap().rows;
        let shown: Vec<String> = rows
            .iter()
            .flat_map(|row| row.snapshots.iter().map(|(cid, s)| format!("{cid} clean={}", s.clean)))
            .collect();
        assert_eq!((rows.len(), shown), (1, vec!["snap-2 clean=true".into(), "snap-1 clean=false".into()]));
    }
    let nobody = service.snapshots(&admin(), &web, Some(("api", "9")), &page).await.unwrap_err();
    assert_eq!(nobody.to_string(), "'web/api/9' doesn't exist");
    let nowhere = service.snapshots(&admin(), &"nowhere".into(), None, &page).await.unwrap_err();
    assert_eq!(code(nowhere), Some(70000));
}

#[tokio::test]
async fn whoever_takes_and_deletes_them_waits_for_whoever_works_on_the_deployment() {
    let fleet = Fleet::new();
    with_snapshots(&mut fleet.world());
    let (service, web) = (fleet.service(), "web".into());
    let task = |id: TaskId| {
        let task = fleet.world().state().task(id).unwrap();
        assert_eq!(
            (task.deployment, task.locks),
            (Some("web".into()), vec![LockName::new("lock:deployment:web")])
        );
        task.kind
    };
    let all = service.take_snapshots(&admin(), None, &web, None).await.unwrap();
    assert_eq!(task(all), TaskKind::TakeSnapshots { instance: None });
    let one = service.take_snapshots(&admin(), None, &web, Some(("api", "0"))).await.unwrap();
    assert_eq!(task(one), TaskKind::TakeSnapshots { instance: Some("i1".into()) });
    let nobody = service.take_snapshots(&admin(), None, &web, Some(("api", "9"))).await.unwrap_err();
    assert_eq!((nobody.to_string().as_str(), code(nobody)), ("'web/api/9' doesn't exist", Some(70001)));

    let all = service.delete_snapshots(&admin(), None, &web, None).await.unwrap();
    assert_eq!(task(all), TaskKind::DeleteSnapshots { cid: None });
    let key = || Some("once".into());
    let one = service.delete_snapshots(&admin(), key(), &web, Some("snap-1".into())).await.unwrap();
    assert_eq!(task(one), TaskKind::DeleteSnapshots { cid: Some("snap-1".into()) });
    let again = service.delete_snapshots(&admin(), key(), &web, Some("snap-1".into())).await.unwrap();
    assert_eq!(again, one);
    let foreign = service.delete_snapshots(&admin(), None, &web, Some("nope".into())).await.unwrap_err();
    assert_eq!((foreign.to_string().as_str(), code(foreign)), ("snapshot nope not found", Some(70008)));
}

#[tokio::test]
async fn the_daily_ones_are_taken_where_there_are_disks() {
    let fleet = Fleet::new();
    assert!(snapshots_of_all(&fleet.world().state()).is_empty());
    with_snapshots(&mut fleet.world());
    let tasks = snapshots_of_all(&fleet.world().state());
    let names: Vec<&str> = tasks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["web"]);
    fleet.world().must(tasks[0].1.clone());
}
