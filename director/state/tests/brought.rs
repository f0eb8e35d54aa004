//! What agents bring under names of theirs: found under them, few of them, and not kept longer than their VM by that alone.

mod common;

use common::*;
use expect_test::expect;
use model::step::StepOutcome;
use model::*;
use state::command::*;

/// A world in which agent `a1` has a VM.
fn world() -> (World, TaskId) {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), delete_vm()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    (world, task)
}

fn bring(world: &mut World, name: &str, blob: &str) {
    world.must(Command::BlobHeld { digest: blob.into(), size_bytes: 3, nodes: vec![NodeId(1)] });
    world.must(Command::AgentBrought { agent: "a1".into(), name: name.into(), brought: brought(blob) });
}

fn found(world: &World, agent: &str, name: &str) -> Option<String> {
    let row = world.state().brought_by_agent(&agent.into(), name);
    row.map(|row| row.brought.blob.to_string())
}

#[test]
fn what_an_agent_brings_is_found_under_its_name_and_the_last_one_counts() {
    let (mut world, _) = world();
    bring(&mut world, "compile", "b1");
    assert_eq!(found(&world, "a1", "compile").as_deref(), Some("b1"));
    assert_eq!((found(&world, "a1", "other"), found(&world, "a2", "compile")), (None, None));
    bring(&mut world, "compile", "b1");
    assert!(!world.state().is_forgettable(&"b1".into()));
    bring(&mut world, "compile", "b2");
    assert_eq!(found(&world, "a1", "compile").as_deref(), Some("b2"));
    assert!(world.state().is_forgettable(&"b1".into()), "nobody will ask for it");
    let nobody = Command::AgentBrought { agent: "a9".into(), name: "n".into(), brought: brought("b1") };
    expect!["refused: no such agent: a9"].assert_eq(&world.say(nobody));
}

#[test]
fn only_the_last_few_are_remembered() {
    let (mut world, _) = world();
    for number in 0..40 {
        bring(&mut world, &format!("n{number:02}"), &format!("b{number:02}"));
    }
    let kept: Vec<u32> = (0..40).filter(|n| found(&world, "a1", &format!("n{n:02}")).is_some()).collect();
    assert_eq!(kept, (8..40).collect::<Vec<u32>>());
    assert!(world.state().is_forgettable(&"b07".into()) && !world.state().is_forgettable(&"b08".into()));
}

#[test]
fn it_goes_with_the_vm_unless_something_else_names_it() {
    let (mut world, task) = world();
    bring(&mut world, "compile", "b1");
    let records = vec![finished(1, 0, 1, vm_created("vm-1"))];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    assert_eq!(found(&world, "a1", "compile").as_deref(), Some("b1"));
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(found(&world, "a1", "compile"), None);
    assert!(world.state().is_forgettable(&"b1".into()));
}
