//! `--no-converge`: one instance is stopped, started, restarted or gets a new VM, and nothing else is touched.

use model::InstanceId;
use model::instance::InstanceState;
use model::task::{StateChange, TaskKind};
use serde_json::json;

use crate::artifacts::Shape;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    world
}

fn change(world: &TestWorld, change: StateChange) -> TaskKind {
    TaskKind::ChangeInstance { change, instance: world.first_web(), skip_drain: false, fix: false }
}

fn instances(world: &TestWorld) -> Vec<(InstanceId, InstanceState, Option<String>, bool)> {
    world.read(|state| {
        let of = |instance: model::instance::Instance| {
            let vm = state.active_vm(&instance.spec.id).and_then(|vm| vm.cid).map(|cid| cid.to_string());
            (instance.spec.id, instance.state, vm, instance.update_completed)
        };
        state.instances(&"p".into()).into_iter().map(of).collect()
    })
}

#[tokio::test]
async fn one_instance_changes_and_the_others_do_not() {
    let world = deployed().await;
    let mine = world.first_web();
    let others = |world: &TestWorld| -> Vec<_> {
        instances(world).into_iter().filter(|(id, ..)| *id != mine).collect()
    };
    let of_mine = |world: &TestWorld| {
        let mut all = instances(world).into_iter();
        all.find(|(id, ..)| *id == mine).map(|(_, state, vm, completed)| (state, vm, completed)).unwrap()
    };
    let (before, first) = (others(&world), of_mine(&world));
    let ended = world.run(change(&world, StateChange::Become(InstanceState::Detached))).await.done();
    assert_eq!(ended.task.result, Some(format!("web/{mine}")));
    assert_eq!(of_mine(&world), (InstanceState::Detached, None, true));
    world.run(change(&world, StateChange::Become(InstanceState::Started))).await.done();
    let (state, vm, completed) = of_mine(&world);
    assert_eq!((state, completed), (InstanceState::Started, true));
    assert!(vm.is_some() && vm != first.1, "{vm:?}");
    let ended = world.run(change(&world, StateChange::Restart)).await.done();
    assert_eq!(of_mine(&world).1, vm, "a restart keeps the VM");
    let slug = format!("web/{mine} (0)");
    let told = ended.lines().iter().filter(|line| line.ends_with("started")).cloned().collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            format!("Updating instance {slug}: Stopping instance 1/2 started"),
            format!("Updating instance {slug}: Starting instance 2/2 started"),
        ]
    );
    assert_eq!(others(&world), before);
    world.assert_consistent();
}

/// What a broken-off deploy has left of the others is nobody's business here.
#[tokio::test]
async fn a_change_that_was_deployed_by_half_is_not_carried_on() {
    let world = deployed().await;
    world.fail_at("drain", Shape { port: json!(9090), ..Shape::default() }.deploy()).await;
    let before = instances(&world);
    // The deploy broke off in the first one's turn.
    let all = world.read(|state| state.instances(&"p".into()));
    let second = all.into_iter().find(|i| i.spec.group.as_str() == "web" && i.spec.index == 1).unwrap();
    let kind = TaskKind::ChangeInstance {
        change: StateChange::Restart,
        instance: second.spec.id,
        skip_drain: true,
        fix: false,
    };
    world.run(kind).await.done();
    assert_eq!(instances(&world), before);
}

/// How the instances are, whatever their VMs are called.
fn standing(world: &TestWorld) -> Vec<(InstanceState, bool, bool)> {
    let mut all: Vec<_> = instances(world)
        .into_iter()
        .map(|(_, state, vm, completed)| (state, vm.is_some(), completed))
        .collect();
    all.sort_by_key(|(state, has_vm, _)| (*state == InstanceState::Started, *has_vm));
    all
}

#[tokio::test]
async fn whoever_leads_next_goes_on_where_the_last_one_stopped() {
    let undisturbed = deployed().await;
    undisturbed.run(change(&undisturbed, StateChange::Recreate)).await.done();
    let vms = undisturbed.outside.vms_ever();
    for (kind, side) in [
        ("stop", Side::Before),
        ("unmount_disk", Side::After),
        ("delete_vm", Side::Before),
        ("delete_vm", Side::After),
        ("create_vm", Side::Before),
        ("create_vm", Side::After),
        ("mount_disk", Side::After),
        ("start", Side::Before),
    ] {
        let world = deployed().await;
        let point = Point { name: format!("finished:{kind}"), nth: 1, side };
        world.run_through(change(&world, StateChange::Recreate), point).await.done();
        world.assert_consistent();
        assert_eq!(world.outside.vms_ever(), vms, "{kind} {side:?}");
        assert_eq!(standing(&world), standing(&undisturbed), "{kind} {side:?}");
    }
}
