//! Networks that directors make: filed before a cloud is asked, orphaned with their last deployment, deleted when nobody uses
//! them.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::*;
use model::managed_network::ManagedNetwork;
use model::step::{Action, StepOutcome};
use model::task::TaskKind;
use model::*;
use state::command::*;
use state::query::EventFilter;
use state::records::Setting;

/// A deploy that uses these networks when it has succeeded, and the task that is at it.
fn deploying_with(world: &mut World, networks: &[&str]) -> TaskId {
    let mut plan = plan_of(vec![Action::SaveDeployment]);
    plan.targets.clear();
    plan.reservations.clear();
    plan.record.as_mut().unwrap().managed_networks = networks.iter().map(|name| (*name).into()).collect();
    world.planned(plan)
}

fn end(world: &mut World, task: TaskId) {
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

/// A world in which directors make networks.
fn making() -> World {
    let mut world = World::new();
    world.must(Command::SettingPut { setting: Setting::ManagedNetworks(true) });
    world
}

/// A deploy that has made a network and used it.
fn used() -> World {
    let mut world = making();
    let task = deploying_with(&mut world, &["a"]);
    world.must(network_take(task, "a", &["s", "t"]));
    world.must(subnet_put(task, "a", "s", Some("net-1")));
    world.must(subnet_put(task, "a", "t", Some("net-2")));
    world.step(task, 1, 0, StepOutcome::Done);
    end(&mut world, task);
    world
}

/// The world after a deploy that does not use it any more.
fn orphaned() -> World {
    let mut world = used();
    let task = deploying_with(&mut world, &[]);
    world.step(task, 1, 0, StepOutcome::Done);
    end(&mut world, task);
    world
}

fn working(world: &mut World, kind: TaskKind) -> TaskId {
    let task = world.queue(kind, &[]);
    world.must(Command::TaskTake { task, epoch: EPOCH });
    task
}

fn deletion(world: &mut World) -> TaskId {
    working(world, TaskKind::DeleteOrphanedNetworks { networks: vec!["a".into()] })
}

fn retire(task: TaskId) -> Command {
    Command::NetworkRetire { task, epoch: EPOCH, network: "a".into() }
}

fn shown(world: &World) -> Vec<String> {
    let subnet = |s: &managed_network::ManagedSubnet| {
        format!("{}={}", s.name, s.made.as_ref().map_or("?", |made| made.cid.as_str()))
    };
    let network = |n: ManagedNetwork| {
        let subnets: Vec<String> = n.subnets.iter().map(subnet).collect();
        let users: Vec<&str> = n.deployments.iter().map(DeploymentName::as_str).collect();
        let orphaned = if n.orphaned_at.is_some() { " orphaned" } else { "" };
        format!("{} [{}] of {}{orphaned}", n.name, subnets.join(" "), users.join(","))
    };
    world.state().networks().into_iter().map(network).collect()
}

fn audit_of(world: &World, object_type: &str) -> Vec<String> {
    let filter = EventFilter { object_type: Some(object_type.into()), ..EventFilter::default() };
    let mut events = world.state().events(&filter, None, usize::MAX);
    events.reverse();
    events.into_iter().map(|e| format!("{} {}", e.action, e.object_name.unwrap_or_default())).collect()
}

#[test]
fn a_subnet_is_filed_before_it_is_made() {
    let mut world = making();
    let task = world.deploying();
    world.must(network_take(task, "a", &["s"]));
    assert_eq!(shown(&world), ["a [s=?] of web"]);
    world.must(network_take(task, "a", &["s", "t"]));
    world.must(subnet_put(task, "a", "s", Some("net-1")));
    world.must(subnet_put(task, "a", "s", Some("net-1")));
    world.must(subnet_put(task, "a", "t", None));
    world.must(subnet_put(task, "a", "t", None));
    assert_eq!(shown(&world), ["a [s=net-1] of web"], "the second one could not be made");
    assert_eq!(world.say(subnet_put(task, "a", "u", Some("net-3"))), "refused: no such subnet: id-u");
    assert_eq!(world.say(subnet_put(task, "b", "s", Some("net-3"))), "refused: no such network: b");
    assert_eq!(audit_of(&world, "network"), ["create a"]);
    assert_eq!(audit_of(&world, "subnet"), ["create a/s"]);
}

#[test]
fn only_a_deployment_s_task_takes_a_network() {
    let mut world = making();
    let (other, old) = (working(&mut world, TaskKind::ScanCloud), Epoch(0));
    assert!(world.say(network_take(other, "a", &[])).contains("only deployments use networks"));
    let task = world.deploying();
    let late = match network_take(task, "a", &[]) {
        Command::NetworkTake { task, network, subnets, .. } => {
            Command::NetworkTake { task, epoch: old, network, subnets }
        }
        other => other,
    };
    assert!(world.say(late).contains("epoch 0 is over"));
    end(&mut world, task);
    assert!(world.say(network_take(task, "a", &[])).contains("is done"));
}

#[test]
fn a_network_is_orphaned_with_the_deploy_that_does_without_it_and_taken_back() {
    assert_eq!(shown(&used()), ["a [s=net-1 t=net-2] of web"]);
    let mut world = orphaned();
    assert_eq!(shown(&world), ["a [s=net-1 t=net-2] of  orphaned"]);
    let task = world.deploying();
    world.must(network_take(task, "a", &["s", "t"]));
    assert_eq!(shown(&world), ["a [s=net-1 t=net-2] of web"], "nothing is made anew");
    assert_eq!(audit_of(&world, "network"), ["create a", "orphan a", "unorphan a"]);
    assert_eq!(audit_of(&world, "subnet"), ["create a/s", "create a/t", "orphan a/s", "orphan a/t"]);
}

#[test]
fn a_network_is_orphaned_with_its_deployment() {
    let mut world = used();
    let task = working_on(&mut world, TaskKind::DeleteDeployment { force: false });
    let generation = world.state().deployment(&"web".into()).unwrap().generation;
    let mut plan =
        plan(Vec::new(), Vec::new(), vec![stage(None, vec![unit(1, "u", vec![Action::DeleteDeployment])])]);
    plan.record = None;
    world.must(commit(task, model::plan::Plan { generation, ..plan }));
    world.step(task, 1, 0, StepOutcome::Done);
    assert_eq!(shown(&world), ["a [s=net-1 t=net-2] of  orphaned"]);
}

fn working_on(world: &mut World, kind: TaskKind) -> TaskId {
    let queue = Command::TaskQueue {
        kind,
        deployment: Some("web".into()),
        context_id: String::new(),
        locks: Vec::new(),
    };
    let Outcome::TaskQueued(task) = world.must(queue) else { panic!("not queued") };
    world.must(Command::TaskTake { task, epoch: EPOCH });
    task
}

#[test]
fn an_orphaned_network_is_retired_and_goes_with_its_last_subnet() {
    let mut world = orphaned();
    let task = deletion(&mut world);
    world.must(retire(task));
    world.must(retire(task));
    let deploy = world.deploying();
    let refused = world.say(network_take(deploy, "a", &["s"]));
    assert!(refused.contains(&format!("network a is in use by task {task}")), "{refused}");
    world.must(subnet_put(task, "a", "s", None));
    assert_eq!(shown(&world), ["a [t=net-2] of  orphaned"]);
    world.must(subnet_put(task, "a", "t", None));
    world.must(subnet_put(task, "a", "t", None));
    assert_eq!(shown(&world), [] as [&str; 0]);
    assert_eq!(world.say(retire(task)), "refused: no such network: a");
    assert_eq!(audit_of(&world, "network"), ["create a", "orphan a", "delete a"]);
    world.must(network_take(deploy, "a", &["s"]));
}

#[test]
fn a_deletion_that_was_broken_off_is_ended_before_the_network_is_used() {
    let mut world = orphaned();
    let task = deletion(&mut world);
    world.must(retire(task));
    let error = model::task::TaskError::plain("the cloud refuses");
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Error(error) });
    let deploy = world.deploying();
    assert!(world.say(network_take(deploy, "a", &["s"])).contains("its deletion was begun"));
    world.must(retire(deploy));
    world.must(subnet_put(deploy, "a", "s", None));
    world.must(subnet_put(deploy, "a", "t", None));
    world.must(network_take(deploy, "a", &["s"]));
    assert_eq!(shown(&world), ["a [s=?] of web"]);
}

#[test]
fn what_is_used_is_not_retired() {
    let mut world = used();
    let task = deletion(&mut world);
    assert!(world.say(retire(task)).contains("network a is in use by deployment web"));
    // The word `managed` was taken away, and the instance has its address still.
    let mut world = orphaned();
    let mut plan = plan_of(Vec::new());
    plan.reservations = vec![reservation("i1", "10.0.0.9")];
    plan.reservations[0].network = "a".into();
    world.planned(plan);
    let task = deletion(&mut world);
    assert!(world.say(retire(task)).contains("with address 10.0.0.9"));
}

#[test]
fn two_tasks_do_not_make_one_subnet() {
    let mut world = making();
    let first = world.deploying();
    world.must(network_take(first, "a", &["s"]));
    let queue = Command::TaskQueue {
        kind: deploy(),
        deployment: Some("db".into()),
        context_id: String::new(),
        locks: Vec::new(),
    };
    let Outcome::TaskQueued(second) = world.must(queue) else { panic!("not queued") };
    world.must(Command::TaskTake { task: second, epoch: EPOCH });
    let refused = world.say(network_take(second, "a", &["s"]));
    assert!(refused.contains(&format!("in use by task {first}")), "{refused}");
    // It was lost with its leader's call: the next one finds that it may be there.
    end(&mut world, first);
    world.must(network_take(second, "a", &["s"]));
    assert_eq!(shown(&world), ["a [s=?] of db,web"]);
}

#[test]
fn networks_are_not_forgotten_by_switching_them_off() {
    let mut world = used();
    let put = |on| Command::SettingPut { setting: Setting::ManagedNetworks(on) };
    assert!(world.state().makes_networks());
    assert!(world.say(put(false)).contains("managed network a is in use by deployment web"));
    assert!(world.state().makes_networks());
    let mut world = orphaned();
    world.must(put(false));
    assert!(!world.state().makes_networks());
    let task = world.deploying();
    assert!(world.say(network_take(task, "a", &["s"])).contains("directors make none"));
    assert_eq!(audit_of(&world, "managed_networks"), ["enable all", "disable all"]);
}
