//! Tasks and locks: what their commands do, and every refusal.

mod common;

use common::*;
use expect_test::{Expect, expect};
use model::task::{OutputKind, TaskError, TaskKind, TaskState};
use model::*;
use state::command::*;
use state::query::TaskFilter;
use state::records::*;

fn take(task: TaskId) -> Command {
    Command::TaskTake { task, epoch: EPOCH }
}

fn finish(task: TaskId, end: TaskEnd) -> Command {
    Command::TaskFinish { task, epoch: EPOCH, end }
}

fn done(task: TaskId) -> Command {
    finish(task, TaskEnd::Done(Some("/deployments/web".into())))
}

fn cancel(task: TaskId) -> Command {
    Command::TaskCancel { task }
}

/// Shows every lock and which tasks may run.
fn locks(world: &World) -> String {
    let state = world.state();
    let lock = |view: state::query::LockView| {
        let waiters: Vec<String> = view.waiters.iter().map(ToString::to_string).collect();
        format!("{} held by {} waited for by [{}]\n", view.name, view.holder, waiters.join(" "))
    };
    let runnable: Vec<String> = state.runnable_tasks().iter().map(|task| task.id.to_string()).collect();
    state.locks().into_iter().map(lock).collect::<String>() + &format!("runnable [{}]\n", runnable.join(" "))
}

#[track_caller]
fn check_locks(world: &World, expected: Expect) {
    expected.assert_eq(&locks(world));
}

#[test]
fn locks_are_queues_that_never_cross() {
    let mut world = World::new();
    let first = world.queue(deploy(), &["a", "b"]);
    let second = world.queue(deploy(), &["b", "a", "b"]);
    let third = world.queue(deploy(), &["c", "a"]);
    world.queue(deploy(), &[]);
    check_locks(
        &world,
        expect![[r#"
        a held by 1 waited for by [2 3]
        b held by 1 waited for by [2]
        c held by 3 waited for by []
        runnable [1 4]
    "#]],
    );
    expect!["refused: task 2 waits for b, held by task 1"].assert_eq(&world.say(take(second)));
    expect!["refused: task 3 waits for a, held by task 1"].assert_eq(&world.say(take(third)));
    world.must(take(first));
    world.must(done(first));
    check_locks(
        &world,
        expect![[r#"
        a held by 2 waited for by [3]
        b held by 2 waited for by []
        c held by 3 waited for by []
        runnable [2 4]
    "#]],
    );
    world.must(cancel(second));
    world.must(take(third));
    assert_eq!(world.state().lock(&"a".into()).unwrap().held_since, Timestamp(world.now - 1000));
}

#[test]
fn a_task_goes_through_its_states_once() {
    let mut world = World::new();
    let task = world.queue(deploy(), &["a"]);
    let nine = TaskId(9);
    let steps: Vec<(&str, Command)> = vec![
        ("unknown", take(nine)),
        ("unknown", cancel(nine)),
        ("unknown", done(nine)),
        ("not taken", done(task)),
        ("take", take(task)),
        ("take again", take(task)),
        ("cancel", cancel(task)),
        ("cancel again", cancel(task)),
        ("take while cancelling", take(task)),
        ("finish", finish(task, TaskEnd::Cancelled)),
        ("finish again", finish(task, TaskEnd::Cancelled)),
        ("take", take(task)),
        ("cancel", cancel(task)),
    ];
    let text: String =
        steps.into_iter().map(|(what, command)| format!("{what}: {}\n", world.say(command))).collect();
    expect![[r#"
        unknown: refused: no such task: 9
        unknown: refused: no such task: 9
        unknown: refused: no such task: 9
        not taken: refused: task 1 is queued
        take: Done
        take again: Done
        cancel: Done
        cancel again: Done
        take while cancelling: Done
        finish: Done
        finish again: refused: task 1 is cancelled
        take: refused: task 1 is cancelled
        cancel: refused: task 1 is cancelled
    "#]]
    .assert_eq(&text);
    check_locks(
        &world,
        expect![[r#"
        runnable []
    "#]],
    );
}

#[test]
fn a_new_leader_takes_the_old_ones_tasks() {
    let mut world = World::new();
    let task = world.deploying();
    world.must(Command::LeaderBegin { node: NodeId(2), epoch: Epoch(2) });
    assert_eq!(world.state().runnable_tasks()[0].epoch, EPOCH);
    world.must(Command::TaskTake { task, epoch: Epoch(2) });
    let taken = world.state().task(task).unwrap();
    assert_eq!((taken.epoch, taken.state), (Epoch(2), TaskState::Processing));
}

#[test]
fn ends_leave_the_lines_that_the_cli_waits_for() {
    let mut world = World::new();
    let [failed, cancelled, queued] = [(); 3].map(|()| world.queue(deploy(), &[]));
    world.must(take(failed));
    world.must(finish(
        failed,
        TaskEnd::Error(TaskError { code: 400_007, message: "'api/0' is \"bad\"".into() }),
    ));
    world.must(take(cancelled));
    world.must(finish(cancelled, TaskEnd::Cancelled));
    world.must(cancel(queued));
    let text: String = [failed, cancelled, queued].into_iter().map(|task| world.events(task)).collect();
    expect![[r#"
        {"time":1700000007,"error":{"code":400007,"message":"'api/0' is \"bad\""}}
        {"time":1700000009,"error":{"code":10001,"message":"Task 2 cancelled"}}
        {"time":1700000010,"error":{"code":10001,"message":"Task 3 cancelled"}}
    "#]]
    .assert_eq(&text);
    let task = world.state().task(failed).unwrap();
    assert_eq!((task.state, task.error.unwrap().code), (TaskState::Error, 400_007));
    assert_eq!(world.state().task(queued).unwrap().state, TaskState::Cancelled);
}

#[test]
fn a_deploy_leaves_the_audit_events_that_bosh_leaves() {
    let mut world = World::new();
    let save = plan_of(vec![model::step::Action::SaveDeployment]);
    let task = world.planned(save);
    world.step(task, 1, 0, model::step::StepOutcome::Done);
    world.must(done(task));
    let failing = world.deploying();
    world.must(finish(failing, TaskEnd::Error(TaskError::plain("no"))));
    expect![[r#"
        1 acquire lock lock:deployment:web
        2 create deployment web
        3 <- 2 create deployment web {"after":{"releases":["golden/1"],"stemcells":["ubuntu/1"]},"before":{}}
        4 release lock lock:deployment:web
        5 acquire lock lock:deployment:web
        6 update deployment web
        7 <- 6 update deployment web error: no
        8 release lock lock:deployment:web
    "#]]
    .assert_eq(&world.audit());
}

#[test]
fn a_dry_run_leaves_no_trace_of_a_deployment() {
    let mut world = World::new();
    let options = model::task::DeployOptions { dry_run: true, ..Default::default() };
    let task = world.queue(TaskKind::Deploy { manifest_text: String::new(), options }, &[]);
    world.must(take(task));
    assert_eq!(world.state().deployments(), []);
    assert_eq!(world.audit(), "");
}

#[test]
fn a_deploy_names_its_deployment() {
    let command =
        Command::TaskQueue { kind: deploy(), deployment: None, context_id: String::new(), locks: vec![] };
    expect!["refused: a deploy makes no sense here: it names no deployment"]
        .assert_eq(&World::new().say(command));
}

#[test]
fn names_of_deployments_are_names_and_their_own() {
    let mut world = World::new();
    let queue = |name: &str| Command::TaskQueue {
        kind: deploy(),
        deployment: Some(name.into()),
        context_id: String::new(),
        locks: vec![format!("lock:deployment:{name}").into()],
    };
    let told = |world: &mut World, name: &str| world.say(queue(name)).split(':').take(2).collect::<String>();
    for name in ["a/b", "", "..", "a b", "-a", "ä"] {
        assert_eq!(
            told(&mut world, name),
            format!("refused deployment {name} makes no sense here"),
            "{name}"
        );
    }
    world.must(queue("a_b"));
    let taken = "refused: a deployment with the same name in DNS exists already: a_b";
    assert_eq!(world.say(queue("a-b")), taken, "it is about to be made");
    world.must(queue("a_b"));
    for task in [TaskId(1), TaskId(2)] {
        world.must(take(task));
        world.must(done(task));
    }
    assert_eq!(world.say(queue("A-b")), taken, "it is there");
    world.must(queue("a-b.c"));
}

#[test]
fn one_resurrection_at_a_time() {
    let mut world = World::new();
    let scan = || TaskKind::ScanAndFix { instances: vec!["i1".into()], unknown: Vec::new() };
    let first = world.queue(scan(), &[]);
    expect!["refused: scan and fix exists already: task 1"].assert_eq(&world.say(queue(scan(), Vec::new())));
    world.must(take(first));
    expect!["refused: scan and fix exists already: task 1"].assert_eq(&world.say(queue(scan(), Vec::new())));
    let other = Command::TaskQueue {
        kind: scan(),
        deployment: Some("db".into()),
        context_id: String::new(),
        locks: Vec::new(),
    };
    world.must(other);
    world.must(done(first));
    world.must(queue(scan(), Vec::new()));
}

#[test]
fn there_is_a_bound_to_waiting_tasks() {
    let mut world = World::new();
    let put = |world: &mut World, command| {
        let entry = entry(None, world.now, command);
        world.log.push(entry);
        let revision = world.revision();
        show(&state::apply(&mut world.kv, revision, &world.log[world.log.len() - 1]).outcome)
    };
    for _ in 0..2_000 {
        put(&mut world, queue(deploy(), Vec::new()));
    }
    expect!["refused: another task makes no sense here: 2000 have not ended yet"]
        .assert_eq(&put(&mut world, queue(deploy(), Vec::new())));
    put(&mut world, cancel(TaskId(1)));
    expect!["TaskQueued(TaskId(2001))"].assert_eq(&put(&mut world, queue(deploy(), Vec::new())));
}

#[test]
fn old_tasks_of_a_kind_are_forgotten_with_all_they_left() {
    let mut world = World::new();
    let kept = world.queue(TaskKind::DeleteOrphanedDisks { disks: Vec::new() }, &[]);
    world.must(cancel(kept));
    let put = |world: &mut World, command| {
        let entry = entry(None, world.now, command);
        world.log.push(entry);
        let revision = world.revision();
        state::apply(&mut world.kv, revision, &world.log[world.log.len() - 1]);
    };
    for number in 0..2_050 {
        put(&mut world, queue(deploy(), Vec::new()));
        put(&mut world, cancel(TaskId(2 + number)));
    }
    let state = world.state();
    assert_eq!(state.tasks(&TaskFilter::default()).len(), 2_001);
    assert_eq!(state.output_len(TaskId(2), OutputKind::Event), 0);
    assert_eq!(state.output(TaskId(2), OutputKind::Event, 0, 99), b"");
    assert!(state.task(kept).is_some());
    assert_eq!(state.task(TaskId(2)), None);
}

#[test]
fn lists_are_filtered() {
    let mut world = World::new();
    let tasks = [(); 4].map(|()| world.queue(deploy(), &[]));
    world.must(take(tasks[0]));
    world.must(done(tasks[0]));
    world.must(take(tasks[1]));
    let ids = |filter: TaskFilter| -> Vec<u64> {
        world.state().tasks(&filter).iter().map(|task| task.id.0).collect()
    };
    let all = TaskFilter::default;
    assert_eq!(ids(all()), [4, 3, 2, 1]);
    assert_eq!(ids(TaskFilter { limit: Some(2), ..all() }), [4, 3]);
    assert_eq!(ids(TaskFilter { before: Some(TaskId(3)), ..all() }), [2, 1]);
    assert_eq!(
        ids(TaskFilter { states: vec![TaskState::Queued, TaskState::Processing], ..all() }),
        [4, 3, 2]
    );
    assert_eq!(ids(TaskFilter { states: vec![TaskState::Done], ..all() }), [1]);
    assert_eq!(ids(TaskFilter { deployment: Some("db".into()), ..all() }), [0u64; 0]);
    assert_eq!(ids(TaskFilter { context_id: Some("ctx".into()), limit: Some(1), ..all() }), [4]);
    assert_eq!(world.state().deployments_in_work().len(), 1);
}

fn line(task: TaskId, state: LineState) -> Command {
    let line = PrepareLine {
        stage: "Preparing deployment".into(),
        task: "Preparing deployment".into(),
        total: 1,
        index: 1,
        state,
        error: (state == LineState::Failed).then(|| "bad manifest".into()),
    };
    Command::TaskLine { task, epoch: EPOCH, line }
}

#[test]
fn preparation_lines_are_written_once() {
    let mut world = World::new();
    let queued = world.queue(deploy(), &[]);
    expect!["refused: task 1 is queued"].assert_eq(&world.say(line(queued, LineState::Started)));
    let task = world.deploying();
    for state in
        [LineState::Started, LineState::Started, LineState::Finished, LineState::Finished, LineState::Failed]
    {
        world.must(line(task, state));
    }
    expect![[r#"
        {"time":1700000007,"stage":"Preparing deployment","tags":[],"total":1,"task":"Preparing deployment","index":1,"state":"started","progress":0}
        {"time":1700000009,"stage":"Preparing deployment","tags":[],"total":1,"task":"Preparing deployment","index":1,"state":"finished","progress":100}
        {"time":1700000011,"stage":"Preparing deployment","tags":[],"total":1,"task":"Preparing deployment","index":1,"state":"failed","progress":100,"data":{"error":"bad manifest"}}
    "#]]
    .assert_eq(&world.events(task));
}

fn seal(task: TaskId, kind: OutputKind, offset: u64, length: u32) -> Command {
    let segment = OutputSegment { offset, length, blob: "b".into() };
    Command::OutputSeal { task, epoch: EPOCH, kind, segment }
}

#[test]
fn sealed_pieces_leave_no_gap() {
    let mut world = World::new();
    let task = world.deploying();
    let commands = [
        seal(TaskId(9), OutputKind::Debug, 0, 10),
        seal(task, OutputKind::Event, 0, 10),
        seal(task, OutputKind::Debug, 0, 10),
        seal(task, OutputKind::Debug, 0, 10),
        seal(task, OutputKind::Debug, 0, 11),
        seal(task, OutputKind::Debug, 11, 5),
        seal(task, OutputKind::Debug, 10, 0),
        seal(task, OutputKind::Debug, 10, 5),
        seal(task, OutputKind::Cpi, 0, 1),
    ];
    let text: String = commands.into_iter().map(|command| world.say(command) + "\n").collect();
    expect![[r#"
        refused: no such task: 9
        refused: a sealed piece of event output makes no sense here: its lines are in the state
        Done
        Done
        refused: the debug output of task 1 continues at 10, not at 0
        refused: the debug output of task 1 continues at 10, not at 11
        refused: the debug output of task 1 continues at 10, not at 10
        Done
        Done
    "#]]
    .assert_eq(&text);
    assert_eq!(world.state().output_len(task, OutputKind::Debug), 15);
    assert_eq!(world.state().output_segments(task, OutputKind::Debug).len(), 2);
}

#[test]
fn output_is_complete_once_its_task_has_ended() {
    let mut world = World::new();
    let task = world.deploying();
    world.must(seal(task, OutputKind::Debug, 0, 10));
    world.must(done(task));
    // A leader that was paused comes back with what it had still to say; followers have been told that 10 bytes are all.
    let late = world.say(seal(task, OutputKind::Debug, 10, 5));
    expect!["refused: task 1 is done"].assert_eq(&late);
    assert_eq!(world.state().output_len(task, OutputKind::Debug), 10);
    // An answer that was lost is given again.
    world.must(seal(task, OutputKind::Debug, 0, 10));
}

#[test]
fn a_result_grows_while_its_task_is_worked_on_and_not_twice_by_one_request() {
    let mut world = World::new();
    let task = world.queue(TaskKind::Inspect { vms: true }, &[]);
    let report = |epoch, lines: &str| Command::TaskReport { task, epoch, lines: lines.into() };
    let refused = |world: &mut World, command| match world.apply(None, command).outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let early = refused(&mut world, report(EPOCH, "early\n"));
    assert!(matches!(early, Refusal::TaskState { .. }), "{early}");
    world.must(take(task));
    world.apply(Some("r1"), report(EPOCH, "{\"a\":1}\n"));
    world.apply(Some("r1"), report(EPOCH, "{\"a\":1}\n"));
    world.apply(Some("r2"), report(EPOCH, "{\"b\":2}\n"));
    let stale = refused(&mut world, report(Epoch(0), "stale\n"));
    assert!(matches!(stale, Refusal::StaleEpoch { .. }), "{stale}");
    world.must(done(task));
    let late = refused(&mut world, report(EPOCH, "late\n"));
    assert!(matches!(late, Refusal::TaskState { .. }), "{late}");
    let result = world.state().output(task, OutputKind::Result, 0, usize::MAX);
    assert_eq!(String::from_utf8(result).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
}

#[test]
fn output_is_read_from_any_offset() {
    let mut world = World::new();
    let task = world.deploying();
    world.must(line(task, LineState::Started));
    world.must(line(task, LineState::Finished));
    let whole = world.events(task).into_bytes();
    let state = world.state();
    assert_eq!(state.output_len(task, OutputKind::Event), whole.len() as u64);
    for from in 0..=whole.len() + 1 {
        for max in [1, 7, 150, 1000] {
            let part = state.output(task, OutputKind::Event, from as u64, max);
            let start = from.min(whole.len());
            assert_eq!(part, whole[start..whole.len().min(start + max)], "from {from} max {max}");
        }
    }
}
