//! Step records: the journal's rules and the lines that tell of it. (What each step changes: `deeds.rs`.)

mod common;

use common::*;
use expect_test::{Expect, expect};
use model::plan::{OnFailure, Progress, Step};
use model::step::{Action, DrainKind, StepOutcome};
use model::*;
use state::command::*;
use state::records::*;

/// Records events of the only unit's steps one by one, and shows the answers.
#[track_caller]
fn check(actions: Vec<Action>, records: Vec<StepRecord>, answers: Expect) -> World {
    let mut world = World::new();
    let task = world.planned(plan_of(actions));
    let say = |record| show(&world.records(task, vec![record])) + "\n";
    let text: String = records.into_iter().map(say).collect();
    answers.assert_eq(&text);
    world
}

#[test]
fn records_need_a_task_with_a_plan() {
    let mut world = World::new();
    let answer = |outcome| show(&outcome);
    expect!["refused: no such task: 9"].assert_eq(&answer(world.records(TaskId(9), Vec::new())));
    let task = world.deploying();
    expect!["refused: task 1 is not planned yet"].assert_eq(&answer(world.records(task, Vec::new())));
    world.must(commit(task, plan_of(vec![watch()])));
    expect!["refused: no such unit: 7 of task 1"]
        .assert_eq(&answer(world.records(task, vec![started(7, 0, 1)])));
    expect!["refused: no such step: 1.5 of task 1"]
        .assert_eq(&answer(world.records(task, vec![started(1, 5, 1)])));
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    expect!["refused: task 1 is done"].assert_eq(&answer(world.records(task, vec![started(1, 0, 1)])));
}

#[test]
fn intent_comes_before_outcome_and_repeats_change_nothing() {
    check(
        vec![watch(), watch()],
        vec![
            finished(1, 0, 1, StepOutcome::Done),
            started(1, 1, 1),
            started(1, 0, 2),
            started(1, 0, 1),
            started(1, 0, 1),
            finished(1, 0, 2, StepOutcome::Done),
            finished(1, 0, 1, StepOutcome::Done),
            finished(1, 0, 1, failed("late")),
            started(1, 0, 1),
            started(1, 0, 2),
        ],
        expect![[r#"
            refused: step 1.0 is not begun as attempt 1, which does not go with this record
            refused: step 1.1 is not the next step, which is 0, which does not go with this record
            refused: step 1.0 is at attempt 0, which does not go with this record
            Done
            Done
            refused: step 1.0 is not begun as attempt 2, which does not go with this record
            Done
            Done
            Done
            refused: step 1.0 is not the next step, which is 1, which does not go with this record
        "#]],
    );
}

#[test]
fn a_retried_attempt_has_no_outcome_any_more() {
    let retrying = |attempt| journal(1, 0, attempt, StepEvent::Retrying("timeout".into()));
    let world = check(
        vec![watch()],
        vec![
            retrying(1),
            started(1, 0, 1),
            retrying(1),
            retrying(1),
            finished(1, 0, 1, StepOutcome::Done),
            started(1, 0, 2),
            retrying(1),
            finished(1, 0, 2, StepOutcome::Done),
        ],
        expect![[r#"
            refused: step 1.0 is not begun as attempt 1, which does not go with this record
            Done
            Done
            Done
            refused: step 1.0 is not begun as attempt 1, which does not go with this record
            Done
            refused: step 1.0 is not begun as attempt 1, which does not go with this record
            Done
        "#]],
    );
    assert_eq!(world.state().step_state(TaskId(1), step_no(1, 0)).attempts, 2);
}

#[test]
fn a_failed_or_skipped_unit_takes_no_more_records() {
    let skip = || journal(1, 0, 1, StepEvent::Skipped);
    check(
        vec![watch(), watch()],
        vec![started(1, 0, 1), skip(), finished(1, 0, 1, failed("no")), started(1, 1, 1), skip()],
        expect![[r#"
            Done
            refused: step 1.0 is begun and not ended, which does not go with this record
            Done
            refused: step 1.1 is in a unit that failed, which does not go with this record
            refused: step 1.0 is in a unit that failed, which does not go with this record
        "#]],
    );
    check(
        vec![watch()],
        vec![skip(), skip(), started(1, 0, 1)],
        expect![[r#"
            Done
            Done
            refused: step 1.0 is in a unit that was skipped, which does not go with this record
        "#]],
    );
    check(
        vec![watch()],
        vec![started(1, 0, 1), finished(1, 0, 1, StepOutcome::Done), started(1, 0, 2)],
        expect![[r#"
            Done
            Done
            refused: step 1.0 is in a unit that is done, which does not go with this record
        "#]],
    );
}

#[test]
fn a_new_leader_adopts_an_open_step_or_begins_another_attempt() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![watch(), watch()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    world.must(Command::LeaderBegin { node: NodeId(2), epoch: Epoch(2) });
    let mut send = |epoch, record| {
        show(&world.ask(Command::StepRecords { task, epoch: Epoch(epoch), records: vec![record] }))
    };
    expect!["refused: epoch 1 is over: the current one is 2"]
        .assert_eq(&send(1, finished(1, 0, 1, StepOutcome::Done)));
    assert_eq!(send(2, started(1, 0, 1)), "Done");
    assert_eq!(send(2, finished(1, 0, 1, StepOutcome::Done)), "Done");
    assert_eq!(send(2, started(1, 1, 1)), "Done");
    assert_eq!(send(2, started(1, 1, 2)), "Done");
    expect!["refused: step 1.1 is not begun as attempt 1, which does not go with this record"]
        .assert_eq(&send(2, finished(1, 1, 1, StepOutcome::Done)));
    assert_eq!(send(2, finished(1, 1, 2, StepOutcome::Done)), "Done");
    // The lines tell of each unit once, whoever did it.
    assert_eq!(world.events(task).lines().count(), 2);
}

#[test]
fn an_adopted_step_may_end_without_being_begun_again() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![watch()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    world.must(Command::LeaderBegin { node: NodeId(2), epoch: Epoch(2) });
    let records = vec![finished(1, 0, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: Epoch(2), records });
}

#[test]
fn one_bad_record_refuses_the_whole_entry() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![watch(), watch()]));
    let records = vec![started(1, 0, 1), finished(1, 0, 1, StepOutcome::Done), started(1, 1, 9)];
    expect!["refused: step 1.1 is at attempt 0, which does not go with this record"]
        .assert_eq(&show(&world.records(task, records)));
    assert_eq!(world.events(task), "");
}

#[test]
fn outcomes_of_other_steps_are_refused() {
    let cases = [
        (create_vm(), StepOutcome::Done),
        (create_vm(), disk_created("d")),
        (create_disk("d1"), StepOutcome::Done),
        (watch(), vm_created("v")),
        (Action::Apply { instance: "i1".into(), agent: "a1".into() }, StepOutcome::Done),
    ];
    let text: String = cases
        .into_iter()
        .map(|(action, outcome)| {
            let mut world = World::new();
            let task = world.planned(plan_of(vec![action]));
            show(&world.records(task, vec![started(1, 0, 1), finished(1, 0, 1, outcome)])) + "\n"
        })
        .collect();
    expect![[r#"
        refused: the outcome of step 1.0 (create_vm) makes no sense here: it gives no result
        refused: the outcome of step 1.0 (create_vm) makes no sense here: the result is another step's
        refused: the outcome of step 1.0 (create_disk) makes no sense here: it gives no result
        refused: the outcome of step 1.0 (start) makes no sense here: the result is another step's
        refused: the outcome of step 1.0 (apply) makes no sense here: it gives no result
    "#]]
    .assert_eq(&text);
}

#[test]
fn lines_are_byte_for_byte_as_bosh_writes_them() {
    let mut world = World::new();
    let mut plan = plan_of(vec![]);
    let drain = Action::Drain { instance: "i1".into(), agent: "a1".into(), drain: DrainKind::Update };
    let shown = |action, status: &str, percent| Step {
        action,
        progress: Some(Progress { status: status.into(), percent }),
        on_failure: OnFailure::Stop,
    };
    let units = &mut plan.phases[0].stages[0].waves[0].units;
    units[0].label = "api/i1 (0) (canary)".into();
    units[0].steps = vec![shown(watch(), "executing pre-stop", 5), shown(drain, "executing drain", 10)];
    units.push(unit(2, "api/i2 (1)", vec![watch()]));
    units.push(unit(3, "api/i3 (2)", vec![watch(), watch()]));
    plan.phases[0].stages[0].total = 3;
    plan.phases[0].stages.push(stage(None, vec![unit(4, "silent", vec![watch()])]));
    let task = world.planned(plan);
    world.step(task, 4, 0, StepOutcome::Done);
    world.step(task, 2, 0, failed("'api/i2 (1)' is not running"));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    let records = vec![journal(1, 0, 1, StepEvent::Retrying("timeout".into())), started(1, 0, 2)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    let records =
        vec![finished(1, 0, 2, StepOutcome::Done), started(1, 1, 1), finished(1, 1, 1, StepOutcome::Done)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    world.step(task, 3, 0, StepOutcome::Done);
    world.must(Command::TaskCancel { task });
    let records = vec![journal(3, 1, 1, StepEvent::Skipped)];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    expect![[r#"
        {"time":1700000007,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i2 (1)","index":1,"state":"started","progress":0}
        {"time":1700000007,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i2 (1)","index":1,"state":"failed","progress":100,"data":{"error":"'api/i2 (1)' is not running"}}
        {"time":1700000008,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i1 (0) (canary)","index":2,"state":"started","progress":0}
        {"time":1700000008,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i1 (0) (canary)","index":2,"state":"in_progress","progress":5,"data":{"status":"executing pre-stop"}}
        {"time":1700000010,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i1 (0) (canary)","index":2,"state":"in_progress","progress":10,"data":{"status":"executing drain"}}
        {"time":1700000010,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i1 (0) (canary)","index":2,"state":"finished","progress":100}
        {"time":1700000011,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i3 (2)","index":3,"state":"started","progress":0}
        {"time":1700000013,"stage":"Updating instance","tags":["api"],"total":3,"task":"api/i3 (2)","index":3,"state":"failed","progress":100,"data":{"error":"Task 1 cancelled"}}
    "#]]
    .assert_eq(&world.events(task));
    let state = world.state();
    let progress: Vec<UnitState> = state.units_progress(task).into_iter().map(|(_, row)| row.state).collect();
    assert_eq!(progress, [UnitState::Done, UnitState::Failed, UnitState::Skipped, UnitState::Done]);
}
