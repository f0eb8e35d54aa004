//! Agents, shards, leaks, events and ignored instances: what their commands do, and every refusal.

mod common;

use common::*;
use expect_test::expect;
use model::step::Action;
use model::*;
use state::command::*;
use state::records::*;

/// A world in which the VM of agent `a1` is being made.
fn world() -> World {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), delete_vm()]));
    world.must(Command::StepRecords { task, epoch: EPOCH, records: vec![started(1, 0, 1)] });
    world
}

fn enroll(agent: &str, key: &str) -> Command {
    Command::AgentEnroll { agent: agent.into(), key_digest: key.into(), token_generation: 0 }
}

fn shard_map(number: u64, watchers: &[u64]) -> Command {
    let watchers = watchers.iter().map(|node| NodeId(*node)).collect();
    Command::ShardMapPut { epoch: EPOCH, map: ShardMap { number, watchers } }
}

fn seen(shard_epoch: u64, agent: &str, health: AgentHealth) -> Command {
    let transition = AgentTransition { agent: agent.into(), health, reason: "no heartbeat".into() };
    Command::AgentTransitions { shard_epoch, transitions: vec![transition] }
}

#[test]
fn the_first_key_wins() {
    let mut world = world();
    expect!["refused: no such agent: a9"].assert_eq(&world.say(enroll("a9", "k1")));
    world.must(enroll("a1", "k1"));
    world.must(enroll("a1", "k1"));
    expect!["refused: agent a1 has enrolled with another key"].assert_eq(&world.say(enroll("a1", "k2")));
}

#[test]
fn a_vm_that_is_made_again_brings_a_new_key_with_a_new_token() {
    let mut world = world();
    let task = TaskId(1);
    let renew = |epoch, agent: &str| Command::AgentTokenRenew { task, epoch, agent: agent.into() };
    let enroll_with = |key: &str, token_generation| Command::AgentEnroll {
        agent: "a1".into(),
        key_digest: key.into(),
        token_generation,
    };
    world.must(enroll("a1", "k1"));
    expect!["refused: no such agent: a9"].assert_eq(&world.say(renew(EPOCH, "a9")));
    expect!["refused: epoch 0 is over: the current one is 1"].assert_eq(&world.say(renew(Epoch(0), "a1")));
    world.must(renew(EPOCH, "a1"));
    // What the first VM had sent before it was removed arrives late.
    expect!["refused: agent a1 has used a token that was replaced"].assert_eq(&world.say(enroll("a1", "k1")));
    world.must(enroll_with("k2", 1));
    expect!["refused: agent a1 has enrolled with another key"].assert_eq(&world.say(enroll_with("k1", 1)));
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(1, 0, 1, vm_created("vm-1"))],
    });
    expect!["refused: VM of agent exists already: a1"].assert_eq(&world.say(renew(EPOCH, "a1")));
}

#[test]
fn an_agent_of_a_deleted_vm_may_not_enroll() {
    let mut world = world();
    let task = TaskId(1);
    let created = vec![finished(1, 0, 1, vm_created("vm-1"))];
    world.must(Command::StepRecords { task, epoch: EPOCH, records: created });
    world.must(enroll("a1", "k1"));
    world.step(task, 1, 1, model::step::StepOutcome::Done);
    expect!["refused: no such agent: a1"].assert_eq(&world.say(enroll("a1", "k1")));
    assert_eq!(world.state().agents(), []);
}

#[test]
fn shard_maps_only_move_on() {
    let mut world = world();
    world.must(shard_map(2, &[1, 2]));
    world.must(shard_map(2, &[1, 2]));
    expect!["refused: shard map 2 is over: the current one is 2"].assert_eq(&world.say(shard_map(2, &[1])));
    expect!["refused: shard map 1 is over: the current one is 2"].assert_eq(&world.say(shard_map(1, &[1])));
    world.must(shard_map(3, &[1]));
    assert_eq!(world.state().shard_map().watchers, [NodeId(1)].into());
}

#[test]
fn only_the_current_watchers_are_believed() {
    let mut world = world();
    world.must(shard_map(1, &[1]));
    expect!["refused: shard map 0 is over: the current one is 1"].assert_eq(&world.say(seen(
        0,
        "a1",
        AgentHealth::Dead,
    )));
    world.must(seen(1, "a1", AgentHealth::Alive));
    let since = world.state().agent(&"a1".into()).unwrap().health_since;
    world.must(seen(1, "a1", AgentHealth::Alive));
    world.must(seen(1, "gone", AgentHealth::Dead));
    assert_eq!(world.state().agent(&"a1".into()).unwrap().health_since, since);
    world.must(seen(1, "a1", AgentHealth::Dead));
    world.must(seen(1, "a1", AgentHealth::Alive));
    let audit = world.audit();
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains(" agent ")).collect();
    expect![[r#"
        [
            "4 dead agent a1 {\"reason\":\"no heartbeat\"}",
            "5 back agent a1 {\"reason\":\"no heartbeat\"}",
        ]
    "#]]
    .assert_debug_eq(&lines);
}

#[test]
fn a_suspicion_is_no_event_and_comes_too_late_for_the_dead() {
    let mut world = world();
    world.must(shard_map(1, &[1]));
    let health = |world: &World| world.state().agent(&"a1".into()).unwrap().health;
    world.must(seen(1, "a1", AgentHealth::Suspect));
    assert_eq!(health(&world), AgentHealth::Suspect);
    world.must(seen(1, "a1", AgentHealth::Dead));
    world.must(seen(1, "a1", AgentHealth::Suspect));
    assert_eq!(health(&world), AgentHealth::Dead);
    assert_eq!(world.audit().lines().filter(|line| line.contains(" agent ")).count(), 1);
}

#[test]
fn a_meltdown_is_told_when_it_begins_and_when_it_is_over() {
    let mut world = world();
    let put = |deployment: &str, unhealthy: Option<u32>| Command::MeltdownPut {
        epoch: EPOCH,
        deployment: deployment.into(),
        failed: unhealthy.map(|unhealthy| FailedShare { unhealthy, total: 10 }),
    };
    expect!["refused: no such deployment: gone"].assert_eq(&world.say(put("gone", Some(5))));
    let stale = Command::MeltdownPut { epoch: Epoch(0), deployment: "web".into(), failed: None };
    expect!["refused: epoch 0 is over: the current one is 1"].assert_eq(&world.say(stale));
    world.must(put("web", None));
    world.must(put("web", Some(5)));
    let since = Timestamp(world.now);
    world.must(put("web", Some(5)));
    world.must(put("web", Some(6)));
    let meltdown = world.state().health(state::query::Which::Ailing).pop().unwrap().meltdown.unwrap();
    assert_eq!((meltdown.failed.unhealthy, meltdown.since), (6, since));
    world.must(put("web", None));
    let audit = world.audit();
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("meltdown")).collect();
    expect![[r#"
        [
            "4 meltdown deployment web {\"total\":10,\"unhealthy\":5}",
            "5 meltdown_over deployment web",
        ]
    "#]]
    .assert_debug_eq(&lines);
}

#[test]
fn the_health_of_a_deployment_is_that_of_its_instances_that_should_have_a_vm() {
    use state::query::Which;
    let mut world = world();
    let task = TaskId(1);
    world.must(shard_map(1, &[1]));
    let seen_now = |world: &World| {
        let health = world.state().health(Which::All).pop().unwrap();
        let sets = [&health.wanted, &health.dead, &health.suspect, &health.missing];
        (sets.map(std::collections::BTreeSet::len), world.state().health(Which::Ailing).len())
    };
    assert_eq!(seen_now(&world), ([1, 0, 0, 0], 0), "its agent is new");
    for (health, sets, ailing) in [
        (AgentHealth::Suspect, [1, 0, 1, 0], 1),
        (AgentHealth::Dead, [1, 1, 0, 0], 1),
        (AgentHealth::Alive, [1, 0, 0, 0], 0),
    ] {
        world.must(seen(1, "a1", health));
        assert_eq!(seen_now(&world), (sets, ailing), "{health:?}");
    }
    world.must(Command::StepRecords {
        task,
        epoch: EPOCH,
        records: vec![finished(1, 0, 1, vm_created("vm-1"))],
    });
    world.step(task, 1, 1, model::step::StepOutcome::Done);
    assert_eq!(seen_now(&world), ([1, 0, 0, 1], 1), "its VM was deleted");
    assert_eq!(world.state().health(Which::Ailing)[0].deployment, "web".into());
    world.must(Command::InstanceIgnore { instance: "i1".into(), ignore: true });
    assert_eq!(seen_now(&world), ([0, 0, 0, 0], 0), "what is ignored counts nowhere");
    assert!(world.state().health(Which::All)[0].in_work);
}

#[test]
fn an_instance_whose_new_vm_never_got_to_be_its_own_is_without_one() {
    use state::query::Which;
    let missing = |world: &World| {
        let health = world.state().health(Which::All).pop().unwrap();
        (health.missing.len(), world.state().health(Which::Ailing).len())
    };
    let bind = Action::BindVm { instance: "i1".into(), agent: "a1".into() };
    let mut world = World::new();
    let task = world.planned(plan_of(vec![create_vm(), bind]));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.must(shard_map(1, &[1]));
    world.must(seen(1, "a1", AgentHealth::Alive));
    assert_eq!(missing(&world), (0, 0), "it is being worked on");
    let bound = World { kv: world.kv.clone(), log: world.log.clone(), now: world.now };
    let end = Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Cancelled };
    world.must(end.clone());
    assert_eq!(missing(&world), (1, 1));

    let mut world = bound;
    world.step(task, 1, 1, model::step::StepOutcome::Done);
    world.must(end);
    assert_eq!(missing(&world), (0, 0));
}

#[test]
fn leaks_are_reported_and_cleared() {
    let mut world = World::new();
    let leak = Leak { id: EventId(77), what: "VM of agent a1".into(), task: None, at: Timestamp(0) };
    world.must(Command::LeakPut { leak });
    let leaks = world.state().leaks();
    assert_eq!((leaks[0].id, leaks[0].at), (EventId(1), Timestamp(world.now)));
    world.must(Command::LeakClear { id: EventId(1) });
    expect!["refused: no such leak: 1"].assert_eq(&world.say(Command::LeakClear { id: EventId(1) }));
    expect![[r#"
        1 report leak VM of agent a1
        2 <- 1 clear leak VM of agent a1
    "#]]
    .assert_eq(&world.audit());
}

#[test]
fn events_of_others_are_kept_and_old_ones_dropped() {
    let mut world = World::new();
    let event = |action: &str, object_type: &str| {
        let event =
            NewEvent { action: action.into(), object_type: object_type.into(), ..NewEvent::default() };
        Command::EventPut { event: Box::new(event) }
    };
    expect!["refused: event makes no sense here: it has no action"].assert_eq(&world.say(event("", "t")));
    expect!["refused: event makes no sense here: it has no object_type"]
        .assert_eq(&world.say(event("a", "")));
    world.must(event("a", "t"));
    for _ in 0..10_000 {
        let entry = entry(None, world.now, event("b", "t"));
        world.log.push(entry);
        let revision = world.revision();
        state::apply(&mut world.kv, revision, &world.log[world.log.len() - 1]);
    }
    let state = world.state();
    assert_eq!(state.event(EventId(1)), None);
    assert!(state.event(EventId(2)).is_some());
    let filter = state::query::EventFilter { action: Some("b".into()), ..Default::default() };
    let listed: Vec<u64> =
        state.events(&filter, Some(EventId(5)), 2).iter().map(|event| event.id.0).collect();
    assert_eq!(listed, [4, 3]);
}

#[test]
fn alerts_push_out_alerts_and_not_what_people_did() {
    let mut world = World::new();
    let file = |world: &mut World, object_type: &str, count: u64| {
        for _ in 0..count {
            let event =
                NewEvent { action: "x".into(), object_type: object_type.into(), ..NewEvent::default() };
            let entry = entry(None, world.now, Command::EventPut { event: Box::new(event) });
            world.log.push(entry);
            let revision = world.revision();
            state::apply(&mut world.kv, revision, &world.log[world.log.len() - 1]);
        }
    };
    let kept = |world: &World, object_type: &str| {
        let filter =
            state::query::EventFilter { object_type: Some(object_type.into()), ..Default::default() };
        let events = world.state().events(&filter, None, usize::MAX);
        (events.len(), events.last().unwrap().id.0)
    };
    file(&mut world, "deployment", 9_990);
    file(&mut world, "alert", 3_000);
    assert_eq!(kept(&world, "deployment"), (9_990, 1));
    assert_eq!(kept(&world, "alert"), (1_000, 11_991));
    // Of both kinds the oldest go, and nothing else.
    file(&mut world, "deployment", 9_995);
    assert_eq!(kept(&world, "deployment"), (10_000, 9_986));
    assert_eq!(kept(&world, "alert"), (1_000, 11_991));
    file(&mut world, "deployment", 10);
    assert_eq!(kept(&world, "deployment"), (10_000, 12_996));
}

#[test]
fn ignoring_an_instance_outdates_plans() {
    let mut world = world();
    let ignore = |id: &str, ignore| Command::InstanceIgnore { instance: id.into(), ignore };
    expect!["refused: no such instance: i9"].assert_eq(&world.say(ignore("i9", true)));
    let generation = |world: &World| world.state().deployment(&"web".into()).unwrap().generation;
    let before = generation(&world);
    world.must(ignore("i1", true));
    world.must(ignore("i1", true));
    assert_eq!(generation(&world), before + 1);
    assert!(world.state().instance(&"i1".into()).unwrap().ignore);
}
