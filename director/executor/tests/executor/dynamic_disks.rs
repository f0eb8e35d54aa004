//! Dynamic disks: made, attached, detached and deleted once, whoever leads; and never left on a VM that goes.

use std::collections::BTreeMap;
use std::time::Duration;

use cpi_api::fake::Fault;
use cpi_api::{Call, CpiErrorKind};
use model::dynamic_disk::{DiskMetadata, DynamicDisk, DynamicDiskWish};
use model::instance::{InstanceState, Vm};
use model::task::{InstanceFilter, StateChange, TaskKind, TaskState};
use model::{DiskCid, InstanceId, VmCid};
use serde_json::json;
use state::records::Sought;

use crate::artifacts::{Shape, become_state};
use crate::ended::Ended;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

fn wish() -> DynamicDiskWish {
    DynamicDiskWish {
        name: "data".into(),
        disk_type: "large".into(),
        size_mib: 64,
        metadata: Some(metadata("csi")),
    }
}

fn metadata(owner: &str) -> DiskMetadata {
    [("owner".to_owned(), owner.into()), ("size".to_owned(), 7.into())].into()
}

fn create() -> TaskKind {
    TaskKind::CreateDynamicDisk { deployment: "p".into(), az: "z1".into(), disk: Box::new(wish()) }
}

fn attach(instance: &InstanceId) -> TaskKind {
    TaskKind::AttachDynamicDisk { name: "data".into(), instance: instance.clone(), metadata: None }
}

fn provide(instance: &InstanceId) -> TaskKind {
    TaskKind::ProvideDynamicDisk { instance: instance.clone(), disk: Box::new(wish()) }
}

fn detach() -> TaskKind {
    TaskKind::DetachDynamicDisk { name: "data".into() }
}

fn delete() -> TaskKind {
    TaskKind::DeleteDynamicDisk { name: "data".into() }
}

fn recreate() -> TaskKind {
    change(StateChange::Recreate)
}

fn change(change: StateChange) -> TaskKind {
    TaskKind::ChangeState {
        change,
        filter: InstanceFilter { group: Some("web".into()), id_or_index: None },
        skip_drain: false,
        max_in_flight: None,
        canaries: None,
        dry_run: false,
        created_before: None,
    }
}

async fn world() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape { instances: 1, ..Shape::default() }.deploy()).await.done();
    world
}

/// A world whose disk is attached.
async fn attached() -> TestWorld {
    let world = world().await;
    world.run(provide(&world.first_web())).await.done();
    assert_eq!(where_it_is(&world), Some(vm(&world).cid.unwrap()));
    world
}

fn row(world: &TestWorld) -> Option<DynamicDisk> {
    world.read(|state| state.dynamic_disk(&"data".into()))
}

fn cid(world: &TestWorld) -> DiskCid {
    row(world).unwrap().cid.unwrap()
}

fn vm(world: &TestWorld) -> Vm {
    world.read(|state| state.active_vm(&world.first_web()).unwrap())
}

/// The VM that has the disk in its cloud; the state must say the same.
#[track_caller]
fn where_it_is(world: &TestWorld) -> Option<VmCid> {
    let row = row(world).unwrap();
    let of_row = row.attached.and_then(|at| world.read(|state| state.vm(&at.agent)).unwrap().cid);
    let in_cloud = world.outside.cloud.cloud().disks[&row.cid.unwrap()].attached_to.clone();
    assert_eq!(in_cloud, of_row, "{}", world.debug());
    in_cloud
}

/// Fails unless the task ended well, and everything is where the state says.
#[track_caller]
fn assert_told(world: &TestWorld, ended: &Ended, case: &str) {
    assert_eq!(ended.task.state, TaskState::Done, "{case}: {:?}", ended.task.error);
    assert_eq!(world.read(|state| state.leaks()), [], "{case}");
    world.assert_consistent();
}

/// Runs a task once for each call that it makes, each time with a leader that dies just before or after that call.
async fn at_every_call<W: Future<Output = TestWorld>>(
    prepared: impl Fn() -> W,
    task: impl Fn(&TestWorld) -> TaskKind,
    check: impl Fn(&TestWorld, &Ended, &str),
) {
    let world = prepared().await;
    world.gate.arm(None);
    let ended = world.run(task(&world)).await;
    check(&world, &ended, "undisturbed");
    let is_ours = |name: &str| {
        ["log:dynamic_disk", "log:vm_leaves", "log:task_report"].contains(&name)
            || name.contains("dynamic")
            || [
                "cpi:create_disk",
                "cpi:attach_disk",
                "cpi:detach_disk",
                "cpi:delete_disk",
                "cpi:set_disk_metadata",
            ]
            .contains(&name)
    };
    let seen: BTreeMap<String, usize> = world.gate.seen();
    let seen: Vec<_> = seen.into_iter().filter(|(name, _)| is_ours(name)).collect();
    assert!(seen.iter().any(|(name, _)| name == "log:dynamic_disk"), "{seen:?}");
    for (name, times) in seen {
        for nth in 1..=times {
            for side in [Side::Before, Side::After] {
                let world = prepared().await;
                let point = Point { name: name.clone(), nth, side };
                let ended = world.run_through(task(&world), point).await;
                check(&world, &ended, &format!("lost {side:?} {name} {nth}"));
            }
        }
    }
}

#[tokio::test]
async fn a_disk_is_made_attached_detached_and_deleted() {
    let world = world().await;
    let ended = world.run(create()).await.done();
    assert_eq!(ended.result, format!("{}\n", json!({"disk_cid": cid(&world)})));
    let made = world.outside.cloud.cloud().disks[&cid(&world)].clone();
    assert_eq!((made.request.size_mib, made.request.vm), (64, vm(&world).cid));
    assert_eq!(made.request.cloud_properties, json!({"name": "data"}));
    let told: BTreeMap<_, _> =
        [("owner", "csi"), ("size", "7")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!((made.metadata, row(&world).unwrap().metadata), (told, metadata("csi")));
    assert_eq!(world.run(create()).await.error(), "dynamic disk 'data' already exists");

    let web = world.first_web();
    world.run(attach(&web)).await.done();
    assert_eq!(where_it_is(&world), vm(&world).cid);
    world.run(attach(&web)).await.done();
    let calls = |method| world.outside.cloud.count(method);
    assert_eq!(calls("attach_disk"), 2, "one is the instance's own");
    assert_eq!(world.outside.done("add_dynamic_disk"), 2, "the agent is told again");

    for _ in 0..2 {
        world.run(detach()).await.done();
        assert_eq!(where_it_is(&world), None);
    }
    assert_eq!((calls("detach_disk"), world.outside.done("remove_dynamic_disk")), (1, 1));
    for _ in 0..2 {
        world.run(delete()).await.done();
        assert_eq!(row(&world), None);
    }
    assert_eq!(calls("delete_disk"), 1);
    for unknown in [detach(), attach(&web)] {
        assert_eq!(world.run(unknown).await.error(), "dynamic disk 'data' does not exist");
    }
    world.assert_consistent();
}

#[tokio::test]
async fn a_leader_lost_while_a_disk_is_made_leaves_one_disk() {
    at_every_call(
        world,
        |_| create(),
        |world, ended, case| {
            assert_told(world, ended, case);
            assert_eq!(ended.result, format!("{}\n", json!({"disk_cid": cid(world)})), "{case}");
            assert_eq!(row(world).unwrap().metadata, metadata("csi"), "{case}");
            assert!(world.read(|state| state.orphaned_disks()).is_empty(), "{case}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_leader_lost_while_a_disk_is_provided_attaches_it_once() {
    at_every_call(
        world,
        |world| provide(&world.first_web()),
        |world, ended, case| {
            assert_told(world, ended, case);
            assert_eq!(where_it_is(world), vm(world).cid, "{case}");
            assert_eq!(ended.result.lines().count(), 1, "{case}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_leader_lost_while_a_disk_is_detached_or_deleted_is_followed_by_one_that_ends_it() {
    at_every_call(
        attached,
        |_| detach(),
        |world, ended, case| {
            assert_told(world, ended, case);
            assert_eq!(where_it_is(world), None, "{case}");
        },
    )
    .await;
    let detached = || async {
        let world = world().await;
        world.run(create()).await.done();
        world
    };
    at_every_call(
        detached,
        |_| delete(),
        |world, ended, case| {
            assert_told(world, ended, case);
            assert_eq!(row(world), None, "{case}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_leader_lost_while_a_vm_is_recreated_leaves_its_disk_to_be_attached_again() {
    at_every_call(
        attached,
        |_| recreate(),
        |world, ended, case| {
            assert_told(world, ended, case);
            assert_eq!(where_it_is(world), None, "{case}");
            assert_eq!(world.outside.cloud.cloud().vms.len(), 1, "{case}");
        },
    )
    .await;
}

#[tokio::test]
async fn whoever_takes_a_vm_away_detaches_what_it_has() {
    let delete_vm = |world: &TestWorld| TaskKind::DeleteVm { cid: vm(world).cid.unwrap() };
    let isolated = |world: &TestWorld| TaskKind::ChangeInstance {
        change: StateChange::Recreate,
        instance: world.first_web(),
        skip_drain: true,
        fix: false,
    };
    type Way = (&'static str, Box<dyn Fn(&TestWorld) -> TaskKind>);
    let ways: [Way; 4] = [
        ("recreate", Box::new(|_| recreate())),
        ("recreate --no-converge", Box::new(isolated)),
        ("stop --hard", Box::new(|_| become_state(InstanceState::Detached))),
        ("delete-vm", Box::new(delete_vm)),
    ];
    for (way, task) in ways {
        let world = attached().await;
        let agent = vm(&world).agent;
        world.run(task(&world)).await.done();
        assert_eq!(where_it_is(&world), None, "{way}");
        let calls = world.outside.cloud.calls();
        let detached = |call: &Call| matches!(call, Call::DetachDisk(_, disk) if *disk == cid(&world));
        assert_eq!(calls.iter().filter(|call| detached(&call.call)).count(), 1, "{way}");
        let told = world.outside.deeds();
        let removed = |(of, deed): &&(model::AgentId, agent_api::fake::Deed)| {
            *of == agent && deed.method.name() == "remove_dynamic_disk"
        };
        assert_eq!(told.iter().filter(removed).count(), 1, "{way}");
        world.assert_consistent();
    }
}

#[tokio::test]
async fn a_vm_that_is_swapped_out_gives_its_disk_up_before_it_is_switched_off() {
    let swapped = || async {
        let world = TestWorld::seed().await;
        world.run(Shape { instances: 1, ..Shape::swapped() }.deploy()).await.done();
        world.run(provide(&world.first_web())).await.done();
        world
    };
    at_every_call(
        swapped,
        |_| recreate(),
        |world, ended, case| {
            assert_told(world, ended, case);
            assert_eq!(where_it_is(world), None, "{case}");
            assert_eq!(world.read(|state| state.orphaned_vms().len()), 1, "{case}");
        },
    )
    .await;
    let world = swapped().await;
    let old = vm(&world).agent;
    world.run(recreate()).await.done();
    let told = world.outside.deeds();
    let told: Vec<&str> =
        told.iter().filter(|(agent, _)| *agent == old).map(|(_, deed)| deed.method.name()).collect();
    assert!(told.ends_with(&["remove_dynamic_disk", "shutdown"]), "{told:?}");
}

#[tokio::test]
async fn of_a_dead_vm_only_the_cloud_is_asked() {
    let world = attached().await;
    let (instance, agent) = (world.first_web(), vm(&world).agent);
    world.outside.hush(&agent);
    world.call_dead(&agent);
    world.run(TaskKind::ScanAndFix { instances: vec![instance], unknown: Vec::new() }).await.done();
    assert_eq!(where_it_is(&world), None);
    assert_eq!(world.outside.done("remove_dynamic_disk"), 0);
    assert!(world.outside.requests().iter().all(|asked| *asked != "remove_dynamic_disk"));
    world.assert_consistent();
}

#[tokio::test]
async fn a_vm_is_not_deleted_while_somebody_attaches_a_disk_to_it() {
    let world = world().await;
    world.run(create()).await.done();
    world.outside.cloud.inject("attach_disk", Fault::Delay(Duration::from_millis(400)));
    let attaching = world.queue(attach(&world.first_web()));
    world
        .until("it is about to be attached", |state| {
            state.dynamic_disk(&"data".into()).and_then(|disk| disk.attached)
        })
        .await;
    let recreating = world.queue(recreate());
    world.until_open(recreating, "delete_vm").await;
    world.ended(attaching).await.done();
    world.ended(recreating).await.done();
    let order: Vec<&str> = world.outside.cloud.calls().iter().map(|call| call.call.method()).collect();
    let last = |method: &str| order.iter().rposition(|call| *call == method).unwrap();
    let attached = world
        .outside
        .cloud
        .calls()
        .iter()
        .position(|call| matches!(&call.call, Call::AttachDisk(_, disk) if *disk == cid(&world)));
    assert!(attached.unwrap() < last("delete_vm"), "{order:?}");
    assert_eq!(where_it_is(&world), None);
    world.assert_consistent();
}

#[tokio::test]
async fn nothing_is_attached_to_a_vm_that_goes() {
    let world = world().await;
    world.run(create()).await.done();
    world.outside.cloud.inject("delete_vm", Fault::Delay(Duration::from_millis(400)));
    let recreating = world.queue(recreate());
    world.until_open(recreating, "delete_vm").await;
    let error = world.run(attach(&world.first_web())).await.error();
    assert!(
        error.contains("can't be attached: VM of agent") && error.contains("is in use by task"),
        "{error}"
    );
    world.ended(recreating).await.done();
    world.run(attach(&world.first_web())).await.done();
    assert_eq!(where_it_is(&world), vm(&world).cid);
}

#[tokio::test]
async fn a_deployment_takes_its_disks_with_it_whoever_leads() {
    let deletion = |_: &TestWorld| TaskKind::DeleteDeployment { force: false };
    at_every_call(attached, deletion, |world, ended, case| {
        assert_told(world, ended, case);
        assert_eq!((row(world), world.read(|state| state.deployments().len())), (None, 0), "{case}");
        let told: Vec<String> =
            ended.lines().into_iter().filter(|line| line.starts_with("Deleting properties")).collect();
        let wanted = ["started", "finished"]
            .map(|how| format!("Deleting properties: Deleting dynamic disks 1/0 {how}"));
        assert_eq!(told, wanted, "{case}");
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_can_not_be_deleted_keeps_its_deployment_unless_it_is_forced() {
    let world = attached().await;
    // The first one that is deleted.
    world.outside.cloud.inject("delete_disk", Fault::Fail(CpiErrorKind::Other));
    let error = world.run(TaskKind::DeleteDeployment { force: false }).await.error();
    assert!(error.contains("injected failure"), "{error}");
    assert_eq!(world.read(|state| state.deployments().len()), 1);
    world.outside.cloud.inject("delete_disk", Fault::Fail(CpiErrorKind::Other));
    let disk = cid(&world);
    world.run(TaskKind::DeleteDeployment { force: true }).await.done();
    let orphans = world.read(|state| state.orphaned_disks());
    assert!(orphans.iter().any(|orphan| orphan.disk.cid.as_ref() == Some(&disk)), "{orphans:?}");
    world.assert_consistent();
}

#[tokio::test]
async fn a_disk_stays_where_it_can_be_attached() {
    let world = attached().await;
    world.run(Shape { name: "q", instances: 1, ..Shape::default() }.deploy()).await.done();
    let other = world.read(|state| {
        state.instances(&"q".into()).into_iter().find(|one| one.spec.group.as_str() == "web").unwrap().spec.id
    });
    let error = world.run(attach(&other)).await.error();
    assert!(error.contains("is in deployment 'p', and instance 'web/"), "{error}");
    let error = world.run(provide(&other)).await.error();
    assert!(error.contains("dynamic disk data is in use by instance"), "{error}");
    assert!(world.run(attach(&"nobody".into())).await.error().contains("instance 'nobody' does not exist"));
    let nowhere = TaskKind::CreateDynamicDisk {
        deployment: "p".into(),
        az: "z9".into(),
        disk: Box::new(DynamicDiskWish { name: "else".into(), ..wish() }),
    };
    assert!(world.run(nowhere).await.error().contains("has no active VM in availability zone 'z9'"));
    let typeless = TaskKind::CreateDynamicDisk {
        deployment: "p".into(),
        az: "z1".into(),
        disk: Box::new(DynamicDiskWish { name: "else".into(), disk_type: "huge".into(), ..wish() }),
    };
    assert!(world.run(typeless).await.error().contains("there is no disk type 'huge'"));
    world.assert_consistent();
}

#[tokio::test]
async fn what_could_not_be_made_or_attached_leaves_nothing() {
    let world = world().await;
    world.outside.cloud.inject("create_disk", Fault::Fail(CpiErrorKind::Other));
    assert!(world.run(create()).await.error().contains("injected failure"));
    assert_eq!(row(&world), None);
    world.run(create()).await.done();
    world.outside.cloud.inject("attach_disk", Fault::Fail(CpiErrorKind::Other));
    assert!(world.run(attach(&world.first_web())).await.error().contains("injected failure"));
    assert_eq!(where_it_is(&world), None);
    world.run(attach(&world.first_web())).await.done();
    world.outside.cloud.inject("detach_disk", Fault::Fail(CpiErrorKind::DiskNotAttached));
    world.run(detach()).await.done();
    assert_eq!(row(&world).unwrap().attached, None, "it is not attached");
}

#[tokio::test]
async fn a_disk_whose_answer_was_lost_is_found_and_one_that_comes_late_is_an_orphan() {
    let world = world().await;
    world.outside.cloud.inject("create_disk", Fault::LoseAnswer);
    world.run(create()).await.done();
    world.run(delete()).await.done();
    world.outside.cloud.inject("create_disk", Fault::Late);
    world.run(create()).await.error();
    assert_eq!(row(&world), None);
    let late = world.read(|state| state.latecomers());
    let is_disk = |sought: &Sought| matches!(sought, Sought::Disk(_));
    assert_eq!(late.iter().filter(|late| is_disk(&late.sought)).count(), 1, "{late:?}");
    world.outside.cloud.carry_out_late_calls();
    world.until("it is an orphan", |state| state.orphaned_disks().pop()).await;
    world.assert_consistent();
}

#[tokio::test]
async fn an_attachment_of_which_nobody_knows_is_found_out() {
    for fault in [Fault::LoseAnswer, Fault::Late] {
        let world = world().await;
        world.run(create()).await.done();
        world.outside.cloud.inject("attach_disk", fault);
        world.run(attach(&world.first_web())).await.error();
        assert_eq!(row(&world).unwrap().attached.unwrap().hint, None);
        world.run(recreate()).await.done();
        assert_eq!(where_it_is(&world), None);
        world.run(attach(&world.first_web())).await.done();
        assert_eq!(where_it_is(&world), vm(&world).cid);
    }
}

#[tokio::test]
async fn metadata_is_told_when_it_has_changed() {
    let world = world().await;
    world.run(create()).await.done();
    for (owner, times) in [("csi", 1), ("other", 2), ("other", 2)] {
        let metadata = Some(metadata(owner));
        let told = TaskKind::AttachDynamicDisk { name: "data".into(), instance: world.first_web(), metadata };
        let before = world.outside.cloud.count("set_disk_metadata");
        world.run(told).await.done();
        assert!(world.outside.cloud.count("set_disk_metadata") - before < 2);
        let of_it = world.outside.cloud.calls();
        let of_it = of_it.iter().filter(|call| {
            call.call.method() == "set_disk_metadata" && call.call.object() == cid(&world).as_str()
        });
        assert_eq!(of_it.count(), times, "{owner}");
    }
}
