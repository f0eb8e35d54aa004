//! A cloud that does what it was asked for after its caller was told nothing and has looked for it in vain. Nothing of it
//! stays unknown, and nobody gets two of one.

use std::time::Duration;

use cpi_api::fake::Fault;
use model::task::TaskKind;
use model::{AgentId, DiskCid, VmCid};
use state::query::EventFilter;

use crate::artifacts::Shape;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

/// The second VM that is made, the first one of an instance: the first one of all compiles.
const OF_AN_INSTANCE: usize = 2;

fn asked_for(method: &str, nth: usize) -> Point {
    Point { name: format!("cpi:{method}"), nth, side: Side::After }
}

/// Has the cloud be late with the `nth` call of a method from now on.
fn be_late(world: &TestWorld, method: &'static str, nth: usize) {
    (1..nth).for_each(|_| world.outside.cloud.inject(method, Fault::Delay(Duration::ZERO)));
    world.outside.cloud.inject(method, Fault::Late);
}

/// Has the cloud do what it is late with.
fn carry_out(world: &TestWorld) -> usize {
    let done = world.outside.cloud.carry_out_late_calls();
    world.outside.settle();
    done
}

fn expected(world: &TestWorld) -> Vec<String> {
    world.read(|state| state.latecomers().iter().map(|row| row.as_leak().what).collect())
}

/// Waits until so many VMs are orphans.
async fn orphaned_vms(world: &TestWorld, count: usize) -> Vec<(AgentId, VmCid)> {
    world
        .until("the VM is an orphan", |state| {
            let orphans = state.orphaned_vms();
            let orphans: Vec<_> =
                orphans.into_iter().filter_map(|orphan| Some((orphan.vm.agent, orphan.vm.cid?))).collect();
            (orphans.len() == count).then_some(orphans)
        })
        .await
}

fn events(world: &TestWorld, action: &str) -> usize {
    let filter = EventFilter { action: Some(action.into()), ..EventFilter::default() };
    world.read(|state| state.events(&filter, None, 100).len())
}

#[tokio::test]
async fn a_vm_that_comes_after_its_call_timed_out_is_an_orphan_and_is_deleted() {
    let world = TestWorld::seed().await;
    be_late(&world, "create_vm", OF_AN_INSTANCE);
    let error = world.run(Shape::default().deploy()).await.error();
    assert!(error.contains("in 'create_vm' CPI method"), "{error}");
    let listed = expected(&world);
    assert!(listed.len() == 1 && listed[0].contains("of 'web/"), "{listed:?}");
    // Nothing but the state remembers it.
    world.depose().await;
    world.lead();
    let before: Vec<VmCid> = world.outside.cloud.cloud().vms.into_keys().collect();
    assert_eq!(carry_out(&world), 1);
    let orphans = orphaned_vms(&world, 1).await;
    let (agent, cid) = orphans[0].clone();
    assert!(!before.contains(&cid) && listed[0].contains(agent.as_str()), "{orphans:?} {listed:?}");
    assert_eq!(world.read(|state| state.agent(&agent)), None, "it is nobody's agent");
    world.assert_consistent();
    world.run(TaskKind::DeleteOrphanedVms { agents: vec![agent] }).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.into_keys().collect::<Vec<_>>(), before);
    world.run(Shape::default().deploy()).await.done();
    world.assert_consistent();
    assert_eq!((events(&world, "expect"), world.outside.doubles()), (1, vec![]));
}

#[tokio::test]
async fn a_vm_that_comes_after_its_leader_died_and_another_was_made_is_an_orphan() {
    let world = TestWorld::seed().await;
    be_late(&world, "create_vm", 1);
    world.run_through(Shape::default().deploy(), asked_for("create_vm", 1)).await.done();
    // The one that compiled is deleted by now, and nobody has its agent's id any more.
    assert_eq!(expected(&world).len(), 1);
    assert_eq!(carry_out(&world), 1);
    orphaned_vms(&world, 1).await;
    world.assert_consistent();
    world.run(world.deletion_of_workers()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn a_double_of_an_instances_vm_is_an_orphan_and_its_agent_is_nobodys() {
    let world = TestWorld::seed().await;
    be_late(&world, "create_vm", OF_AN_INSTANCE);
    world.run_through(Shape::default().deploy(), asked_for("create_vm", OF_AN_INSTANCE)).await.done();
    let before = world.outside.cloud.cloud().vms;
    assert_eq!(carry_out(&world), 1);
    let orphans = orphaned_vms(&world, 1).await;
    let (key, double) = &orphans[0];
    assert!(!before.contains_key(double), "{orphans:?}");
    let request = world.outside.cloud.cloud().vms[double].request.clone();
    assert_ne!(*key, request.agent_id);
    let vm = world.read(|state| state.vm(&request.agent_id)).unwrap();
    assert!(vm.active && before.contains_key(&vm.cid.unwrap()), "the instance keeps its VM");
    assert!(!world.outside.enroll(double, &request), "the token that the double got is void");
    world.assert_consistent();
    world.run(world.deletion_of_workers()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms, before);
    world.run(Shape { instances: 3, ..Shape::default() }.deploy()).await.done();
    world.assert_consistent();
}

#[tokio::test]
async fn a_vm_that_comes_just_before_it_is_asked_for_again_is_not_taken_for_the_new_one() {
    let world = TestWorld::seed().await;
    let one = Shape { instances: 1, ..Shape::default() };
    be_late(&world, "create_vm", OF_AN_INSTANCE);
    // The second leader looks for it in vain, and asks again; then it comes. Its agent has a void token by now: nobody
    // would ever hear of it.
    world.outside.cloud.inject("create_vm", Fault::AfterLateCalls);
    world.run_through(one.deploy(), asked_for("create_vm", OF_AN_INSTANCE)).await.done();
    assert_eq!(carry_out(&world), 0, "it has come");
    assert_eq!(expected(&world).len(), 1, "it was remembered when it was looked for in vain");
    assert_eq!(world.read(|state| state.orphaned_vms()), []);
    assert_eq!(world.outside.cloud.cloud().vms.len(), 1);
    world.assert_consistent();
}

#[tokio::test]
async fn who_finds_what_several_calls_made_takes_none_of_it() {
    for nth in [1, OF_AN_INSTANCE] {
        let world = TestWorld::seed().await;
        be_late(&world, "create_vm", nth);
        world.outside.cloud.inject("create_vm", Fault::Late);
        world.gate.arm(Some(asked_for("create_vm", nth)));
        let task = world.queue(Shape::default().deploy());
        assert!(world.stopped_before_end_of(task).await);
        world.depose().await;
        // The second leader has looked in vain, asks again, and dies as well.
        world.gate.arm(Some(asked_for("create_vm", 1)));
        world.lead();
        assert!(world.stopped_before_end_of(task).await);
        world.depose().await;
        assert_eq!(carry_out(&world), 2);
        world.gate.arm(None);
        world.lead();
        world.ended(task).await.done();
        assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
        assert_eq!(world.read(|state| state.orphaned_vms()), []);
        world.assert_consistent();
    }
}

#[tokio::test]
async fn a_disk_that_comes_late_is_an_orphan() {
    let orphaned = async |world: &TestWorld| -> Vec<DiskCid> {
        let look = |state: &state::State<'_>| {
            let cids = state.orphaned_disks().into_iter().filter_map(|orphan| orphan.disk.cid);
            Some(cids.collect::<Vec<_>>()).filter(|cids| !cids.is_empty())
        };
        world.until("the disk is an orphan", look).await
    };
    let world = TestWorld::seed().await;
    be_late(&world, "create_disk", 1);
    world.run(Shape::default().deploy()).await.error();
    assert!(expected(&world)[0].starts_with("disk with disk id"), "{:?}", expected(&world));
    assert_eq!(carry_out(&world), 1);
    assert_eq!(orphaned(&world).await.len(), 1);
    world.assert_consistent();

    let world = TestWorld::seed().await;
    be_late(&world, "create_disk", 1);
    world.run_through(Shape::default().deploy(), asked_for("create_disk", 1)).await.done();
    let before = world.outside.cloud.cloud().disks;
    assert_eq!(carry_out(&world), 1);
    let double = orphaned(&world).await;
    assert!(double.len() == 1 && !before.contains_key(&double[0]), "{double:?}");
    world.assert_consistent();
    let disks = world.read(|state| state.orphaned_disks().into_iter().map(|orphan| orphan.disk.id).collect());
    world.run(TaskKind::DeleteOrphanedDisks { disks }).await.done();
    assert_eq!(world.outside.cloud.cloud().disks, before);
    world.assert_consistent();
}

#[tokio::test]
async fn what_does_not_come_is_not_looked_for_for_ever() {
    let world = TestWorld::seed().await;
    world.depose().await;
    *world.late_calls.lock().unwrap() = Duration::from_millis(100);
    world.lead();
    be_late(&world, "create_vm", 1);
    world.run(Shape::default().deploy()).await.error();
    world.until("nobody looks any more", |state| state.latecomers().is_empty().then_some(())).await;
    assert_eq!((events(&world, "expect"), events(&world, "give_up")), (1, 1));
    assert_eq!(world.read(|state| state.orphaned_vms()), []);
}

#[tokio::test]
async fn while_a_member_is_too_old_to_look_operators_are_told_to() {
    let world = TestWorld::seed().await;
    *world.log.too_old.lock().unwrap() = Some("log:latecomer_put");
    be_late(&world, "create_vm", 1);
    world.run(Shape::default().deploy()).await.error();
    let leaks = world.read(|state| state.leaks());
    assert!(leaks.len() == 1 && leaks[0].what.contains("it may still appear"), "{leaks:?}");
}
