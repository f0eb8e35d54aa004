//! What agents that remember nothing were asked: one leader writes, in steps, and of few requests.

mod common;

use common::*;
use expect_test::expect;
use model::step::StepOutcome;
use model::*;
use state::command::*;
use state::records::AskedStage;

/// A world in which agent `a1` may be asked.
fn world() -> (World, TaskId) {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), delete_vm()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    (world, task)
}

fn running() -> AskedStage {
    AskedStage::Running { agent_task: "t".into() }
}

fn put(request: &str, from: Option<AskedStage>, to: Option<AskedStage>) -> Command {
    Command::AgentAsked { epoch: EPOCH, agent: "a1".into(), request: request.into(), from, to }
}

fn stage(world: &World, request: &str) -> Option<AskedStage> {
    world.state().asked_of_agent(&"a1".into(), &request.into()).map(|asked| asked.stage)
}

#[test]
fn a_request_goes_from_one_stage_to_the_next_and_no_stage_is_overwritten() {
    let (mut world, _) = world();
    world.must(put("r", None, Some(AskedStage::Asked)));
    world.must(put("r", Some(AskedStage::Asked), Some(running())));
    // Whoever comes late with what was so before changes nothing.
    world.must(put("r", None, Some(AskedStage::Asked)));
    world.must(put("r", Some(AskedStage::Asked), None));
    world.must(put("r", Some(AskedStage::Running { agent_task: "other".into() }), Some(AskedStage::Lost)));
    assert_eq!(stage(&world, "r"), Some(running()));
    world.must(put("r", Some(running()), Some(AskedStage::Done { json: "1".into() })));
    assert_eq!(stage(&world, "r"), Some(AskedStage::Done { json: "1".into() }));
    world.must(put("s", None, Some(AskedStage::Asked)));
    world.must(put("s", Some(AskedStage::Asked), None));
    assert_eq!(stage(&world, "s"), None);
}

#[test]
fn neither_an_older_leader_nor_one_who_asks_nobody_writes() {
    let (mut world, _) = world();
    let stale = Command::AgentAsked {
        epoch: Epoch(0),
        agent: "a1".into(),
        request: "r".into(),
        from: None,
        to: Some(AskedStage::Asked),
    };
    expect!["refused: epoch 0 is over: the current one is 1"].assert_eq(&world.say(stale));
    let nobody = Command::AgentAsked {
        epoch: EPOCH,
        agent: "a9".into(),
        request: "r".into(),
        from: None,
        to: Some(AskedStage::Asked),
    };
    expect!["refused: no such agent: a9"].assert_eq(&world.say(nobody));
}

#[test]
fn the_oldest_that_have_ended_make_room_and_those_under_way_stay() {
    let (mut world, _) = world();
    for number in 0..100 {
        let id = format!("r{number:03}");
        world.must(put(&id, None, Some(AskedStage::Asked)));
        if number % 10 != 0 {
            world.must(put(&id, Some(AskedStage::Asked), Some(AskedStage::Failed { words: "no".into() })));
        }
    }
    let kept: Vec<String> =
        (0..100).map(|n| format!("r{n:03}")).filter(|id| stage(&world, id).is_some()).collect();
    assert_eq!(kept.len(), 32);
    let under_way: Vec<&String> =
        kept.iter().filter(|id| stage(&world, id) == Some(AskedStage::Asked)).collect();
    assert_eq!(under_way.len(), 10);
    assert_eq!(kept.last().map(String::as_str), Some("r099"));
}

#[test]
fn they_are_forgotten_with_the_vm() {
    let (mut world, task) = world();
    world.must(put("r", None, Some(AskedStage::Asked)));
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(1, 0, 1, vm_created("vm-1"))],
    });
    assert_eq!(stage(&world, "r"), Some(AskedStage::Asked));
    world.step(task, 1, 1, StepOutcome::Done);
    assert_eq!(stage(&world, "r"), None);
}
