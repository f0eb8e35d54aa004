//! What teams own: it is theirs from the first entry on, whatever comes in between.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use common::*;
use model::*;
use state::command::*;

fn of(team: &str, command: Command) -> Command {
    Command::ForTeams { teams: vec![team.into()], only_theirs: true, command: Box::new(command) }
}

fn deploy_web() -> Command {
    queue(deploy(), vec!["lock:deployment:web".into()])
}

fn put(content: &str) -> Command {
    let (kind, name, content) = ("cloud".into(), "default".into(), content.into());
    Command::ConfigPut { kind, name, content, expected_latest: None }
}

fn delete() -> Command {
    Command::ConfigDelete { kind: "cloud".into(), name: "default".into() }
}

fn task_of(outcome: Outcome) -> TaskId {
    match outcome {
        Outcome::TaskQueued(task) => task,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(outcome: Outcome, owners: &[&str]) {
    match outcome {
        Outcome::Refused(Refusal::NotOwned { teams, .. }) => assert_eq!(teams, owners),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deployment_is_its_maker_s_for_ever() {
    let mut world = World::new();
    let first = task_of(world.must(of("red", deploy_web())));
    // Before the first deploy has begun there is no row, and yet the name is taken.
    refused(world.ask(of("blue", deploy_web())), &["red"]);
    let of_director = task_of(world.must(deploy_web()));
    assert_eq!(
        world.state().task(of_director).unwrap().teams,
        ["red"],
        "a deploy of somebody else changes nothing"
    );
    world.must(Command::TaskTake { task: first, epoch: EPOCH });
    assert_eq!(world.state().deployment(&"web".into()).unwrap().teams, ["red"]);
    refused(world.ask(of("blue", deploy_web())), &["red"]);
    let again = task_of(world.must(of("red", deploy_web())));
    assert_eq!(world.state().task(again).unwrap().teams, ["red"]);
}

#[test]
fn what_the_director_made_is_no_team_s() {
    let mut world = World::new();
    world.must(deploy_web());
    refused(world.ask(of("red", deploy_web())), &[]);
    // An admin of the director who leads teams, too, makes things for them, and may change what is there.
    let both =
        Command::ForTeams { teams: vec!["red".into()], only_theirs: false, command: Box::new(deploy_web()) };
    let task = task_of(world.must(both));
    assert!(world.state().task(task).unwrap().teams.is_empty());
}

#[test]
fn who_only_looks_at_a_deployment_need_not_own_it() {
    let mut world = World::new();
    world.must(of("red", deploy_web()));
    let look = queue(model::task::TaskKind::Inspect { vms: true }, Vec::new());
    let task = task_of(world.must(of("blue", look)));
    assert_eq!(world.state().task(task).unwrap().teams, ["red"]);
}

#[test]
fn a_config_is_its_first_team_s_and_stays_it() {
    let mut world = World::new();
    let teams = vec!["amber".into(), "red".into()];
    world.must(Command::ForTeams { teams, only_theirs: true, command: Box::new(put("azs: []")) });
    refused(world.ask(of("red", put("azs: [1]"))), &["amber"]);
    refused(world.ask(of("red", put("azs: []"))), &["amber"]);
    refused(world.ask(of("red", delete())), &["amber"]);
    world.must(put("azs: [2]"));
    let latest = |world: &World| world.state().latest_config("cloud", "default").map(|config| config.team);
    assert_eq!(latest(&world), Some(Some("amber".into())), "a new version stays with whom it belongs to");
    world.must(of("amber", delete()));
    assert_eq!(latest(&world), None);
    world.must(of("red", put("azs: []")));
    assert_eq!(latest(&world), Some(Some("red".into())), "made anew");
}

#[test]
fn teams_own_nothing_else() {
    let mut world = World::new();
    for command in [Command::TaskCancel { task: TaskId(1) }, of("red", put("azs: []"))] {
        let outcome = world.ask(of("red", command));
        assert!(matches!(outcome, Outcome::Refused(Refusal::Invalid { .. })), "{outcome:?}");
    }
    assert!(world.state().latest_configs().is_empty());
    assert_eq!(of("red", deploy_web()).feature_level(), SECOND_LEVEL);
}
