//! Snapshots of disks: filed before they are taken, kept as long as their disk, and every way in which they come to nothing.

mod common;

use common::*;
use expect_test::expect;
use model::snapshot::Snapshot;
use model::step::{Action, Left, StepOutcome};
use model::task::{TaskError, TaskKind};
use model::*;
use state::command::*;
use state::records::{Orphan, Sought};

fn take(snapshot: &str, clean: bool) -> Action {
    Action::SnapshotDisk { instance: "i1".into(), disk: "d1".into(), snapshot: snapshot.into(), clean }
}

fn taken(cid: &str) -> StepOutcome {
    StepOutcome::SnapshotTaken { cid: cid.into() }
}

fn delete(snapshot: &str) -> Action {
    Action::DeleteSnapshot { snapshot: snapshot.into() }
}

/// A task that has made a disk, and then does these things, each in a unit of its own from the second on.
fn with_disk(actions: Vec<Action>) -> (World, TaskId) {
    let mut world = World::new();
    let mut plan = plan_of(vec![create_disk("d1")]);
    let units = &mut plan.phases[0].stages[0].waves[0].units;
    units.extend((2..).zip(actions).map(|(no, action)| unit(no, "u", vec![action])));
    let task = world.planned(plan);
    world.step(task, 1, 0, disk_created("disk-1"));
    (world, task)
}

fn shown(snapshots: Vec<Snapshot>) -> Vec<String> {
    let cid = |s: &Snapshot| s.cid.as_ref().map_or("none".to_owned(), ToString::to_string);
    snapshots.iter().map(|s| format!("{} {} of {} clean={}", s.id, cid(s), s.slug, s.clean)).collect()
}

#[test]
fn a_snapshot_is_filed_before_it_is_taken_and_lists_have_the_oldest_first() {
    let (mut world, task) = with_disk(vec![take("s2", true), take("s1", false)]);
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(2, 0, 1)] });
    assert_eq!(shown(world.state().snapshots_of(&"d1".into())), ["s2 none of api/i1 clean=true"]);
    let records = vec![finished(2, 0, 1, taken("snap-2"))];
    world.must(Command::StepRecords { task, epoch: EPOCH, records });
    world.step(task, 3, 0, taken("snap-1"));
    let listed = ["s2 snap-2 of api/i1 clean=true", "s1 snap-1 of api/i1 clean=false"];
    assert_eq!(shown(world.state().deployment_snapshots(&"web".into())), listed);
    assert_eq!(shown(world.state().instance_snapshots(&"i1".into())), listed);
    let audit = world.audit();
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("snapshot")).collect();
    expect![[r#"
        [
            "5 create snapshot -",
            "6 <- 5 create snapshot snap-2",
            "7 create snapshot -",
            "8 <- 7 create snapshot snap-1",
        ]
    "#]]
    .assert_debug_eq(&lines);
}

#[test]
fn what_was_not_taken_leaves_no_row_unless_it_may_have_been() {
    let error = || TaskError::plain("no");
    let passed_over = StepOutcome::Done;
    let nothing = StepOutcome::failed(error());
    let perhaps = StepOutcome::Failed { error: error(), left: Left::Perhaps, result_line: None };
    for (outcome, rows) in [(passed_over, 0), (nothing, 0), (perhaps, 1)] {
        let (mut world, task) = with_disk(vec![take("s1", true)]);
        world.step(task, 2, 0, outcome.clone());
        assert_eq!(world.state().snapshots_of(&"d1".into()).len(), rows, "{outcome:?}");
    }
}

#[test]
fn a_snapshot_goes_with_its_disk_to_the_orphans_and_with_it() {
    let orphan = Action::OrphanDisk { instance: "i1".into(), disk: "d1".into() };
    let delete_disk = Action::DeleteOrphanedDisk { disk: "d1".into() };
    let (mut world, task) = with_disk(vec![take("s1", true), orphan, delete_disk]);
    world.step(task, 2, 0, taken("snap-1"));
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(3, 0, 1, StepOutcome::Done)],
    });
    assert_eq!(shown(world.state().deployment_snapshots(&"web".into())), Vec::<String>::new());
    assert_eq!(shown(world.state().snapshots_of(&"d1".into())), ["s1 snap-1 of api/i1 clean=true"]);
    world.step(task, 4, 0, StepOutcome::Done);
    assert_eq!(world.state().snapshot(&"s1".into()), None);
    assert!(world.audit().contains("delete snapshot snap-1"), "{}", world.audit());
}

#[test]
fn a_deleted_snapshot_is_forgotten_and_a_second_deletion_is_fine() {
    let (mut world, task) = with_disk(vec![take("s1", true), delete("s1"), delete("s1")]);
    world.step(task, 2, 0, taken("snap-1"));
    world.step(task, 3, 0, StepOutcome::Done);
    assert_eq!(world.state().snapshots_of(&"d1".into()), []);
    world.step(task, 4, 0, StepOutcome::Done);
    assert!(world.audit().contains("delete snapshot snap-1"), "{}", world.audit());
}

#[test]
fn a_snapshot_of_what_is_not_there_or_under_a_taken_id_is_refused() {
    let other = |instance: &str, disk: &str, snapshot: &str| Action::SnapshotDisk {
        instance: instance.into(),
        disk: disk.into(),
        snapshot: snapshot.into(),
        clean: true,
    };
    let (mut world, task) = with_disk(vec![
        take("s1", true),
        other("i1", "d9", "s2"),
        other("i9", "d1", "s3"),
        other("i1", "d2", "s1"),
    ]);
    world.step(task, 2, 0, taken("snap-1"));
    let mut begin = |unit| show(&world.records(task, vec![started(unit, 0, 1)]));
    expect!["refused: no such disk: d9"].assert_eq(&begin(3));
    expect!["refused: no such instance: i9"].assert_eq(&begin(4));
    expect!["refused: snapshot exists already: s1"].assert_eq(&begin(5));
}

#[test]
fn a_snapshot_that_comes_late_goes_to_the_others_of_its_disk_or_is_a_leak() {
    let sought = || Sought::Snapshot("s1".into());
    let looked = |cid: &str| Command::LatecomerLooked {
        epoch: EPOCH,
        sought: sought(),
        found: vec![cid.to_owned()],
        left_ms: (60_000, 50_000),
    };
    let expecting = || {
        let orphan = Action::OrphanDisk { instance: "i1".into(), disk: "d1".into() };
        let delete_disk = Action::DeleteOrphanedDisk { disk: "d1".into() };
        let (mut world, task) = with_disk(vec![take("s1", true), orphan, delete_disk]);
        world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(2, 0, 1)] });
        world.must(Command::LatecomerPut { task, epoch: EPOCH, sought: sought(), look_for_ms: 60_000 });
        let row = world.state().latecomer(&sought()).unwrap();
        assert!(matches!(&row.orphan, Orphan::Snapshot(of) if of.disk == "d1".into()));
        assert!(row.as_leak().what.contains("snapshot id s1 of 'api/i1'"), "{}", row.as_leak().what);
        (world, task)
    };
    // While the step does not know what it has taken, it may be this one.
    let (mut world, task) = expecting();
    world.must(looked("snap-1"));
    assert_eq!(shown(world.state().snapshots_of(&"d1".into())), ["s1 none of api/i1 clean=true"]);
    let failed = StepOutcome::failed(TaskError::plain("no answer"));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![finished(2, 0, 1, failed)] });
    world.must(looked("snap-1"));
    world.must(Command::LatecomerLooked {
        epoch: EPOCH,
        sought: sought(),
        found: vec!["snap-1".into(), "snap-1-again".into()],
        left_ms: (50_000, 40_000),
    });
    let filed = ["s1 snap-1 of api/i1 clean=true", "s1.snap-1-again snap-1-again of api/i1 clean=true"];
    assert_eq!(shown(world.state().snapshots_of(&"d1".into())), filed);

    let (mut world, task) = expecting();
    let failed = StepOutcome::failed(TaskError::plain("no answer"));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![finished(2, 0, 1, failed)] });
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(3, 0, 1, StepOutcome::Done)],
    });
    world.step(task, 4, 0, StepOutcome::Done);
    for _ in 0..2 {
        world.must(looked("snap-1"));
    }
    let leaks: Vec<String> = world.state().leaks().into_iter().map(|leak| leak.what).collect();
    assert_eq!(leaks, ["snapshot snap-1 of a disk of 'api/i1' that is gone, which was taken late"]);
}

#[test]
fn those_that_the_fleet_could_not_take_are_an_alert_and_a_users_are_not() {
    let failed = |world: &mut World, task: TaskId| {
        world.must(Command::TaskTake { task, epoch: EPOCH });
        let error = TaskError::plain("the cloud is closed");
        world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Error(error) });
    };
    let alerts = |world: &World| world.audit().lines().filter(|line| line.contains(" alert ")).count();
    let mut world = World::new();
    world.deploying();
    let kind = TaskKind::TakeSnapshots { instance: None };
    let task = world.queue(kind.clone(), &[]);
    failed(&mut world, task);
    assert_eq!(alerts(&world), 0, "{}", world.audit());
    let entry = Entry { actor: own(), ..entry(None, world.now + 1000, queue(kind, vec![])) };
    world.log.push(entry.clone());
    let revision = world.revision();
    let applied = state::apply(&mut world.kv, revision, &entry).outcome;
    let Outcome::TaskQueued(task) = applied else { panic!("{applied:?}") };
    failed(&mut world, task);
    assert_eq!(alerts(&world), 1, "{}", world.audit());
}

/// The fleet itself.
fn own() -> Actor {
    Actor { user: state::log::FLEET_USER.into(), node: NodeId(1) }
}
