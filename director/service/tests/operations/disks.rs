//! Orphans: what is deleted, and what is kept.

use model::step::{Action, StepOutcome};
use model::task::{InstanceFilter, TaskKind};
use model::{DiskId, LockName, TaskId, Timestamp};
use service::ops::{Attachment, CleanUp, ORPHANS_KEPT_MS, orphaned_vms_to_delete};
use service::{Page, ServiceError};
use state::command::{Command, TaskEnd};

use crate::fleet::{Fleet, admin};
use crate::nouns::{
    EPOCH, START, World, create_disk, create_vm, disk_created, finished, plan_of, vm_created,
};

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

#[tokio::test]
async fn vms_that_were_left_are_listed_and_deleted_by_one_task_at_a_time() {
    let fleet = Fleet::new();
    assert!(orphaned_vms_to_delete(&fleet.world().state()).is_empty());
    {
        let mut world = fleet.world();
        let orphan = Action::OrphanVm { instance: "i1".into(), agent: "a1".into() };
        let task = world.planned(plan_of(vec![create_vm(), orphan]));
        world.step(task, 1, 0, vm_created("vm-1"));
        let records = vec![finished(1, 1, 1, StepOutcome::Done)];
        world.must(Command::StepRecords { task, epoch: EPOCH, records });
    }
    let listed = fleet.service().orphaned_vms(&admin(), &Page::default()).await.unwrap().rows;
    assert_eq!(listed.iter().map(|orphan| &orphan.vm.cid).collect::<Vec<_>>(), [&Some("vm-1".into())]);
    let agents = orphaned_vms_to_delete(&fleet.world().state());
    assert_eq!(agents, ["a1".into()]);
    let task = fleet.world().queue(TaskKind::DeleteOrphanedVms { agents: agents.clone() }, &[]);
    assert!(orphaned_vms_to_delete(&fleet.world().state()).is_empty(), "a task is on them");
    let error = model::task::TaskError::plain("the cloud is closed");
    fleet.world().must(Command::TaskTake { task, epoch: EPOCH });
    fleet.world().must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Error(error) });
    assert_eq!(orphaned_vms_to_delete(&fleet.world().state()), agents, "it will be tried again");
}

#[tokio::test]
async fn a_clean_up_takes_what_it_has_shown() {
    let fleet = Fleet::new();
    with_orphans(&mut fleet.world());
    let task = TaskId(1);
    for version in ["1", "2", "3"] {
        let release = Box::new(crate::nouns::release("spare", version));
        let put = Command::ReleasePut {
            task,
            epoch: EPOCH,
            release,
            compiled: Vec::new(),
            fix: false,
            partial: false,
        };
        fleet.world().must(put);
    }
    let service = fleet.service();
    let newest_kept = CleanUp::default();
    let all = CleanUp { all: true, ..CleanUp::default() };
    for (wish, releases, disks) in
        [(newest_kept, 1, 0), (all, 3, 2), (CleanUp { keep_orphaned_disks: true, ..all }, 3, 0)]
    {
        let shown = service.leftovers(&admin(), wish).await.unwrap();
        let of_spare = shown.releases.iter().filter(|release| release.name.as_str() == "spare").count();
        assert_eq!((of_spare, shown.disks.len()), (releases, disks), "{wish:?}");
        let task = service.clean_up(&admin(), None, wish).await.unwrap();
        let TaskKind::CleanUp { leftovers, .. } = fleet.world().state().task(task).unwrap().kind else {
            panic!("it is a clean-up");
        };
        assert_eq!(leftovers.releases, shown.releases);
        assert_eq!(leftovers.disks.len(), shown.disks.len());
    }
}

#[tokio::test]
async fn what_is_done_to_single_disks_and_vms_waits_for_whoever_works_on_their_deployment() {
    let fleet = Fleet::new();
    {
        let mut world = fleet.world();
        let task = world.planned(plan_of(vec![create_vm(), create_disk("d1")]));
        world.step(task, 1, 0, vm_created("vm-1"));
        world.step(task, 1, 1, disk_created("disk-1"));
    }
    let service = fleet.service();
    let task = |id: TaskId| fleet.world().state().task(id).unwrap();
    let of_web = || vec![LockName::new("lock:deployment:web")];

    let orphan = task(service.orphan_disk(&admin(), None, &"disk-1".into()).await.unwrap());
    assert_eq!((orphan.deployment, orphan.locks), (Some("web".into()), of_web()));
    let unknown = task(service.orphan_disk(&admin(), None, &"disk-9".into()).await.unwrap());
    assert_eq!((unknown.deployment, unknown.locks), (None, vec![]));
    let vm = task(service.delete_vm(&admin(), None, &"vm-1".into()).await.unwrap());
    assert_eq!((vm.deployment, vm.locks), (Some("web".into()), of_web()));

    // Nobody deletes the orphan that an instance is about to get.
    let attachment = |deployment: &str, which: Option<&str>| Attachment {
        deployment: deployment.into(),
        instance: InstanceFilter { group: Some("api".into()), id_or_index: which.map(Into::into) },
        cid: "disk-2".into(),
        copy_properties: false,
    };
    let attach = service.attach_disk(&admin(), None, attachment("web", Some("0"))).await.unwrap();
    let delete = service.delete_orphaned_disk(&admin(), None, "disk-2").await.unwrap();
    assert_eq!(task(attach).locks, [of_web(), task(delete).locks].concat());

    let refused = |error: ServiceError| error.to_string();
    let nowhere = service.attach_disk(&admin(), None, attachment("nowhere", Some("0"))).await;
    assert!(refused(nowhere.unwrap_err()).contains("nowhere"));
    let nobody = service.attach_disk(&admin(), None, attachment("web", None)).await;
    assert!(refused(nobody.unwrap_err()).contains("GROUP/ID"));
    let nothing = service.delete_vm(&admin(), None, &" ".into()).await;
    assert!(refused(nothing.unwrap_err()).contains("CID"));
}
