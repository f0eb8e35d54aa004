//! Variables: what sets pin, and when old ones go.

mod common;

use common::*;
use expect_test::expect;
use model::*;
use state::command::*;
use state::records::Sealed;

const TASK: TaskId = TaskId(1);

fn open_set() -> Command {
    Command::VariableSetOpen { task: TASK, epoch: EPOCH, deployment: "web".into() }
}

fn put_variables(set: u64, values: &[(&str, Option<u8>)]) -> Command {
    let new = |(name, sealed): &(&str, Option<u8>)| NewVariable {
        name: (*name).into(),
        kind: "password".into(),
        options_digest: "o".into(),
        sealed: sealed.map(|byte| Sealed(vec![byte])),
    };
    Command::VariablesPut {
        task: TASK,
        epoch: EPOCH,
        set: VariableSetId(set),
        values: values.iter().map(new).collect(),
    }
}

#[test]
fn a_set_pins_what_it_saw_first() {
    let mut world = World::new();
    world.deploying();
    expect!["VariableSet(VariableSetId(1))"].assert_eq(&world.say(open_set()));
    expect!["VariableSet(VariableSetId(1))"].assert_eq(&world.say(open_set()));
    expect!["refused: no such variable set: 9"].assert_eq(&world.say(put_variables(9, &[])));
    expect!["refused: no such variable: /c"]
        .assert_eq(&world.say(put_variables(1, &[("/a", Some(1)), ("/c", None)])));
    world.must(put_variables(1, &[("/a", Some(1)), ("/b", Some(2))]));
    world.must(put_variables(1, &[("/a", Some(3)), ("/b", None)]));
    let state = world.state();
    let set = state.variable_set_of_task(TASK).unwrap();
    assert_eq!(set.pins, [("/a".into(), 1), ("/b".into(), 1)].into());
    assert_eq!(state.latest_variable(&"/a".into()).unwrap().sealed, Sealed(vec![1]));
}

#[test]
fn versions_that_are_there_can_be_pinned_once() {
    let mut world = World::new();
    world.deploying();
    world.must(open_set());
    world.must(put_variables(1, &[("/a", Some(1)), ("/b", Some(1))]));
    let pin = |set, pins: &[(&str, u64, Option<&str>)]| Command::VariablesPin {
        task: TASK,
        epoch: EPOCH,
        set: VariableSetId(set),
        pins: pins
            .iter()
            .map(|(name, version, provider)| VariablePin {
                name: (*name).into(),
                version: *version,
                provider: provider.map(DeploymentName::from),
            })
            .collect(),
    };
    expect!["refused: no such variable set: 9"].assert_eq(&world.say(pin(9, &[])));
    expect!["refused: no such variable: /a (version 2)"]
        .assert_eq(&world.say(pin(1, &[("/b", 1, Some("db")), ("/a", 2, None)])));
    world.must(Command::TaskFinish { task: TASK, epoch: EPOCH, end: TaskEnd::Done(None) });

    let task = world.deploying();
    let again = |command| match command {
        Command::VariablesPin { epoch, set, pins, .. } => Command::VariablesPin { task, epoch, set, pins },
        Command::VariableSetOpen { epoch, deployment, .. } => {
            Command::VariableSetOpen { task, epoch, deployment }
        }
        Command::VariablesPut { epoch, set, values, .. } => {
            Command::VariablesPut { task, epoch, set, values }
        }
        other => other,
    };
    expect!["refused: variable set 1 makes no sense here: task 1 opened it"]
        .assert_eq(&world.say(again(pin(1, &[("/a", 1, None)]))));
    world.must(again(open_set()));
    world.must(again(put_variables(2, &[("/a", Some(2))])));
    world.must(again(pin(2, &[("/a", 1, None), ("/b", 1, None), ("/a", 1, Some("db"))])));
    let set = world.state().variable_set(VariableSetId(2)).unwrap();
    assert_eq!(set.pins, [("/a".into(), 2), ("/b".into(), 1)].into(), "the first one counts");
    assert_eq!(set.linked, [("db".into(), [("/a".into(), 1)].into())].into());
}

#[test]
fn another_task_gets_another_set_and_newer_versions() {
    let mut world = World::new();
    let first = world.deploying();
    world.must(open_set());
    world.must(put_variables(1, &[("/a", Some(1))]));
    world.must(Command::TaskFinish { task: first, epoch: EPOCH, end: TaskEnd::Done(None) });
    let second = world.deploying();
    let open = Command::VariableSetOpen { task: second, epoch: EPOCH, deployment: "web".into() };
    expect!["VariableSet(VariableSetId(2))"].assert_eq(&world.say(open));
    let Command::VariablesPut { set, values, .. } = put_variables(1, &[("/a", Some(2))]) else {
        unreachable!()
    };
    let put = |set| Command::VariablesPut { task: second, epoch: EPOCH, set, values: values.clone() };
    expect!["refused: variable set 1 makes no sense here: task 1 opened it"].assert_eq(&world.say(put(set)));
    world.must(put(VariableSetId(2)));
    let state = world.state();
    assert_eq!(state.variable_set(VariableSetId(2)).unwrap().pins, [("/a".into(), 2)].into());
    assert_eq!(state.variable(&"/a".into(), 1).unwrap().sealed, Sealed(vec![1]));
    assert_eq!(state.latest_variable(&"/a".into()).unwrap().version, 2);
}

#[test]
fn old_sets_go_when_nothing_refers_to_them() {
    let mut world = World::new();
    for _ in 0..45 {
        let task = world.deploying();
        world.must(Command::VariableSetOpen { task, epoch: EPOCH, deployment: "web".into() });
        world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    }
    let sets = world.state().variable_sets(&"web".into());
    assert!((10..=20).contains(&sets.len()), "{}", sets.len());
    assert_eq!(sets[0].id, VariableSetId(45));
}
