//! Blobs of what was deleted: what nothing names any more is forgotten, once nobody can be about to name it.

mod common;

use common::*;
use model::release::{JobInfo, PackageInfo, ReleaseVersion};
use model::task::{OutputKind, TaskError, TaskKind};
use model::*;
use serde_json::Value;
use state::command::*;

fn job(name: &str) -> JobInfo {
    JobInfo {
        name: name.into(),
        fingerprint: format!("fp-{name}").into(),
        digest: String::new(),
        blob: format!("job-{name}").into(),
        packages: Vec::new(),
        properties: Vec::new(),
        provides: Vec::new(),
        consumes: Vec::new(),
        templates: Vec::new(),
        logs: Value::Null,
    }
}

fn package(name: &str) -> PackageInfo {
    PackageInfo {
        name: name.into(),
        fingerprint: package_key(name, "1", "d").fingerprint,
        digest: String::new(),
        source: Some(format!("source-{name}").into()),
        dependencies: Vec::new(),
    }
}

fn content(name: &str, version: &str, parts: &[&str]) -> ReleaseVersion {
    ReleaseVersion {
        jobs: parts.iter().map(|name| job(name)).collect(),
        packages: parts.iter().map(|name| package(name)).collect(),
        ..release(name, version)
    }
}

/// Two versions of `golden` and a `silver`, which have the package and the job `q` together, all with a package compiled for
/// one stemcell, and a task that works with releases.
fn world() -> (World, TaskId) {
    let mut world = World::new();
    let task = world.queue(delete_task(), &["lock:releases"]);
    world.must(Command::TaskTake { task, epoch: EPOCH });
    for name in ["p", "q", "r", "s"] {
        for blob in [format!("job-{name}"), format!("source-{name}"), format!("compiled-{name}")] {
            let (digest, size_bytes, nodes) = (blob.as_str().into(), 1, vec![NodeId(1)]);
            world.must(Command::BlobHeld { digest, size_bytes, nodes });
        }
    }
    for (name, version, parts) in
        [("golden", "1", ["p", "q"]), ("golden", "2", ["p", "r"]), ("silver", "1", ["q", "s"])]
    {
        world.must(put(task, content(name, version, &parts), false));
    }
    (world, task)
}

fn put(task: TaskId, release: ReleaseVersion, fix: bool) -> Command {
    let row = |package: &PackageInfo| {
        let mut row = compiled(package_key(package.name.as_str(), "1", "d"));
        row.blob = format!("compiled-{}", package.name).as_str().into();
        row
    };
    let compiled = release.packages.iter().map(row).collect();
    Command::ReleasePut { task, epoch: EPOCH, release: Box::new(release), compiled, fix, partial: false }
}

fn delete_task() -> TaskKind {
    TaskKind::DeleteRelease { name: "golden".into(), version: None }
}

fn delete(task: TaskId, name: &str, version: Option<&str>) -> Command {
    let (name, version) = (name.into(), version.map(Into::into));
    Command::ReleaseDelete { task, epoch: EPOCH, name, version, with_compiled: true }
}

fn finish(world: &mut World, task: TaskId) {
    world.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) });
}

/// As the leader does it from time to time.
fn forget(world: &mut World) {
    let before = Timestamp(world.now);
    let digests = world.state().forgettable_blobs(before).into_iter().collect();
    world.must(Command::BlobsForget { digests, before });
}

fn blobs(world: &World) -> Vec<String> {
    world.state().blobs().iter().map(|blob| blob.digest.to_string()).collect()
}

const ALL: [&str; 12] = [
    "compiled-p",
    "compiled-q",
    "compiled-r",
    "compiled-s",
    "job-p",
    "job-q",
    "job-r",
    "job-s",
    "source-p",
    "source-q",
    "source-r",
    "source-s",
];

#[test]
fn what_other_releases_have_too_stays() {
    let (mut world, task) = world();
    world.must(delete(task, "golden", None));
    finish(&mut world, task);
    forget(&mut world);
    let kept = ["compiled-q", "compiled-s", "job-q", "job-s", "source-q", "source-s"];
    assert_eq!(blobs(&world), kept);
    assert!(
        !world.state().is_forgettable(&"job-q".into()),
        "it is named: that was looked at once and for all"
    );
}

#[test]
fn what_an_open_task_may_have_found_stays_until_it_has_ended() {
    let (mut world, task) = world();
    let earlier = world.deploying();
    world.must(delete(task, "golden", None));
    let later = world.queue(deploy(), &["lock:deployment:other"]);
    finish(&mut world, task);
    forget(&mut world);
    assert_eq!(blobs(&world), ALL, "the deploy has looked before");
    finish(&mut world, earlier);
    let before = Timestamp(START);
    world.must(Command::BlobsForget { digests: vec!["job-p".into()], before });
    assert_eq!(blobs(&world), ALL, "they were left later than that");
    forget(&mut world);
    assert_eq!(blobs(&world).len(), 6, "who comes later can't have found them in a release");
    assert!(world.state().task(later).is_some());
}

#[test]
fn what_is_stored_again_waits_anew_and_stays_if_it_is_named() {
    let (mut world, task) = world();
    world.must(delete(task, "golden", None));
    let upload = world.queue(delete_task(), &["lock:releases"]);
    finish(&mut world, task);
    world.must(Command::TaskTake { task: upload, epoch: EPOCH });
    for digest in ["job-r", "source-r"] {
        world.must(Command::BlobKeep { digest: digest.into() });
    }
    forget(&mut world);
    assert!(blobs(&world).contains(&"job-r".to_owned()) && !blobs(&world).contains(&"job-p".to_owned()));
    assert!(world.say(Command::BlobKeep { digest: "job-p".into() }).contains("no such blob: job-p"));
    let only = ReleaseVersion { packages: Vec::new(), ..content("gold", "1", &["r"]) };
    world.must(put(upload, only, false));
    finish(&mut world, upload);
    forget(&mut world);
    assert!(blobs(&world).contains(&"job-r".to_owned()), "it is named again");
    assert!(!blobs(&world).contains(&"source-r".to_owned()), "it was stored in vain");
}

fn upload(blob: &str) -> TaskKind {
    TaskKind::UploadRelease { blob: blob.into(), rebase: false, fix: false }
}

fn hold(world: &mut World, digest: &str) {
    let (digest, size_bytes, nodes) = (digest.into(), 1, vec![NodeId(1)]);
    world.must(Command::BlobHeld { digest, size_bytes, nodes });
}

#[test]
fn an_archive_goes_when_the_last_task_has_ended_that_reads_it() {
    let (mut world, task) = world();
    hold(&mut world, "archive");
    let [first, second, third] = [(); 3].map(|()| world.queue(upload("archive"), &["lock:releases"]));
    finish(&mut world, task);
    world.must(Command::TaskTake { task: first, epoch: EPOCH });
    finish(&mut world, first);
    forget(&mut world);
    assert!(blobs(&world).contains(&"archive".to_owned()), "others wait to read it");
    world.must(Command::TaskTake { task: second, epoch: EPOCH });
    let error = TaskError::plain("no release");
    world.must(Command::TaskFinish { task: second, epoch: EPOCH, end: TaskEnd::Error(error) });
    forget(&mut world);
    assert!(blobs(&world).contains(&"archive".to_owned()), "one waits still");
    world.must(Command::TaskCancel { task: third });
    forget(&mut world);
    assert_eq!(blobs(&world), ALL, "nobody reads it any more, and parts that are named stay");
}

#[test]
fn what_an_upload_stored_goes_unless_it_was_filed() {
    let (mut world, task) = world();
    let upload = world.queue(upload("archive"), &["lock:releases"]);
    finish(&mut world, task);
    world.must(Command::TaskTake { task: upload, epoch: EPOCH });
    for digest in ["job-new", "source-new", "unfiled"] {
        hold(&mut world, digest);
    }
    let leave = |epoch| {
        let digests = ["job-new", "source-new", "unfiled", "job-p"].map(Into::into).to_vec();
        Command::BlobsLeave { task: upload, epoch, digests }
    };
    assert!(world.say(leave(Epoch(0))).contains("refused"));
    world.must(leave(EPOCH));
    forget(&mut world);
    assert!(blobs(&world).contains(&"unfiled".to_owned()), "the upload is open, whoever leads");
    world.must(put(upload, content("new", "1", &["new"]), false));
    finish(&mut world, upload);
    assert!(world.say(leave(EPOCH)).contains("refused"), "it has ended");
    forget(&mut world);
    assert!(!blobs(&world).contains(&"unfiled".to_owned()));
    for digest in ["job-new", "source-new", "job-p"] {
        assert!(blobs(&world).contains(&digest.to_owned()), "{digest}");
    }
}

#[test]
fn what_fix_replaces_goes() {
    let (mut world, task) = world();
    let mut other = content("silver", "1", &["q", "s"]);
    other.jobs[0].blob = "job-p".into();
    other.jobs[1].blob = "job-p".into();
    let Command::ReleasePut { task, epoch, release, mut compiled, fix, partial } = put(task, other, true)
    else {
        unreachable!("it is one")
    };
    compiled[1].blob = "compiled-p".into();
    world.must(Command::ReleasePut { task, epoch, release, compiled, fix, partial });
    finish(&mut world, task);
    forget(&mut world);
    let gone: Vec<&str> =
        ALL.into_iter().filter(|blob| !blobs(&world).contains(&(*blob).to_owned())).collect();
    assert_eq!(gone, ["compiled-s", "job-s"], "golden/1 has the other job still");
}

#[test]
fn what_goes_is_told_with_the_release_and_what_its_other_versions_have_is_not() {
    let (mut world, task) = world();
    world.must(delete(task, "golden", Some("2")));
    world.must(delete(task, "golden", None));
    let told = String::from_utf8(world.state().output(task, OutputKind::Event, 0, usize::MAX)).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        format!("{}: {} {}/{} {}", text("stage"), text("task"), line["index"], line["total"], text("state"))
    };
    let started = told.lines().map(line).filter(|line| line.ends_with("started")).collect::<Vec<_>>();
    let print = |name: &str| package_key(name, "1", "d").fingerprint;
    let expected = [
        format!("Deleting packages: r/{} 1/1 started", print("r")),
        "Deleting jobs: r/fp-r 1/1 started".to_owned(),
        format!("Deleting packages: p/{} 1/2 started", print("p")),
        format!("Deleting packages: q/{} 2/2 started", print("q")),
        "Deleting jobs: p/fp-p 1/2 started".to_owned(),
        "Deleting jobs: q/fp-q 2/2 started".to_owned(),
        "Deleting release versions: golden/1 1/1 started".to_owned(),
    ];
    assert_eq!(started, expected);
    assert_eq!(told.lines().count(), 2 * started.len(), "each ends, too");
}
