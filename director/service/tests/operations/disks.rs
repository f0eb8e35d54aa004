//! Orphaned disks: what is deleted, and what is kept.

use model::step::{Action, StepOutcome};
use model::task::TaskKind;
use model::{DiskId, TaskId, Timestamp};
use service::ops::ORPHANS_KEPT_MS;

use crate::fleet::{Fleet, admin};
use crate::nouns::{START, World, create_disk, disk_created, plan_of};

const DAY: i64 = 24 * 3600 * 1000;

/// A deployment whose disks `d1` and `d2` were given up, the second one three days after the first.
pub fn with_orphans(world: &mut World) {
    let orphan = |disk: &str| Action::OrphanDisk { instance: "i1".into(), disk: disk.into() };
    let actions = vec![create_disk("d1"), create_disk("d2"), orphan("d1"), orphan("d2")];
    let task = world.planned(plan_of(actions));
    world.step(task, 1, 0, disk_created("disk-1"));
    world.step(task, 1, 1, disk_created("disk-2"));
    world.now = START;
    world.step(task, 1, 2, StepOutcome::Done);
    world.now = START + 3 * DAY;
    world.step(task, 1, 3, StepOutcome::Done);
    assert_eq!(world.state().orphaned_disks().len(), 2);
}

fn to_delete(fleet: &Fleet, task: TaskId) -> Vec<DiskId> {
    match fleet.world().state().task(task).unwrap().kind {
        TaskKind::DeleteOrphanedDisks { disks } => disks,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_clean_up_keeps_disks_that_were_orphaned_lately() {
    let fleet = Fleet::new();
    with_orphans(&mut fleet.world());
    let service = fleet.service();
    for (days, expected) in [(0, vec![]), (4, vec![]), (6, vec!["d1"]), (9, vec!["d1", "d2"])] {
        let now = Timestamp(START + days * DAY);
        let task = service.delete_orphaned_disks(&admin(), None, &[], now).await.unwrap();
        let expected: Vec<DiskId> = expected.into_iter().map(DiskId::new).collect();
        assert_eq!(to_delete(&fleet, task), expected, "after {days} days");
    }
    assert_eq!(ORPHANS_KEPT_MS, 5 * DAY);
}

#[tokio::test]
async fn a_disk_that_is_named_is_deleted_however_young() {
    let fleet = Fleet::new();
    with_orphans(&mut fleet.world());
    let (service, now) = (fleet.service(), Timestamp(START));
    let task = service.delete_orphaned_disks(&admin(), None, &["disk-2".into()], now).await.unwrap();
    assert_eq!(to_delete(&fleet, task), [DiskId::new("d2")]);
    let unknown = service.delete_orphaned_disks(&admin(), None, &["disk-9".into()], now).await;
    assert!(unknown.unwrap_err().to_string().contains("disk-9"));
}
