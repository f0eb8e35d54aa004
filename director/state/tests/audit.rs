//! Every change that somebody makes is on record: who says so is the log, and not whoever serves the request.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::mem::{Discriminant, discriminant};

use common::*;
use expect_test::expect;
use model::step::{Action, StepOutcome};
use model::task::TaskKind;
use model::*;
use state::command::*;
use state::query::EventFilter;
use state::records::{Leak, Member, Setting};

/// Who proposes a command.
#[derive(Debug, PartialEq, Eq)]
enum By {
    /// Somebody who has asked for it, and of whom there must be a record.
    Somebody,
    /// A task, whose own events say what it does to what.
    Task,
    /// The fleet itself, for its own ends.
    Fleet,
}

/// New commands must be filed here: the match has no rest.
fn by(command: &Command) -> By {
    use Command::*;
    match command {
        MemberPut { .. }
        | MemberRemove { .. }
        | TokenPut { .. }
        | UserPut { .. }
        | UserRemove { .. }
        | SettingPut { .. }
        | ConfigPut { .. }
        | ConfigDelete { .. }
        | ConfigVersionDelete { .. }
        | TaskCancel { .. }
        | InstanceIgnore { .. }
        | LeakClear { .. }
        | EventPut { .. }
        | UserTokenPut { .. }
        | UserTokenRemove { .. }
        | LinkPut { .. }
        | LinkRemove { .. } => By::Somebody,
        // What it holds.
        ForTeams { command, .. } => by(command),
        // A task that waits has done nothing; when it is taken up it says so.
        TaskQueue { .. }
        | ReleasePut { .. }
        | ReleaseDelete { .. }
        | StemcellPut { .. }
        | StemcellDelete { .. }
        | StemcellRetire { .. }
        | TaskTake { .. }
        | TaskLine { .. }
        | TaskReport { .. }
        | ProblemsFound { .. }
        | PlanDraft { .. }
        | PlanCommit { .. }
        | StepRecords { .. }
        | OutputSeal { .. }
        | TaskFinish { .. }
        | VariableSetOpen { .. }
        | VariablesPut { .. }
        | VariablesPin { .. }
        | AgentTokenRenew { .. }
        | LatecomerPut { .. }
        | BundlePut { .. }
        | ExportPut { .. }
        | NetworkTake { .. }
        | SubnetPut { .. }
        | NetworkRetire { .. }
        | DynamicDisk { .. }
        | VmLeaves { .. }
        | CertificateOffer { .. } => By::Task,
        ClusterInit { .. }
        | LeaderBegin { .. }
        | TokenUse { .. }
        | BlobHeld { .. }
        | BlobLost { .. }
        | AgentEnroll { .. }
        | ShardMapPut { .. }
        | AgentTransitions { .. }
        | MeltdownPut { .. }
        | LeakPut { .. }
        | LatecomerLooked { .. }
        | BlobForget { .. }
        | BundlesForget { .. }
        | DnsNumber { .. }
        | DnsPut { .. }
        | DnsForget { .. }
        | AgentsJobs { .. }
        | AgentAsked { .. }
        | AgentBrought { .. }
        | BlobsForget { .. }
        | BlobKeep { .. }
        | BlobsLeave { .. } => By::Fleet,
    }
}

fn config(name: &str) -> Command {
    Command::ConfigPut { kind: "x".into(), name: name.into(), content: "a: 1".into(), expected_latest: None }
}

/// A world in which each of the changes can be made.
fn world() -> World {
    let mut world = World::new();
    world.must(Command::MemberPut { member: Member { feature_level: SECOND_LEVEL, ..member(1) } });
    let mut plan = plan_of(vec![create_vm(), Action::SaveDeployment]);
    plan.record.as_mut().unwrap().planned_links = Some(Box::new(links("srv", true)));
    let task = world.planned(plan);
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, StepOutcome::Done);
    let leak = Leak { id: EventId(0), what: "a VM".into(), task: None, at: Timestamp(0) };
    world.must(Command::LeakPut { leak });
    world
}

fn changes(world: &World) -> Vec<Command> {
    let event = NewEvent { action: "a".into(), object_type: "thing".into(), ..NewEvent::default() };
    let waiting = queue(TaskKind::Inspect { vms: true }, Vec::new());
    let open = world.state().tasks(&Default::default()).into_iter().map(|task| task.id).max().unwrap();
    vec![
        Command::MemberPut { member: Member { feature_level: SECOND_LEVEL, ..member(2) } },
        Command::TokenPut { token: token("hash", START + 1_000_000) },
        Command::UserPut { user: user("ann") },
        Command::UserTokenPut { token: user_token("t1", "ann") },
        Command::UserTokenRemove { id: "t1".into() },
        Command::UserRemove { name: "ann".into() },
        Command::SettingPut { setting: Setting::ResurrectionPaused(true) },
        Command::SettingPut { setting: Setting::ManagedNetworks(true) },
        config("one"),
        Command::ForTeams { teams: vec!["red".into()], only_theirs: true, command: Box::new(config("two")) },
        Command::ConfigVersionDelete { id: ConfigId(2) },
        Command::ConfigDelete { kind: "x".into(), name: "one".into() },
        Command::InstanceIgnore { instance: "i1".into(), ignore: true },
        Command::LeakClear { id: world.state().leaks()[0].id },
        Command::EventPut { event: Box::new(event) },
        Command::LinkPut { provider: LinkProviderId(1), consumer: "ext".into(), network: None },
        Command::LinkRemove { id: LinkId(2) },
        Command::TaskCancel { task: open },
        waiting,
        Command::TaskCancel { task: TaskId(open.0 + 1) },
        Command::MemberRemove { node: NodeId(2) },
    ]
}

#[test]
fn every_change_that_somebody_makes_is_an_audit_event() {
    let mut world = world();
    let mut told = String::new();
    let before = world.audit().lines().count();
    for command in changes(&world) {
        let (events, is_somebody_s) = (world.audit().lines().count(), by(&command) == By::Somebody);
        let shown = format!("{command:?}");
        world.must(command);
        let written = world.audit().lines().count() - events;
        assert_eq!(written, usize::from(is_somebody_s), "{shown}");
    }
    let mut events = world.state().events(&EventFilter::default(), None, usize::MAX);
    events.reverse();
    for event in &events[before..] {
        assert_eq!(event.user.as_str(), "admin");
        let name = event.object_name.as_deref().unwrap_or("-");
        told += &format!("{} {} {name}\n", event.action, event.object_type);
    }
    expect![[r#"
        create member director-2
        create join_token hash
        create user ann
        create user_token ann/t1
        delete user_token ann/t1
        delete user ann
        pause resurrection all
        enable managed_networks all
        create config/x one
        create config/x two
        delete config/x two
        delete config/x one
        ignore instance api/i1
        clear leak a VM
        a thing -
        create link 2
        delete link 2
        cancel task 1
        cancel task 2
        delete member director-2
    "#]]
    .assert_eq(&told);
}

/// What kind of command it is, or is in it.
fn plain(command: &Command) -> Discriminant<Command> {
    match command {
        Command::ForTeams { command, .. } => discriminant(&**command),
        command => discriminant(command),
    }
}

#[test]
fn the_changes_above_are_all_that_there_are() {
    let world = world();
    let tried: Vec<Discriminant<Command>> = changes(&world).iter().map(plain).collect();
    // There is one entry of each command among the golden ones: `golden.rs` makes sure.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let entries = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let entries = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("entry_v1_"));
    for path in entries {
        let command = Entry::decode(&std::fs::read(path).unwrap()).unwrap().command;
        let is_tried = tried.contains(&plain(&command));
        assert!(by(&command) != By::Somebody || is_tried, "{command:?} is not tried above");
    }
}

/// It would be on record with some and not with others, and the state another one from there on.
#[test]
fn a_cancellation_is_on_record_once_all_members_know_of_it() {
    let mut world = world();
    world.must(Command::MemberPut { member: member(2) });
    let before = world.audit();
    let task = world.state().tasks(&Default::default()).into_iter().map(|task| task.id).max().unwrap();
    world.must(Command::TaskCancel { task });
    assert_eq!(world.audit(), before);
}
