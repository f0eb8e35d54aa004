//! Dynamic disks: asked for once whatever is repeated, and listed a page at a time.

use model::dynamic_disk::DynamicDiskWish;
use model::task::TaskKind;
use model::{DynamicDiskName, InstanceId};
use service::Page;
use state::records::DynamicDeed;

use crate::fleet::{Fleet, admin, caller};
use crate::nouns::{World, create_vm, dynamic_deed, dynamic_make, plan_of, vm_created};

fn wish() -> DynamicDiskWish {
    DynamicDiskWish { name: "data".into(), disk_type: "small".into(), size_mib: 1, metadata: None }
}

/// A deployment with a VM, whose instance has a dynamic disk.
fn with_a_disk(world: &mut World) {
    let task = world.planned(plan_of(vec![create_vm()]));
    world.step(task, 1, 0, vm_created("vm-1"));
    for deed in [
        dynamic_make("a1"),
        DynamicDeed::Made { id: "id-data".into(), cid: "disk-9".into() },
        DynamicDeed::Attach { agent: "a1".into() },
    ] {
        world.must(dynamic_deed(task, deed));
    }
}

#[tokio::test]
async fn a_repeat_is_the_same_task() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let place = || ("web".into(), "z1".into());
    let id = || Some("once".into());
    let task = service.create_dynamic_disk(&admin(), id(), place(), wish()).await.unwrap();
    assert_eq!(service.create_dynamic_disk(&admin(), id(), place(), wish()).await, Ok(task));
    let row = fleet.world().state().task(task).unwrap();
    let wanted =
        TaskKind::CreateDynamicDisk { deployment: "web".into(), az: "z1".into(), disk: Box::new(wish()) };
    assert_eq!((row.kind, row.deployment), (wanted, None), "a deployment's lock is not waited for");
}

#[tokio::test]
async fn what_can_not_be_is_refused_before_there_is_a_task() {
    let fleet = Fleet::new();
    let service = fleet.service();
    let (name, nobody) = (DynamicDiskName::new("data"), InstanceId::default());
    let small = DynamicDiskWish { size_mib: 0, ..wish() };
    assert!(service.provide_dynamic_disk(&admin(), None, "i1".into(), small).await.is_err());
    assert!(service.provide_dynamic_disk(&admin(), None, nobody.clone(), wish()).await.is_err());
    assert!(service.attach_dynamic_disk(&admin(), None, (name, nobody), None).await.is_err());
    assert!(service.detach_dynamic_disk(&admin(), None, "a/b".into()).await.is_err());
    assert!(
        service.delete_dynamic_disk(&caller("bosh.dynamic-disks.detach"), None, "a".into()).await.is_err()
    );
    assert_eq!(fleet.world().state().tasks(&Default::default()).len(), 0);
}

#[tokio::test]
async fn the_list_says_who_has_a_disk() {
    let fleet = Fleet::new();
    with_a_disk(&mut fleet.world());
    let service = fleet.service();
    let lister = caller("bosh.dynamic-disks.list");
    let listed = service.dynamic_disks(&lister, &Page::default()).await.unwrap();
    let rows: Vec<_> =
        listed.rows.iter().map(|row| (row.disk.name.as_str(), row.instance.as_deref())).collect();
    assert_eq!(rows, [("data", Some("api/i1"))]);
    assert!(service.dynamic_disks(&caller("bosh.read"), &Page::default()).await.is_err());
}
