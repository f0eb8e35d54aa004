//! The fleet's commands: what they do, and every refusal.

mod common;

use common::*;
use expect_test::{Expect, expect};
use model::dns::DnsSubject;
use model::plan::Plan;
use model::step::Action;
use model::task::TaskKind;
use model::*;
use state::command::*;
use state::kv::MemoryKv;
use state::records::*;

/// Applies commands to a world with a leader under epoch 1, and shows the answers.
#[track_caller]
fn check(commands: Vec<Command>, answers: Expect) {
    let mut world = World::new();
    let text: String = commands.into_iter().map(|command| world.say(command) + "\n").collect();
    answers.assert_eq(&text);
}

fn begin(node: u64, epoch: u64) -> Command {
    Command::LeaderBegin { node: NodeId(node), epoch: Epoch(epoch) }
}

fn use_token(hash: &str, key: &str) -> Command {
    Command::TokenUse { hash: hash.into(), key_digest: key.into() }
}

#[test]
fn a_cluster_is_named_once() {
    check(
        vec![init()],
        expect![[r#"
        refused: the cluster has been initialised already
    "#]],
    );
}

#[test]
fn an_older_leader_is_refused_and_the_same_one_is_not() {
    check(
        vec![begin(2, 5), begin(2, 5), begin(3, 5), begin(1, 4)],
        expect![[r#"
            Done
            Done
            refused: epoch 5 is over: the current one is 5
            refused: epoch 4 is over: the current one is 5
        "#]],
    );
}

#[test]
fn the_cluster_row_names_the_current_leader() {
    let mut world = World::new();
    world.must(begin(2, 5));
    let cluster = world.state().cluster().unwrap();
    assert_eq!((cluster.epoch, cluster.leader, world.state().epoch()), (Epoch(5), NodeId(2), Epoch(5)));
}

#[test]
fn every_command_of_a_leader_is_fenced() {
    let mut world = World::new();
    let task = world.deploying();
    world.must(begin(2, 2));
    for command in fenced(task, Epoch(1)).into_iter().chain(fenced(task, Epoch(3))) {
        let name = format!("{command:?}");
        let answer = world.say(command);
        assert!(answer.ends_with("is over: the current one is 2"), "{name}: {answer}");
    }
}

fn fenced(task: TaskId, epoch: Epoch) -> Vec<Command> {
    let line = PrepareLine {
        stage: "s".into(),
        task: "t".into(),
        total: 1,
        index: 1,
        state: LineState::Started,
        error: None,
    };
    let segment = OutputSegment { offset: 0, length: 1, blob: "b".into() };
    let plan = Box::new(plan_of(Vec::new()));
    vec![
        Command::ReleasePut {
            task,
            epoch,
            release: Box::new(release("r", "1")),
            compiled: Vec::new(),
            fix: false,
            partial: false,
        },
        Command::ReleaseDelete { task, epoch, name: "r".into(), version: None, with_compiled: false },
        Command::StemcellPut { task, epoch, stemcell: stemcell_record("1", "d") },
        Command::StemcellDelete { task, epoch, name: "s".into(), version: "1".into(), cpi: "".into() },
        Command::TaskTake { task, epoch },
        Command::TaskLine { task, epoch, line },
        Command::PlanDraft { task, epoch, draft: 1, part: 0, content: Box::default() },
        Command::PlanCommit { task, epoch, draft: 1, parts: 0, plan },
        Command::StepRecords { task, epoch, records: Vec::new() },
        Command::OutputSeal { task, epoch, kind: model::task::OutputKind::Debug, segment },
        Command::TaskFinish { task, epoch, end: TaskEnd::Done(None) },
        Command::VariableSetOpen { task, epoch, deployment: "web".into() },
        Command::VariablesPut { task, epoch, set: VariableSetId(1), values: Vec::new() },
        Command::VariablesPin { task, epoch, set: VariableSetId(1), pins: Vec::new() },
        Command::ShardMapPut { epoch, map: ShardMap { number: 1, watchers: Default::default() } },
    ]
}

#[test]
fn members_come_and_go_for_good() {
    check(
        vec![
            Command::MemberPut { member: member(1) },
            Command::MemberPut { member: member(1) },
            Command::MemberRemove { node: NodeId(1) },
            Command::MemberPut { member: member(2) },
            Command::MemberRemove { node: NodeId(1) },
            Command::MemberRemove { node: NodeId(1) },
            Command::MemberPut { member: member(1) },
            Command::MemberPut { member: member(0) },
            Command::MemberPut { member: member(u64::MAX) },
        ],
        expect![[r#"
            Done
            Done
            refused: removing member 1 makes no sense here: it is the last one
            Done
            Done
            refused: no such member: 1
            refused: no such member: 1
            refused: member 0 makes no sense here: its number is out of range
            refused: member 18446744073709551615 makes no sense here: its number is out of range
        "#]],
    );
}

#[test]
fn a_token_admits_one_key_and_numbers_are_never_reused() {
    check(
        vec![
            Command::MemberPut { member: member(4) },
            Command::TokenPut { token: token("t1", START + 1_000_000) },
            Command::TokenPut { token: token("t1", START + 1_000_000) },
            use_token("t1", "key-a"),
            use_token("t1", "key-a"),
            use_token("t1", "key-b"),
            use_token("t2", "key-a"),
            Command::TokenPut { token: token("late", START) },
            use_token("late", "key-a"),
            Command::TokenPut { token: token("t3", START + 1_000_000) },
            use_token("t3", "key-c"),
        ],
        expect![[r#"
            Done
            Done
            refused: join token exists already: t1
            MemberNumber(NodeId(5))
            MemberNumber(NodeId(5))
            refused: the token is unknown, used or expired
            refused: the token is unknown, used or expired
            Done
            refused: the token is unknown, used or expired
            Done
            MemberNumber(NodeId(6))
        "#]],
    );
}

#[test]
fn old_tokens_are_forgotten() {
    let mut world = World::new();
    world.must(Command::TokenPut { token: token("old", START) });
    world.now += 25 * 60 * 60 * 1000;
    world.must(Command::TokenPut { token: token("new", world.now + 1000) });
    let hashes: Vec<String> = world.state().join_tokens().into_iter().map(|token| token.hash).collect();
    assert_eq!(hashes, ["new"]);
}

#[test]
fn users_and_settings() {
    check(
        vec![
            Command::UserPut { user: user("ann") },
            Command::UserPut { user: user("ann") },
            Command::UserRemove { name: "ann".into() },
            Command::UserRemove { name: "ann".into() },
            Command::SettingPut { setting: Setting::ResurrectionPaused(true) },
        ],
        expect![[r#"
            Done
            Done
            Done
            refused: no such user: ann
            Done
        "#]],
    );
    let mut world = World::empty();
    let pause = Command::SettingPut { setting: Setting::ResurrectionPaused(true) };
    expect!["refused: no such cluster: "].assert_eq(&world.say(pause.clone()));
    world.must(init());
    world.must(pause);
    assert!(world.state().resurrection_paused());
}

#[test]
fn tokens_of_users_are_given_revoked_and_end_with_their_user() {
    let nobodys = Command::UserTokenPut { token: user_token("t0", "bob") };
    let put = |id: &str| Command::UserTokenPut { token: user_token(id, "ann") };
    let remove = |id: &str| Command::UserTokenRemove { id: id.into() };
    check(
        vec![
            nobodys,
            Command::UserPut { user: user("ann") },
            put("t1"),
            put("t1"),
            put(""),
            put("t2"),
            remove("t1"),
            remove("t1"),
            Command::UserRemove { name: "ann".into() },
            remove("t2"),
        ],
        expect![[r#"
            refused: no such user: bob
            Done
            Done
            refused: user token exists already: t1
            refused: a token makes no sense here: it has no id or no hash
            Done
            Done
            refused: no such user token: t1
            Done
            refused: no such user token: t2
        "#]],
    );
    let mut world = World::new();
    world.must(Command::UserPut { user: user("ann") });
    for number in 0..100 {
        world.must(put(&format!("t{number}")));
    }
    assert_eq!(
        world.say(put("one more")),
        "refused: another token makes no sense here: user ann has 100: revoke one"
    );
    let made = world.state().user_token("t7").unwrap();
    assert!(made.created_at.0 > START, "the time is the entry's, whatever the token says");
    // They have expired by now, and make room.
    world.now += 2_000_000;
    let mut late = user_token("late", "ann");
    late.expires_at = Timestamp(world.now + 1_000_000);
    world.must(Command::UserTokenPut { token: late });
    assert_eq!(world.state().user_tokens(Some(&"ann".into())).len(), 1);
    assert!(world.audit().contains("create user_token ann/late"), "{}", world.audit());
}

#[test]
fn the_feature_level_is_that_of_the_oldest_member() {
    let mut world = World::new();
    assert_eq!(world.state().feature_level(), None);
    world.must(Command::MemberPut { member: Member { feature_level: 2, ..member(1) } });
    assert_eq!(world.state().feature_level(), Some(2));
    world.must(Command::MemberPut { member: Member { feature_level: 1, ..member(2) } });
    assert_eq!(world.state().feature_level(), Some(1));
    assert_eq!(Command::UserTokenRemove { id: "t".into() }.feature_level(), SECOND_LEVEL);
}

#[test]
fn a_plan_is_of_the_level_of_what_is_in_it() {
    let level = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan_of(Vec::new());
        plan.reservations.push(reservation("i1", "10.0.0.16"));
        change(&mut plan);
        commit(TaskId(1), plan).feature_level()
    };
    assert_eq!(level(&|_| {}), 1);
    assert_eq!(level(&|plan| plan.reservations[0].prefix = Some(28)), 2);
    assert_eq!(level(&|plan| plan.dns_subjects.push(DnsSubject::Zone("z1".into()))), 2);
    let planned_links = || Some(Box::default());
    assert_eq!(level(&|plan| plan.record.as_mut().unwrap().planned_links = planned_links()), 2);
    assert_eq!(Command::LinkRemove { id: LinkId(1) }.feature_level(), 2);
    let later = Action::OrphanVm { instance: "i1".into(), agent: "a1".into() };
    assert_eq!(level(&|plan| plan.phases = plan_of(vec![later.clone()]).phases), 2);
    let close = Action::CloseProblem { problem: ProblemId(1) };
    assert_eq!(level(&|plan| plan.phases = plan_of(vec![close.clone()]).phases), 2);
    let unknown = |unknown| TaskKind::ScanAndFix { instances: Vec::new(), unknown };
    assert_eq!(queue(unknown(Vec::new()), Vec::new()).feature_level(), 1);
    for kind in [
        TaskKind::DeleteOrphanedVms { agents: Vec::new() },
        TaskKind::Inspect { vms: true },
        TaskKind::ScanCloud,
        unknown(vec!["web/api/7".into()]),
    ] {
        assert_eq!(queue(kind, Vec::new()).feature_level(), 2);
    }
    let mut content =
        DraftPart { reservations: vec![reservation("i1", "10.0.0.16")], ..DraftPart::default() };
    content.reservations[0].prefix = Some(28);
    let (task, epoch, content) = (TaskId(1), EPOCH, Box::new(content));
    assert_eq!(Command::PlanDraft { task, epoch, draft: 1, part: 0, content }.feature_level(), 2);
}

#[test]
fn plans_with_disks_that_have_names_are_of_the_third_level() {
    let level = |plan: Plan| commit(TaskId(1), plan).feature_level();
    let named = || plan_of(vec![create_disk_of("d1", Some("data"))]);
    assert_eq!(level(plan_of(vec![create_disk("d1")])), 1);
    assert_eq!(level(named()), THIRD_LEVEL);
    let mut wanted = plan_of(Vec::new());
    wanted.targets[0].spec.named_disks.push(disk_spec(Some("data")));
    assert_eq!(level(wanted.clone()), THIRD_LEVEL);
    let mut offered = plan_of(Vec::new());
    let mut offers = links("srv", true);
    offers.offers[0].owner.kind = model::link::LinkOwnerKind::Disk;
    offered.record.as_mut().unwrap().planned_links = Some(Box::new(offers));
    assert_eq!(level(offered), THIRD_LEVEL);
    let parts = [
        DraftPart { targets: wanted.targets, ..DraftPart::default() },
        DraftPart {
            units: vec![DraftUnit {
                phase: 0,
                stage: 0,
                wave: 0,
                unit: named().units().next().unwrap().clone(),
            }],
            ..DraftPart::default()
        },
    ];
    for content in parts {
        let part = Command::PlanDraft {
            task: TaskId(1),
            epoch: EPOCH,
            draft: 1,
            part: 0,
            content: Box::new(content),
        };
        assert_eq!(part.feature_level(), THIRD_LEVEL);
    }
}

#[test]
fn managed_networks_are_of_the_third_level() {
    let task = TaskId(1);
    let mut plan = plan_of(Vec::new());
    plan.record.as_mut().unwrap().managed_networks.push("a".into());
    for command in [
        network_take(task, "a", &["s"]),
        subnet_put(task, "a", "s", None),
        Command::NetworkRetire { task, epoch: EPOCH, network: "a".into() },
        Command::SettingPut { setting: Setting::ManagedNetworks(true) },
        queue(TaskKind::DeleteOrphanedNetworks { networks: Vec::new() }, Vec::new()),
        commit(task, plan),
    ] {
        assert_eq!(command.feature_level(), THIRD_LEVEL, "{command:?}");
    }
}

#[test]
fn dynamic_disks_are_of_the_third_level() {
    let name = || DynamicDiskName::new("data");
    for command in [
        dynamic_deed(TaskId(1), DynamicDeed::Detached { agent: "a1".into() }),
        Command::VmLeaves { task: TaskId(1), epoch: EPOCH, agent: "a1".into() },
        queue(TaskKind::DetachDynamicDisk { name: name() }, Vec::new()),
        queue(TaskKind::DeleteDynamicDisk { name: name() }, Vec::new()),
    ] {
        assert_eq!(command.feature_level(), THIRD_LEVEL, "{command:?}");
    }
}

#[test]
fn certificates_of_agents_are_of_the_third_level() {
    for command in [
        certificate_offer(TaskId(1), step_no(1, 0), "a1", "01"),
        queue(TaskKind::RotateCertificates { agents: Vec::new() }, Vec::new()),
    ] {
        assert_eq!(command.feature_level(), THIRD_LEVEL, "{command:?}");
    }
}

#[test]
fn a_repeated_request_gets_its_first_answer_and_changes_nothing() {
    let mut world = World::new();
    let queued = world.apply(Some("r1"), queue(deploy(), Vec::new()));
    let before = world.kv.clone();
    let again = world.apply(Some("r1"), queue(deploy(), Vec::new()));
    assert_eq!(queued.outcome, again.outcome);
    assert!(again.changes.is_empty());
    assert_eq!(world.kv, before);
    assert_eq!(world.state().tasks(&Default::default()).len(), 1);
}

#[test]
fn a_refused_request_stays_refused() {
    let mut world = World::new();
    let remove = Command::UserRemove { name: "ann".into() };
    let first = world.apply(Some("r1"), remove.clone()).outcome;
    world.must(Command::UserPut { user: user("ann") });
    assert_eq!(world.apply(Some("r1"), remove.clone()).outcome, first);
    assert_eq!(world.apply(Some("r2"), remove).outcome, Outcome::Done);
}

/// Places in the ring of remembered answers.
const RING: u64 = 1 << 17;

/// Applies a request at some place in the log; returns whether it was done, and not only answered.
fn is_done_at(kv: &mut MemoryKv, revision: u64, id: &str, at: i64) -> bool {
    let entry = entry(Some(id), at, Command::UserPut { user: user("ann") });
    !state::apply(kv, Revision(revision), &entry).changes.is_empty()
}

#[test]
fn an_answer_is_remembered_until_the_log_has_gone_around() {
    let mut kv = MemoryKv::new();
    assert!(is_done_at(&mut kv, 7, "first", START));
    assert!(is_done_at(&mut kv, 6 + RING, "neighbour", START));
    assert!(!is_done_at(&mut kv, 6 + RING, "first", START));
    assert!(is_done_at(&mut kv, 7 + RING, "successor", START));
    assert!(is_done_at(&mut kv, 8 + RING, "first", START), "forgotten: a new request");
    assert!(!is_done_at(&mut kv, 9 + RING, "successor", START));
}

#[test]
fn no_clock_makes_an_answer_forgotten() {
    let mut kv = MemoryKv::new();
    assert!(is_done_at(&mut kv, 1, "first", START));
    for (revision, at) in [(2, START + 400 * 86_400_000), (3, 0), (4, i64::MAX)] {
        assert!(is_done_at(&mut kv, revision, &format!("of a wrong clock {revision}"), at));
    }
    assert!(!is_done_at(&mut kv, 5, "first", START));
}

#[test]
fn bytes_of_the_future_are_refused_not_fatal() {
    let mut world = World::new();
    let before = world.kv.clone();
    let (outcome, changes) =
        state::apply_bytes(&mut world.kv, Revision(99), b"\x81\xa3new\x01", state::CHANGES_KEPT);
    assert_eq!(Outcome::decode(&outcome).unwrap(), Outcome::Refused(Refusal::UnknownCommand));
    assert!(changes.is_empty());
    assert_eq!(world.kv, before);
}

#[test]
fn changes_are_told_once_per_row_and_compacted_in_time() {
    let mut world = World::new();
    let applied = world.apply(None, Command::UserPut { user: user("ann") });
    let told: Vec<_> =
        applied.changes.iter().map(|change| (change.table.as_str(), change.key.as_str())).collect();
    assert_eq!(told, [("users", "ann"), ("events", "1")]);
    let since = world.state().changes_since(Revision(2), 100).unwrap();
    assert_eq!(since, applied.changes);
    assert_eq!(world.state().changes_since(Revision(3), 100).unwrap(), []);
    for _ in 0..10_200 {
        world.now += 1;
        let entry = entry(None, world.now, Command::UserPut { user: user("bob") });
        world.log.push(entry);
        let revision = world.revision();
        state::apply(&mut world.kv, revision, &world.log[world.log.len() - 1]);
    }
    let state = world.state();
    let oldest = state.changes_since(Revision(2), 100).unwrap_err().oldest;
    assert!(oldest.0 > 100 && oldest.0 <= 10_203 - 9_999, "{oldest}");
    assert!(state.changes_since(Revision(oldest.0 - 1), 10).is_ok());
    assert!(state.changes_since(Revision(oldest.0 - 2), 10).is_err());
    assert_eq!(state.changes_since(Revision(u64::MAX), 10).unwrap(), []);
}

#[test]
fn how_many_changes_are_kept_is_given_from_outside() {
    let mut kv = MemoryKv::new();
    for revision in 1..=256 {
        let entry = entry(None, START + 1, Command::UserPut { user: user("bob") });
        state::apply_bytes(&mut kv, Revision(revision), &entry.encode(), 100);
    }
    let oldest = state::State::new(&kv).changes_since(Revision(1), 100).unwrap_err().oldest;
    assert_eq!(oldest, Revision(157), "the last 100");
}
