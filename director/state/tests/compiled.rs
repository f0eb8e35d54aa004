//! Compiled releases: parts of one, what is compiled and goes with the last release that has it, and archives that exports left.

mod common;

use common::*;
use model::release::{JobInfo, PackageInfo, ReleaseVersion};
use model::task::TaskKind;
use model::*;
use serde_json::Value;
use state::command::*;

const TASK: TaskId = TaskId(1);

#[test]
fn what_was_compiled_goes_with_the_last_release_that_has_the_package() {
    let mut world = World::new();
    world.deploying();
    let package = |name: &str| PackageInfo {
        name: name.into(),
        fingerprint: package_key(name, "1", "d").fingerprint,
        digest: String::new(),
        source: None,
        dependencies: Vec::new(),
    };
    for (name, packages) in [("golden", ["p", "q"]), ("silver", ["q", "r"])] {
        let keys = packages.iter().flat_map(|name| ["1", "2"].map(|on| package_key(name, on, "d")));
        let content = ReleaseVersion { packages: packages.map(package).to_vec(), ..release(name, "1") };
        let (release, compiled) = (Box::new(content), keys.map(compiled).collect());
        let (task, fix, partial) = (TASK, false, false);
        world.must(Command::ReleasePut { task, epoch: EPOCH, release, compiled, fix, partial });
    }
    let left = |world: &World| -> Vec<String> {
        let rows = world.state().compiled_packages();
        rows.iter().map(|row| format!("{}/{}", row.key.name, row.key.stemcell_version)).collect()
    };
    assert_eq!(left(&world), ["p/1", "p/2", "q/1", "q/2", "r/1", "r/2"]);
    let delete = |name: &str, with_compiled| {
        let (name, version) = (name.into(), None);
        Command::ReleaseDelete { task: TASK, epoch: EPOCH, name, version, with_compiled }
    };
    world.must(delete("golden", true));
    assert_eq!(left(&world), ["q/1", "q/2", "r/1", "r/2"]);
    world.must(delete("silver", false));
    assert_eq!(left(&world).len(), 4, "as long as not all members know of it");
}

#[test]
fn a_part_of_a_release_is_taken_for_it_and_completed_later() {
    let mut world = World::new();
    world.deploying();
    let job = |name: &str| JobInfo {
        name: name.into(),
        fingerprint: format!("fp-{name}").into(),
        digest: String::new(),
        blob: "b".into(),
        packages: Vec::new(),
        properties: Vec::new(),
        provides: Vec::new(),
        consumes: Vec::new(),
        templates: Vec::new(),
        logs: Value::Null,
    };
    let whole = ReleaseVersion { jobs: vec![job("one"), job("two")], ..release("golden", "1") };
    let some = ReleaseVersion { jobs: vec![job("one")], ..whole.clone() };
    let put = |content: &ReleaseVersion, partial| {
        let (release, compiled, fix) = (Box::new(content.clone()), Vec::new(), false);
        Command::ReleasePut { task: TASK, epoch: EPOCH, release, compiled, fix, partial }
    };
    world.must(put(&some, false));
    assert!(world.say(put(&whole, false)).contains("refused"), "as before there were parts");
    world.must(put(&whole, true));
    world.must(put(&some, true));
    let stored = world.state().release(&"golden".into(), &"1".into()).unwrap();
    assert_eq!(stored.jobs, whole.jobs);
    let mut other = some.clone();
    other.jobs[0].fingerprint = "other".into();
    assert!(world.say(put(&other, true)).contains("refused"));
}

#[test]
fn an_exported_release_is_kept_until_it_is_forgotten_or_somebody_is_about_to_read_it() {
    let mut world = World::new();
    let held =
        |digest: &str| Command::BlobHeld { digest: digest.into(), size_bytes: 1, nodes: vec![NodeId(1)] };
    let archives = ["one", "two", "uploaded"];
    archives.iter().for_each(|digest| drop(world.must(held(digest))));
    world.now += 3_600_000;
    let task = world.deploying();
    let put = |digest: &str| Command::ExportPut { task, epoch: EPOCH, digest: digest.into() };
    archives.iter().for_each(|digest| drop(world.must(put(digest))));
    let exports = |world: &World| -> Vec<String> {
        world.state().exports().into_iter().map(|(digest, _)| digest.to_string()).collect()
    };
    assert_eq!(exports(&world), archives, "the directors made them, however long the same bytes were there");
    let stale = Command::ExportPut { task, epoch: Epoch(0), digest: "one".into() };
    assert!(world.say(stale).contains("refused"));
    let nobodys = Command::ExportPut { task: TaskId(99), epoch: EPOCH, digest: "one".into() };
    assert!(world.say(nobodys).contains("refused"));
    let before = Timestamp(world.now);
    world.now += 60_000;
    world.must(put("two"));
    let upload = TaskKind::UploadRelease { blob: "uploaded".into(), rebase: false, fix: false };
    let (deployment, context_id, locks) = (None, String::new(), Vec::new());
    let queued = world.must(Command::TaskQueue { kind: upload, deployment, context_id, locks });
    let Outcome::TaskQueued(upload) = queued else { panic!("{queued:?}") };
    let digests = archives.map(Into::into).to_vec();
    world.must(Command::BundlesForget { digests, before });
    assert_eq!(exports(&world), ["two"], "it was exported once more meanwhile");
    let known = |world: &World| -> Vec<String> {
        world.state().blobs().iter().map(|blob| blob.digest.to_string()).collect()
    };
    assert_eq!(known(&world), archives, "an export that is under way may have found it here");
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
    let forget = |world: &mut World| {
        let before = Timestamp(world.now);
        let digests = world.state().forgettable_blobs(before).into_iter().collect();
        world.must(Command::BlobsForget { digests, before });
    };
    forget(&mut world);
    assert_eq!(known(&world), archives, "an upload that waits is older than no task that may name it");
    world.must(Command::TaskCancel { task: upload });
    forget(&mut world);
    assert_eq!(known(&world), ["two"], "nobody waits for them");
}
