//! Disks that have names: several for one instance, attached and nothing else.

use expect_test::expect;
use model::DiskCid;
use model::instance::InstanceState;
use model::task::{DeployOptions, InstanceFilter, TaskKind};

use crate::artifacts::{Shape, become_state};
use crate::cloud_check::{problems, resolve_all};
use crate::summary::summary;
use crate::world::TestWorld;

const TWO: &[(&str, &str)] = &[("data", "large"), ("wal", "small")];

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::with_disks(TWO).deploy()).await.done();
    world
}

/// What the first instance has, as the summary puts it.
fn web(world: &TestWorld) -> String {
    let all = summary(world);
    let line = all.lines().find(|line| line.starts_with("  web/0")).unwrap();
    line[line.find(" vm(").or(line.find(" disk(")).unwrap()..].trim().to_owned()
}

fn cid(world: &TestWorld, name: &str) -> DiskCid {
    let disks = world.read(|state| state.disks(&world.first_web()));
    let is_it = |disk: &model::instance::Disk| disk.active && disk.spec.name == Some(name.into());
    disks.into_iter().find(is_it).unwrap().cid.unwrap()
}

fn orphans(world: &TestWorld) -> Vec<DiskCid> {
    world.read(|state| state.orphaned_disks().into_iter().filter_map(|orphan| orphan.disk.cid).collect())
}

#[tokio::test]
async fn each_is_attached_and_found_by_its_name_and_none_is_mounted() {
    let world = deployed().await;
    expect!["vm(active cpu=null disks=2 tags=8) named(data wal) disk(active 20MiB attached=true) disk(active 10MiB attached=true)"]
        .assert_eq(&web(&world));
    assert_eq!((world.outside.done("mount_disk"), world.outside.done("list_disk")), (0, 0));
    let before = (cid(&world, "data"), cid(&world, "wal"));
    let options = DeployOptions { recreate: true, ..DeployOptions::default() };
    world.run(Shape::with_disks(TWO).deploy_with(options)).await.done();
    assert_eq!((cid(&world, "data"), cid(&world, "wal")), before, "a new VM has the same disks");
    world.run(become_state(InstanceState::Detached)).await.done();
    expect!["disk(active 20MiB attached=false) disk(active 10MiB attached=false)"].assert_eq(&web(&world));
    world.run(become_state(InstanceState::Started)).await.done();
    assert_eq!((cid(&world, "data"), cid(&world, "wal")), before);

    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    assert_eq!(orphans(&world).len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn a_changed_disk_is_replaced_by_an_empty_one_and_kept_as_an_orphan() {
    let world = deployed().await;
    let (data, wal) = (cid(&world, "data"), cid(&world, "wal"));
    world.run(Shape::with_disks(&[("data", "large"), ("wal", "large")]).deploy()).await.done();
    assert_eq!(cid(&world, "data"), data);
    assert_ne!(cid(&world, "wal"), wal);
    assert_eq!((orphans(&world), world.outside.done("migrate_disk")), (vec![wal], 0));
    world.assert_consistent();
}

#[tokio::test]
async fn an_orphan_comes_back_under_the_name_that_it_had_and_under_no_other() {
    let world = deployed().await;
    let wal = cid(&world, "wal");
    let orphan = TaskKind::OrphanDisk { cid: wal.clone() };
    let error = world.run(orphan.clone()).await.error();
    assert!(error.contains("is attached to instance") && error.contains("stop it first"), "{error}");
    for state in [InstanceState::Stopped, InstanceState::Detached] {
        world.run(become_state(state)).await.done();
        world.run(orphan.clone()).await.done();
        assert_eq!(orphans(&world), std::slice::from_ref(&wal));
        let instance =
            InstanceFilter { group: Some("web".into()), id_or_index: Some(world.first_web().to_string()) };
        let attach = |cid: &DiskCid| TaskKind::AttachDisk {
            instance: instance.clone(),
            cid: cid.clone(),
            copy_properties: false,
        };
        let error = world.run(attach(&"made-up".into())).await.error();
        assert!(error.starts_with("Disk 'made-up' has no name, and instance 'web/"), "{error}");
        assert!(error.ends_with("is to have disks with the names 'data', 'wal'"), "{error}");
        world.run(attach(&wal)).await.done();
        assert_eq!(cid(&world, "wal"), wal);
        world.run(become_state(InstanceState::Started)).await.done();
        assert_eq!((cid(&world, "wal"), orphans(&world)), (wal.clone(), Vec::new()));
        assert!(web(&world).contains("named(data wal)"));
        world.assert_consistent();
    }
    world.run(Shape { instances: 1, ..Shape::default() }.deploy()).await.done();
    world.run(become_state(InstanceState::Stopped)).await.done();
    let instance =
        InstanceFilter { group: Some("web".into()), id_or_index: Some(world.first_web().to_string()) };
    let back = TaskKind::AttachDisk { instance, cid: wal, copy_properties: false };
    let error = world.run(back).await.error();
    assert!(
        error.contains("has the name 'wal'") && error.ends_with("is to have a disk without a name"),
        "{error}"
    );
}

#[tokio::test]
async fn that_nobody_mounts_them_is_no_problem_but_to_be_gone_is_one() {
    let world = deployed().await;
    let scan = || world.run(TaskKind::ScanCloud);
    let lines = scan().await.done().lines();
    assert!(
        lines.last().unwrap().contains("2 OK, 0 missing, 0 inactive, 0 mount-info mismatch"),
        "{lines:?}"
    );
    let wal = cid(&world, "wal");
    world.outside.cloud.tamper(|cloud| {
        cloud.disks.remove(&wal);
        cloud.vms.values_mut().for_each(|vm| {
            vm.disks.remove(&wal);
        });
    });
    scan().await.done();
    assert_eq!(problems(&world).len(), 1);
    world.run(resolve_all(&world, "delete_disk_reference")).await.done();
    assert!(web(&world).contains("named(data) "), "{}", web(&world));
    assert_eq!(orphans(&world), [wal]);
    world.run(Shape::with_disks(TWO).deploy()).await.done();
    assert!(web(&world).contains("named(data wal) "), "{}", web(&world));
}
