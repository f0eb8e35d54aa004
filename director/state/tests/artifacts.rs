//! Configs, blobs, releases and stemcells: what their commands do, and every refusal.

mod common;

use common::*;
use expect_test::{Expect, expect};
use model::instance::{JobSpec, ReleaseRef};
use model::plan::{Fate, Plan};
use model::step::{Action, StepOutcome};
use model::task::TaskKind;
use model::*;
use serde_json::Value;
use state::command::*;

/// Applies commands in a world with a deploy under way (task 1), and shows the answers.
#[track_caller]
fn check(commands: Vec<Command>, answers: Expect) {
    let mut world = World::new();
    world.deploying();
    let text: String = commands.into_iter().map(|command| world.say(command) + "\n").collect();
    answers.assert_eq(&text);
}

const TASK: TaskId = TaskId(1);

fn config(name: &str, content: &str, expected: Option<u64>) -> Command {
    let expected_latest = expected.map(ConfigId);
    Command::ConfigPut { kind: "cloud".into(), name: name.into(), content: content.into(), expected_latest }
}

fn put_release(content: model::release::ReleaseVersion) -> Command {
    Command::ReleasePut {
        task: TASK,
        epoch: EPOCH,
        release: Box::new(content),
        compiled: Vec::new(),
        fix: false,
        partial: false,
    }
}

fn delete_release(name: &str, version: Option<&str>) -> Command {
    let version = version.map(Version::from);
    Command::ReleaseDelete { task: TASK, epoch: EPOCH, name: name.into(), version, with_compiled: true }
}

fn put_stemcell(version: &str, digest: &str) -> Command {
    Command::StemcellPut { task: TASK, epoch: EPOCH, stemcell: stemcell_record(version, digest) }
}

fn delete_stemcell(version: &str) -> Command {
    let (name, cpi) = ("ubuntu".into(), "".into());
    Command::StemcellDelete { task: TASK, epoch: EPOCH, name, version: version.into(), cpi }
}

fn retire_stemcell(version: &str) -> Command {
    Command::StemcellRetire { task: TASK, epoch: EPOCH, name: "ubuntu".into(), version: version.into() }
}

fn job(release: &str, version: &str) -> JobSpec {
    JobSpec {
        name: "server".into(),
        release: ReleaseRef { name: release.into(), version: version.into() },
        fingerprint: "fp".into(),
        digest: String::new(),
        blob: "b1".into(),
        properties: Value::Null,
        links: Default::default(),
        logs: Value::Null,
        provides: Vec::new(),
    }
}

#[test]
fn configs_are_numbered_and_equal_content_is_not_stored_twice() {
    check(
        vec![
            config("default", "a", None),
            config("default", "a", Some(1)),
            config("default", "b", Some(1)),
            config("default", "c", Some(1)),
            config("default", "a", None),
            config("other", "a", Some(7)),
            Command::ConfigDelete { kind: "cloud".into(), name: "default".into() },
            Command::ConfigDelete { kind: "cloud".into(), name: "default".into() },
            config("default", "a", Some(0)),
        ],
        expect![[r#"
            ConfigStored { id: ConfigId(1), unchanged: false }
            ConfigStored { id: ConfigId(1), unchanged: true }
            ConfigStored { id: ConfigId(2), unchanged: false }
            refused: expected the latest config to be 1, it is 2
            ConfigStored { id: ConfigId(3), unchanged: false }
            refused: expected the latest config to be 7, it is 0
            Done
            refused: no such config: cloud/default
            ConfigStored { id: ConfigId(4), unchanged: false }
        "#]],
    );
}

#[test]
fn lists_of_configs_show_the_newest_that_is_not_deleted() {
    let mut world = World::new();
    for command in [
        config("a", "1", None),
        config("a", "2", None),
        config("b", "3", None),
        Command::ConfigDelete { kind: "cloud".into(), name: "b".into() },
    ] {
        world.must(command);
    }
    let state = world.state();
    let latest: Vec<u64> = state.latest_configs().iter().map(|config| config.id.0).collect();
    assert_eq!(latest, [2]);
    assert_eq!(state.latest_config("cloud", "a").unwrap().id, ConfigId(2));
    assert_eq!(state.latest_config("cloud", "b"), None);
    let history: Vec<_> = state.config_history("cloud", "a", 9).iter().map(|config| config.id.0).collect();
    assert_eq!(history, [2, 1]);
    assert!(state.config(ConfigId(3)).unwrap().deleted);
    assert_eq!(state.configs(2).len(), 2);
}

#[test]
fn of_the_versions_of_a_config_the_newest_that_is_left_is_current() {
    let mut world = World::new();
    for content in ["1", "2", "3"] {
        world.must(config("a", content, None));
    }
    let mut delete = |id| {
        let answer = world.apply(None, Command::ConfigVersionDelete { id: ConfigId(id) }).outcome;
        let latest = world.state().latest_config("cloud", "a").map(|config| config.id.0);
        (answer, latest)
    };
    assert_eq!(delete(2), (Outcome::Done, Some(3)));
    assert_eq!(delete(3), (Outcome::Done, Some(1)));
    let (again, latest) = delete(3);
    assert_eq!((again.accepted().unwrap_err().to_string().as_str(), latest), ("no such config: 3", Some(1)));
    assert_eq!(delete(1), (Outcome::Done, None));
    assert!(delete(9).0.accepted().is_err());
    let put = world.must(config("a", "1", Some(0)));
    assert_eq!(put, Outcome::ConfigStored { id: ConfigId(4), unchanged: false }, "deleted ones are no more");
}

#[test]
fn blobs_know_their_holders() {
    let mut world = World::new();
    let held = |nodes: &[u64]| Command::BlobHeld {
        digest: "d".into(),
        size_bytes: 5,
        nodes: nodes.iter().map(|node| NodeId(*node)).collect(),
    };
    let lost = |digest: &str| Command::BlobLost { digest: digest.into(), node: NodeId(1) };
    world.must(held(&[1, 2]));
    world.must(held(&[3]));
    world.must(lost("d"));
    assert_eq!(world.state().blob(&"d".into()).unwrap().nodes, [NodeId(2), NodeId(3)].into());
    expect!["refused: no such blob: x"].assert_eq(&world.say(lost("x")));
    world.must(Command::BlobForget { digest: "d".into() });
    world.must(Command::BlobForget { digest: "d".into() });
    assert_eq!(world.state().blobs(), []);
}

#[test]
fn what_tasks_leave_is_kept_for_a_while_and_nothing_else_is_deleted_with_it() {
    let mut world = World::new();
    let held =
        |digest: &str| Command::BlobHeld { digest: digest.into(), size_bytes: 1, nodes: vec![NodeId(1)] };
    world.must(held("old"));
    world.now += 3_600_000;
    let task = world.deploying();
    for digest in ["logs", "compiled"] {
        world.must(held(digest));
    }
    let put = |digest: &str| Command::BundlePut { task, epoch: EPOCH, digest: digest.into() };
    let mut package = compiled(package_key("p", "1", "d"));
    package.blob = "compiled".into();
    world.must(Command::ReleasePut {
        task,
        epoch: EPOCH,
        release: Box::new(release("golden", "1")),
        compiled: vec![package],
        fix: false,
        partial: false,
    });
    for digest in ["logs", "old", "compiled", "unknown"] {
        world.must(put(digest));
    }
    let bundles = |world: &World| -> Vec<String> {
        world.state().bundles().map(|(digest, _)| digest.to_string()).collect()
    };
    assert_eq!(bundles(&world), ["compiled", "logs"], "what was there long before is not the task's own");
    let stale = Command::BundlePut { task, epoch: Epoch(0), digest: "logs".into() };
    assert!(world.say(stale).contains("refused"));
    let left_at = world.state().bundles().map(|(_, at)| at).max().unwrap();
    world.now += 60_000;
    world.must(put("logs"));
    let digests: Vec<BlobDigest> = ["compiled", "logs", "old"].map(Into::into).to_vec();
    world.must(Command::BundlesForget { digests: digests.clone(), before: left_at });
    assert_eq!(bundles(&world), ["logs"], "it was left once more meanwhile");
    world.now += 60_000;
    let before = Timestamp(world.now);
    world.must(Command::BundlesForget { digests: digests.clone(), before });
    let is_known = |world: &World| world.state().blob(&"logs".into()).is_some();
    world.must(Command::BlobsForget { digests: digests.clone(), before: Timestamp(world.now) });
    assert!(is_known(&world), "a task is open that may have found it here");
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    for _ in 0..2 {
        world.must(Command::BundlesForget { digests: digests.clone(), before });
        world.must(Command::BlobsForget { digests: digests.clone(), before: Timestamp(world.now) });
        let known: Vec<String> = world.state().blobs().iter().map(|blob| blob.digest.to_string()).collect();
        assert_eq!((bundles(&world), known), (vec![], vec!["compiled".to_owned(), "old".to_owned()]));
    }
}

#[test]
fn the_same_release_again_is_fine_and_another_one_is_not() {
    let mut later = release("golden", "1");
    later.uploaded_at = Timestamp(START + 5);
    let mut other = release("golden", "1");
    other.commit_hash = "def".into();
    check(
        vec![
            put_release(release("golden", "1")),
            put_release(later),
            put_release(other),
            put_release(release("golden", "2")),
            delete_release("golden", Some("3")),
            delete_release("golden", None),
            delete_release("golden", None),
        ],
        expect![[r#"
            Done
            Done
            refused: release exists already: golden/1
            Done
            refused: no such release: golden/3
            Done
            refused: no such release: golden
        "#]],
    );
}

#[test]
fn what_a_deployment_uses_is_not_deleted() {
    let mut world = World::new();
    let task = world.planned(plan_of(vec![model::step::Action::SaveDeployment]));
    for command in [
        put_release(release("golden", "1")),
        put_release(release("golden", "2")),
        put_stemcell("1", "x"),
        put_stemcell("2", "x"),
    ] {
        world.must(command);
    }
    world.step(task, 1, 0, StepOutcome::Done);
    expect!["refused: release golden/1 is in use by web"]
        .assert_eq(&world.say(delete_release("golden", None)));
    expect!["refused: stemcell ubuntu/1 is in use by web"].assert_eq(&world.say(delete_stemcell("1")));
    world.must(delete_release("golden", Some("2")));
    world.must(delete_stemcell("2"));
    assert_eq!(world.state().releases().len(), 1);
    assert_eq!(world.state().stemcells().len(), 1);
}

#[test]
fn what_an_open_task_or_a_left_over_vm_uses_is_not_deleted() {
    let mut world = World::new();
    // Never deployed: nothing but the plan says what it uses.
    let mut plan = plan_of(vec![create_vm(), Action::SaveInstance { instance: "i1".into() }]);
    plan.targets[0].spec.jobs.push(job("golden", "1"));
    let task = world.planned(plan);
    for version in ["1", "2"] {
        world.must(put_release(release("golden", version)));
        world.must(put_stemcell(version, "x"));
    }
    expect!["refused: release golden/1 is in use by web"]
        .assert_eq(&world.say(delete_release("golden", Some("1"))));
    expect!["refused: stemcell ubuntu/1 is in use by web"].assert_eq(&world.say(retire_stemcell("1")));
    expect!["refused: stemcell ubuntu/1 is in use by web"].assert_eq(&world.say(delete_stemcell("1")));
    world.step(task, 1, 0, vm_created("vm-1"));
    world.step(task, 1, 1, StepOutcome::Done);
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });

    // The next plan is broken off when the instance is another's already, and its VM still the old one's.
    let mut plan = plan_of(vec![Action::SaveInstance { instance: "i1".into() }]);
    plan.targets[0].spec.stemcell = stemcell("2");
    plan.targets[0].fate = Fate::Updated;
    plan.record = None;
    let task = world.planned(plan);
    let retire = |version: &str| {
        let (name, version) = ("ubuntu".into(), version.into());
        Command::StemcellRetire { task, epoch: EPOCH, name, version }
    };
    expect!["refused: stemcell ubuntu/2 is in use by web"].assert_eq(&world.say(retire("2")));
    world.step(task, 1, 0, StepOutcome::Done);
    expect!["refused: stemcell ubuntu/1 is in use by web"].assert_eq(&world.say(retire("1")));
}

#[test]
fn nobody_plans_with_what_is_being_deleted() {
    let mut world = World::new();
    world.must(Command::TaskQueue {
        kind: TaskKind::DeleteStemcell { name: "ubuntu".into(), version: "1".into(), force: false },
        deployment: None,
        context_id: String::new(),
        locks: Vec::new(),
    });
    world.must(Command::TaskTake { task: TASK, epoch: EPOCH });
    world.must(put_stemcell("1", "x"));
    world.must(put_release(release("golden", "1")));
    // It has read what there is, and has not committed its plan.
    let deploying = world.deploying();
    let commit = |generation| Command::PlanCommit {
        task: deploying,
        epoch: EPOCH,
        draft: 1,
        parts: 0,
        plan: Box::new(Plan { generation, ..plan_of(Vec::new()) }),
    };
    expect!["refused: no such stemcell: ubuntu/9"].assert_eq(&world.say(retire_stemcell("9")));
    world.must(retire_stemcell("1"));
    assert!(world.state().stemcells()[0].retired);
    expect!["refused: deployment web is at generation 1, the plan was made for 0"]
        .assert_eq(&world.say(commit(0)));
    expect!["refused: stemcell ubuntu/1 makes no sense here: it is being deleted"]
        .assert_eq(&world.say(put_stemcell("1", "x")));
    world.must(delete_release("golden", None));
    expect!["refused: deployment web is at generation 2, the plan was made for 1"]
        .assert_eq(&world.say(commit(1)));
    world.must(delete_stemcell("1"));
    assert_eq!(world.state().stemcells(), []);
}

#[test]
fn stemcells_are_one_row_per_cpi() {
    check(
        vec![put_stemcell("1", "x"), put_stemcell("1", "x"), put_stemcell("1", "y"), delete_stemcell("2")],
        expect![[r#"
            Done
            Done
            refused: stemcell exists already: ubuntu/1
            refused: no such stemcell: ubuntu/2
        "#]],
    );
}

#[test]
fn tasks_that_are_not_processed_file_nothing() {
    let mut world = World::new();
    world.queue(deploy(), &[]);
    for command in [
        put_release(release("r", "1")),
        delete_release("r", None),
        put_stemcell("1", "x"),
        delete_stemcell("1"),
    ] {
        expect!["refused: task 1 is queued"].assert_eq(&world.say(command));
    }
}

#[test]
fn compiled_packages_count_their_builds() {
    let mut world = World::new();
    world.deploying();
    let keys = [("p", "1", "a"), ("p", "1", "b"), ("p", "2", "a"), ("p", "1", "a"), ("q", "1", "a")];
    let compiled =
        keys.iter().map(|(name, stemcell, deps)| compiled(package_key(name, stemcell, deps))).collect();
    let release = Box::new(release("golden", "1"));
    world.must(Command::ReleasePut {
        task: TASK,
        epoch: EPOCH,
        release,
        compiled,
        fix: false,
        partial: false,
    });
    let rows = world.state().compiled_packages();
    let show = |row: &model::release::CompiledPackage| {
        format!(
            "{} {} {} build {}\n",
            row.key.name, row.key.stemcell_version, row.key.dependency_key, row.build
        )
    };
    expect![[r#"
        p 1 a build 1
        p 1 b build 2
        p 2 a build 1
        q 1 a build 1
    "#]]
    .assert_eq(&rows.iter().map(show).collect::<String>());
    assert_eq!(world.state().compiled_from(&"p".into(), &"fp".into()).len(), 3);
}
