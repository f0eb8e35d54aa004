//! What may still appear in a cloud: remembered, looked for, filed once it is there; and every refusal.

mod common;

use common::*;
use expect_test::expect;
use model::instance::Vm;
use model::step::Action;
use model::*;
use state::command::*;
use state::records::{Orphan, Sought};

fn vm() -> Sought {
    Sought::Vm("a1".into())
}

fn disk() -> Sought {
    Sought::Disk("d1".into())
}

fn put(task: TaskId, sought: Sought) -> Command {
    Command::LatecomerPut { task, epoch: EPOCH, sought, look_for_ms: 60_000 }
}

fn looked(sought: Sought, found: &[&str], left_ms: (u64, u64)) -> Command {
    let found = found.iter().map(|cid| (*cid).to_owned()).collect();
    Command::LatecomerLooked { epoch: EPOCH, sought, found, left_ms }
}

/// A task whose VM and disk are about to be created, and may still appear.
fn expecting() -> (World, TaskId) {
    let mut world = World::new();
    let mut plan = plan_of(vec![create_vm(), delete_vm()]);
    plan.phases[0].stages[0].waves[0].units.push(unit(2, "disk", vec![create_disk("d1")]));
    let task = world.planned(plan);
    for unit in [1, 2] {
        world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(unit, 0, 1)] });
    }
    world.must(put(task, vm()));
    world.must(put(task, disk()));
    (world, task)
}

/// Returns the orphaned VMs: by which agent's id they are filed, and what the cloud calls them.
fn orphans(world: &World) -> Vec<(String, Option<String>)> {
    let shown = |vm: Vm| (vm.agent.to_string(), vm.cid.map(|cid| cid.to_string()));
    world.state().orphaned_vms().into_iter().map(|orphan| shown(orphan.vm)).collect()
}

fn orphan(agent: &str, cid: &str) -> (String, Option<String>) {
    (agent.to_owned(), Some(cid.to_owned()))
}

fn left(world: &World, sought: &Sought) -> Option<u64> {
    world.state().latecomer(sought).map(|row| row.left_ms)
}

#[test]
fn what_may_appear_is_listed_with_whose_it_would_be() {
    let (world, task) = expecting();
    let rows = world.state().latecomers();
    let listed: Vec<String> = rows.iter().map(|row| row.as_leak().what).collect();
    expect![[r#"
        [
            "VM with agent id a1 of 'api/i1' may still appear: the call that was to create it was not answered. The director looks for it",
            "disk with disk id d1 of 'api/i1' may still appear: the call that was to create it was not answered. The director looks for it",
        ]
    "#]]
    .assert_debug_eq(&listed);
    assert!(rows.iter().all(|row| row.left_ms == 60_000 && row.task == task && *row.cpi() == "".into()));
    assert!(matches!(&rows[0].orphan, Orphan::Vm(orphan) if orphan.deployment == "web".into()));
    assert_eq!(world.state().leaks(), []);
}

#[test]
fn nobody_is_expected_for_a_task_or_an_epoch_that_is_over_or_under_an_unknown_id() {
    let (mut world, task) = expecting();
    let unknown = [Sought::Vm("a9".into()), Sought::Disk("d9".into())];
    let [vm_said, disk_said] = unknown.map(|sought| world.say(put(task, sought)));
    expect!["refused: no such VM of agent: a9"].assert_eq(&vm_said);
    expect!["refused: no such disk: d9"].assert_eq(&disk_said);
    expect!["refused: no such latecomer: vm/a9"].assert_eq(&world.say(looked(
        Sought::Vm("a9".into()),
        &[],
        (1, 0),
    )));
    let old = Epoch(0);
    let stale = Command::LatecomerPut { task, epoch: old, sought: vm(), look_for_ms: 1 };
    expect!["refused: epoch 0 is over: the current one is 1"].assert_eq(&world.say(stale));
    let stale = Command::LatecomerLooked { epoch: old, sought: vm(), found: vec![], left_ms: (60_000, 0) };
    expect!["refused: epoch 0 is over: the current one is 1"].assert_eq(&world.say(stale));
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Cancelled });
    assert!(world.say(put(task, vm())).contains("cancelled"));
}

#[test]
fn what_appears_after_its_step_failed_is_an_orphan_once() {
    let (mut world, task) = expecting();
    let records = vec![finished(1, 0, 1, failed("no answer"))];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    for left_ms in [(60_000, 50_000), (50_000, 40_000)] {
        world.must(looked(vm(), &["vm-1"], left_ms));
    }
    assert_eq!(orphans(&world), [orphan("a1", "vm-1")]);
    assert_eq!(left(&world, &vm()), Some(40_000));
    // It is deleted, and one more comes.
    world.must(looked(vm(), &["vm-1", "vm-2"], (40_000, 0)));
    assert_eq!(orphans(&world), [orphan("a1", "vm-1"), orphan("a1.vm-2", "vm-2")]);
    assert_eq!(left(&world, &vm()), None);
    assert_eq!(world.state().agent(&"a1".into()), None);
}

#[test]
fn what_a_step_may_be_about_to_learn_is_left_to_it() {
    let (mut world, task) = expecting();
    world.must(looked(vm(), &["vm-1"], (60_000, 50_000)));
    world.must(looked(disk(), &["disk-1"], (60_000, 50_000)));
    assert_eq!((orphans(&world), world.state().orphaned_disks()), (vec![], vec![]));
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(1, 0, 1, vm_created("vm-1")), finished(2, 0, 1, disk_created("disk-1"))],
    });
    world.must(looked(vm(), &["vm-1", "vm-1-late"], (50_000, 40_000)));
    world.must(looked(disk(), &["disk-1-late", "disk-1"], (50_000, 40_000)));
    assert_eq!(orphans(&world), [orphan("a1.vm-1-late", "vm-1-late")]);
    assert_eq!(world.state().active_vm(&"i1".into()).unwrap().cid, Some("vm-1".into()));
    let disks = world.state().orphaned_disks();
    assert_eq!((disks.len(), disks[0].disk.cid.clone()), (1, Some("disk-1-late".into())));
    assert_eq!(world.state().disk(&"d1".into()).unwrap().cid, Some("disk-1".into()));
}

#[test]
fn an_orphan_that_was_never_seen_is_the_one_that_appears() {
    let mut world = World::new();
    let orphan_it = Action::OrphanVm { instance: "i1".into(), agent: "a1".into() };
    let mut plan = plan_of(vec![create_vm()]);
    plan.phases[0].stages[0].waves[0].units.push(unit(2, "end", vec![orphan_it]));
    let task = world.planned(plan);
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    world.step(task, 2, 0, model::step::StepOutcome::Done);
    assert_eq!(orphans(&world), [("a1".to_owned(), None)]);
    world.must(put(task, vm()));
    world.must(looked(vm(), &["vm-1"], (60_000, 50_000)));
    assert_eq!(orphans(&world), [orphan("a1", "vm-1")]);
}

#[test]
fn another_call_that_is_not_answered_begins_the_time_anew() {
    let (mut world, task) = expecting();
    world.must(looked(vm(), &[], (60_000, 20_000)));
    world.must(put(task, vm()));
    assert_eq!(left(&world, &vm()), Some(60_000));
    // A look that began before that knows nothing of it; nor does its repeat.
    for _ in 0..2 {
        world.must(looked(vm(), &[], (20_000, 0)));
    }
    assert_eq!(left(&world, &vm()), Some(60_000));
    world.must(looked(vm(), &[], (60_000, 0)));
    expect!["refused: no such latecomer: vm/a1"].assert_eq(&world.say(looked(vm(), &[], (60_000, 0))));
}

#[test]
fn an_operator_may_strike_it_off_the_list() {
    let (mut world, _) = expecting();
    let id = world.state().latecomer(&vm()).unwrap().id;
    world.must(Command::LeakClear { id });
    assert_eq!(left(&world, &vm()), None);
    assert!(world.say(Command::LeakClear { id }).starts_with("refused: no such leak"));
    world.must(looked(disk(), &[], (60_000, 0)));
    let audit = world.audit();
    let told: Vec<&str> = audit.lines().filter(|line| line.contains(" with ")).collect();
    expect![[r#"
        [
            "5 expect vm VM with agent id a1",
            "6 expect disk disk with disk id d1",
            "7 <- 5 clear vm VM with agent id a1",
            "8 <- 6 give_up disk disk with disk id d1",
        ]
    "#]]
    .assert_debug_eq(&told);
}
