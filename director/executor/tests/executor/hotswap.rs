//! Hotswap: VMs are made ahead and swapped in their instances' turns, and whatever breaks a deploy off leaves none that
//! nobody knows, and no address that two have.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use agent_api::fake::Behaviour;
use cpi_api::CpiErrorKind;
use cpi_api::fake::Fault;
use model::instance::{Instance, Vm};
use model::task::{DeployOptions, TaskKind, TaskState};
use model::{DeploymentName, InstanceId};
use serde_json::Value;
use state::command::Command;

use crate::artifacts::Shape;
use crate::summary::summary;
use crate::world::TestWorld;

fn recreate() -> TaskKind {
    Shape::swapped().deploy_with(DeployOptions { recreate: true, ..DeployOptions::default() })
}

async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::swapped().deploy()).await.done();
    world
}

/// Returns the web instances, in the order in which they take turns.
fn web(world: &TestWorld) -> Vec<Instance> {
    let instances = world.read(|state| state.instances(&DeploymentName::new("p"))).into_iter();
    let mut web: Vec<Instance> = instances.filter(|i| i.spec.group.as_str() == "web").collect();
    web.sort_by_key(|i| !i.spec.bootstrap);
    web
}

fn vms(world: &TestWorld, instance: &InstanceId) -> Vec<Vm> {
    world.read(|state| state.vms(instance))
}

/// Returns the VM that waits for an instance.
fn spare(world: &TestWorld, instance: &InstanceId) -> Vm {
    vms(world, instance).into_iter().find(|vm| !vm.active).expect("a VM that waits")
}

/// A deploy that gives everybody a new VM has failed in the turn of the first: the VM of the second stands ready.
async fn broken_off() -> TestWorld {
    let world = deployed().await;
    world.fail_at("watch", recreate()).await;
    let web = web(&world);
    assert_eq!((vms(&world, &web[0].spec.id).len(), vms(&world, &web[1].spec.id).len()), (1, 2));
    assert_eq!(world.read(|state| state.orphaned_vms()).len(), 1);
    world
}

/// Fails unless everybody is up, once the orphans are deleted with nothing but their VMs and addresses.
async fn assert_up(world: &TestWorld) {
    world.assert_consistent();
    let orphans = world.read(|state| state.orphaned_vms()).into_iter().flat_map(|orphan| orphan.vm.networks);
    let of_orphans: BTreeSet<IpAddr> = orphans.filter_map(|network| network.ip).collect();
    for instance in web(world) {
        let vms = vms(world, &instance.spec.id);
        assert!(vms.len() == 1 && vms[0].is_current(), "{vms:?}");
        assert_eq!(vms[0].networks, instance.spec.networks, "the spec tells where the VM is");
        let taken = instance.spec.networks.iter().filter_map(|n| n.ip).find(|ip| of_orphans.contains(ip));
        assert_eq!(taken, None, "an orphan has it");
    }
    world.run(world.deletion_of_workers()).await.done();
    let up = summary(world);
    assert!(up.contains("web/0 Started clean") && up.contains("web/1 Started clean"), "{up}");
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "{up}");
    let held = world.read(|state| state.addresses());
    assert_eq!(held.iter().filter(|held| held.slug.starts_with("web/")).count(), 2, "{up}");
    world.assert_consistent();
}

#[tokio::test]
async fn vms_are_made_ahead_and_the_old_ones_become_orphans() {
    let world = deployed().await;
    let before: Vec<Vm> = web(&world).iter().flat_map(|i| vms(&world, &i.spec.id)).collect();
    let ended = world.run(recreate()).await.done();
    let stages: Vec<&str> =
        ["Creating missing vms", "Downloading packages", "Updating instance"].into_iter().collect();
    let starts: Vec<usize> = stages.iter().map(|stage| ended.events.find(stage).unwrap()).collect();
    assert!(starts.is_sorted(), "{}", ended.events);
    let orphans = world.read(|state| state.orphaned_vms());
    let left: BTreeSet<_> = orphans.iter().map(|orphan| orphan.vm.agent.clone()).collect();
    assert_eq!(left, before.iter().map(|vm| vm.agent.clone()).collect());
    for (instance, old) in web(&world).iter().zip(&before) {
        let disks = world.read(|state| state.disks(&instance.spec.id));
        let vm = vms(&world, &instance.spec.id).remove(0);
        let cloud = world.outside.cloud.cloud();
        let attached: Vec<_> =
            cloud.disks[disks[0].cid.as_ref().unwrap()].attached_to.iter().cloned().collect();
        assert_eq!(attached, [vm.cid.unwrap()]);
        assert_eq!(world.outside.agents.mounted(&old.agent).len(), 0, "it was taken from the old VM first");
        assert_eq!(world.outside.agents.mounted(&vm.agent).len(), 1);
        let deeds = world.outside.deeds();
        let of_old = deeds.iter().filter(|(agent, _)| *agent == old.agent);
        let told: Vec<&str> = of_old.map(|(_, deed)| deed.method.name()).collect();
        assert!(told.ends_with(&["remove_persistent_disk", "shutdown"]), "{told:?}");
        let told = world.outside.agents.deeds(&vm.agent);
        assert!(told.iter().all(|deed| deed.method.name() != "shutdown"), "{told:?}");
    }
    assert_up(&world).await;
}

#[tokio::test]
async fn a_vm_that_could_not_be_made_costs_nobody_the_one_that_works() {
    let world = deployed().await;
    let before = summary(&world);
    world.outside.cloud.inject("create_vm", Fault::Fail(CpiErrorKind::Other));
    world.run(recreate()).await.error();
    for instance in web(&world) {
        assert!(instance.update_completed, "nobody's turn had come");
        assert!(vms(&world, &instance.spec.id).iter().any(Vm::is_current));
    }
    world.assert_consistent();
    let made = world.outside.vms_ever();
    let waiting = web(&world).iter().filter(|i| vms(&world, &i.spec.id).len() == 2).count();
    world.run(recreate()).await.done();
    assert_eq!(world.outside.vms_ever() - made, 2 - waiting, "what stood ready was used: {before}");
    assert_up(&world).await;
}

#[tokio::test]
async fn a_vm_that_stands_ready_is_used_by_the_next_deploy() {
    let world = broken_off().await;
    let second = web(&world)[1].spec.id.clone();
    let (ready, made) = (spare(&world, &second), world.outside.vms_ever());
    world.run(Shape::swapped().deploy()).await.done();
    assert_eq!(vms(&world, &second)[0].agent, ready.agent);
    assert_eq!(world.outside.vms_ever(), made);
    assert_up(&world).await;
}

#[tokio::test]
async fn a_vm_that_nobody_needs_any_more_becomes_an_orphan() {
    let other = Shape { vm_type: "large", ..Shape::swapped() };
    for shape in [Shape::default(), other] {
        let world = broken_off().await;
        let ready = spare(&world, &web(&world)[1].spec.id);
        world.run(shape.deploy()).await.done();
        let orphans = world.read(|state| state.orphaned_vms());
        assert!(orphans.iter().any(|orphan| orphan.vm.agent == ready.agent), "{shape:?}");
        assert_up(&world).await;
    }
}

#[tokio::test]
async fn a_vm_that_died_while_it_waited_takes_nobodys_place() {
    let world = broken_off().await;
    let second = web(&world)[1].spec.id.clone();
    let ready = spare(&world, &second);
    world.destroy_vm(ready.cid.clone().unwrap());
    world.run(recreate()).await.done();
    assert_ne!(vms(&world, &second)[0].agent, ready.agent);
    // The cloud says of it that it is gone, which is as good as deleted.
    world.run(world.deletion_of_workers()).await.done();
    assert_up(&world).await;
}

#[tokio::test]
async fn an_instance_whose_vm_dies_while_another_one_waits_is_revived_with_one() {
    let world = broken_off().await;
    let second = web(&world)[1].spec.id.clone();
    let current = vms(&world, &second).into_iter().find(Vm::is_current).unwrap();
    world.destroy_vm(current.cid.unwrap());
    world.run(TaskKind::ScanAndFix { instances: vec![second.clone()], unknown: Vec::new() }).await.done();
    assert_eq!(vms(&world, &second).len(), 1);
    world.run(Shape::swapped().deploy()).await.done();
    assert_up(&world).await;
}

#[tokio::test]
async fn a_vm_that_dies_right_after_its_election_is_revived_away_from_the_orphans_address() {
    let world = deployed().await;
    world.fail_at("attach_disk", recreate()).await;
    let first = web(&world)[0].spec.id.clone();
    let elected = vms(&world, &first).remove(0);
    assert!(elected.is_current());
    world.destroy_vm(elected.cid.unwrap());
    world.run(TaskKind::ScanAndFix { instances: vec![first], unknown: Vec::new() }).await.done();
    world.run(Shape::swapped().deploy()).await.done();
    assert_up(&world).await;
}

#[tokio::test]
async fn a_dead_vm_is_deleted_outright_when_its_successor_stands_ready() {
    let world = deployed().await;
    world.kill_a_vm();
    let fix = DeployOptions { fix: true, ..DeployOptions::default() };
    world.run(Shape::swapped().deploy_with(fix)).await.done();
    assert!(world.read(|state| state.orphaned_vms()).is_empty());
    assert_up(&world).await;
}

#[tokio::test]
async fn a_swap_is_given_up_while_a_new_vm_is_waited_for() {
    let world = deployed().await;
    world.depose().await;
    *world.agent_wait.lock().unwrap() = Duration::from_secs(600);
    world.lead();
    world.outside.behave("ping", Behaviour::Fail("restarting agent".into()));
    let task = world.queue(recreate());
    world.until_open(task, "await_agent").await;
    world.apply(Command::TaskCancel { task });
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);
    assert!(web(&world).iter().all(|instance| instance.update_completed));
    world.outside.behave_as_usual();
    world.run(Shape::swapped().deploy()).await.done();
    assert_up(&world).await;
}

#[tokio::test]
async fn a_swap_is_given_up_in_the_turn_of_an_instance() {
    let world = deployed().await;
    world.outside.behave("drain", Behaviour::Hang { then: Value::Null });
    let task = world.queue(recreate());
    world.until_open(task, "drain").await;
    world.apply(Command::TaskCancel { task });
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);
    assert!(web(&world).iter().all(|instance| vms(&world, &instance.spec.id).len() == 2));
    world.assert_consistent();
    world.outside.behave_as_usual();
    let made = world.outside.vms_ever();
    world.run(Shape::swapped().deploy()).await.done();
    assert_eq!(world.outside.vms_ever(), made, "both stood ready");
    assert_up(&world).await;
}

#[tokio::test]
async fn a_deployment_is_deleted_with_the_vms_that_wait() {
    let world = broken_off().await;
    world.run(TaskKind::DeleteDeployment { force: false }).await.done();
    world.run(world.deletion_of_workers()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 0);
    assert_eq!(world.read(|state| state.addresses()), []);
    world.assert_consistent();
}
