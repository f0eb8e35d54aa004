//! VMs that are made ahead: they wait beside the one that their instance works with, and take its place in one record.

mod common;

use common::*;
use expect_test::expect;
use model::plan::Fate;
use model::step::{Action, StepOutcome, VmRole};
use model::*;
use state::command::*;
use state::query::Which;

fn bind(agent: &str) -> Action {
    Action::BindVm { instance: "i1".into(), agent: agent.into() }
}

fn make_ahead() -> Action {
    Action::CreateVm { instance: "i1".into(), agent: "a2".into(), role: VmRole::Spare }
}

fn elect(instead_of: Option<&str>) -> Action {
    Action::ElectVm { instance: "i1".into(), agent: "a2".into(), instead_of: instead_of.map(AgentId::from) }
}

fn end(world: &mut World, task: TaskId) {
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

fn record(world: &mut World, task: TaskId, index: u32) {
    let records = vec![finished(1, index, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
}

/// An instance at 10.0.0.5, and a task that makes it another VM at 10.0.0.6, which it has made and introduced.
fn with_spare(rest: Vec<Action>) -> (World, TaskId) {
    let mut world = World::new();
    let mut first = plan_of(vec![create_vm(), bind("a1")]);
    first.reservations = vec![reservation("i1", "10.0.0.5")];
    let task = world.planned(first);
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, StepOutcome::Done);
    end(&mut world, task);
    let mut plan = plan_of([vec![make_ahead(), bind("a2")], rest].concat());
    plan.targets = vec![target("i1", Some("10.0.0.6"), Fate::Recreated)];
    plan.reservations = vec![reservation("i1", "10.0.0.6")];
    let task = world.planned(plan);
    world.step(task, 1, 0, vm_created("vm-2"));
    world.step(task, 1, 1, StepOutcome::Done);
    (world, task)
}

fn held(world: &World) -> Vec<String> {
    let holder =
        |orphan: Option<AgentId>| orphan.map_or("the instance".to_owned(), |agent| agent.to_string());
    world.state().addresses().into_iter().map(|a| format!("{} {}", a.ip, holder(a.orphan))).collect()
}

#[test]
fn a_vm_that_is_made_ahead_leaves_the_current_one_in_its_place() {
    let (world, _) = with_spare(Vec::new());
    let state = world.state();
    assert_eq!(state.active_vm(&"i1".into()).unwrap().agent, "a1".into());
    let spare = state.vm(&"a2".into()).unwrap();
    assert_eq!((spare.active, spare.bound, spare.cid), (false, true, Some("vm-2".into())));
    assert_eq!(state.instance(&"i1".into()).unwrap().spec.networks, [network(Some("10.0.0.5"))]);
    assert_eq!(held(&world), ["10.0.0.5 the instance", "10.0.0.6 the instance"]);
}

#[test]
fn an_elected_vm_is_the_instances_and_the_old_one_an_orphan_with_its_addresses() {
    let release = Action::ReleaseAddresses { instance: "i1".into() };
    let (mut world, task) = with_spare(vec![elect(Some("a1")), release]);
    record(&mut world, task, 2);
    record(&mut world, task, 3);
    let state = world.state();
    assert_eq!(state.vms(&"i1".into()).len(), 1);
    assert!(state.vm(&"a2".into()).unwrap().is_current());
    assert_eq!((state.vm(&"a1".into()), state.agent(&"a1".into())), (None, None));
    assert_eq!(state.orphaned_vm(&"a1".into()).unwrap().vm.cid, Some("vm-1".into()));
    // Whoever makes the next VM from the spec takes these, not those of the orphan.
    assert_eq!(state.instance(&"i1".into()).unwrap().spec.networks, [network(Some("10.0.0.6"))]);
    assert_eq!(held(&world), ["10.0.0.5 a1", "10.0.0.6 the instance"]);
    let audit = world.audit();
    let last = audit.lines().last().unwrap();
    expect!["11 orphan vm vm-1"].assert_eq(last);
}

#[test]
fn a_vm_whose_predecessor_was_deleted_is_elected_alone() {
    let (mut world, task) = with_spare(vec![delete_vm(), elect(None)]);
    world.step(task, 1, 2, StepOutcome::Done);
    let events = world.audit().lines().count();
    record(&mut world, task, 3);
    assert!(world.state().vm(&"a2".into()).unwrap().is_current());
    assert_eq!(world.state().orphaned_vms(), []);
    assert_eq!(world.audit().lines().count(), events, "nothing became of any other VM");
}

#[test]
fn nobody_is_elected_who_is_not_there() {
    let (mut world, task) =
        with_spare(vec![Action::DeleteVm { instance: "i1".into(), agent: "a2".into() }, elect(Some("a1"))]);
    world.step(task, 1, 2, StepOutcome::Done);
    let told = show(&world.records(task, vec![finished(1, 3, 1, StepOutcome::Done)]));
    expect!["refused: no such VM of agent: a2"].assert_eq(&told);
    assert!(world.state().vm(&"a1".into()).unwrap().is_current());
    assert_eq!(world.state().orphaned_vms(), []);
}

#[test]
fn a_vm_that_waits_does_not_answer_for_its_instance() {
    let (mut world, task) = with_spare(vec![delete_vm()]);
    world.step(task, 1, 2, StepOutcome::Done);
    end(&mut world, task);
    let health = world.state().health(Which::Ailing).pop().unwrap();
    assert_eq!(health.missing, [InstanceId::from("i1")].into());
}

#[test]
fn only_members_that_know_what_a_spare_is_get_such_a_plan() {
    let level = |action: Action| commit(TaskId(1), plan_of(vec![action])).feature_level();
    assert_eq!((level(create_vm()), level(make_ahead()), level(elect(None))), (1, 2, 2));
}
