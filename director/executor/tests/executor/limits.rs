//! What is larger than the log takes, and what no repetition mends: the task ends and frees its locks.

use std::collections::BTreeMap;

use model::BlobDigest;
use model::task::{TaskKind, TaskState};
use serde_json::{Value, json};

use crate::artifacts::{Shape, errand, release, stemcell};
use crate::world::TestWorld;

/// The most that an agent captures of an errand's output.
const CAPTURED_BYTES: usize = 512 << 10;

#[tokio::test]
async fn an_errand_that_prints_much_leaves_the_end_of_it_and_the_whole_as_a_blob() {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    // Each of these bytes takes six in JSON: together three times what an entry may have.
    let (stdout, stderr) = ("\0".repeat(CAPTURED_BYTES), "\u{1}".repeat(CAPTURED_BYTES));
    world.outside.answer("run_errand", json!({"exit_code": 0, "stdout": stdout, "stderr": stderr}));
    let ended = world.run(errand()).await.done();
    assert!(ended.result.len() < 128 << 10, "{} bytes", ended.result.len());
    let line: Value = serde_json::from_str(&ended.result).unwrap();
    for (stream, whole) in [("stdout", stdout), ("stderr", stderr)] {
        let shown = line[stream].as_str().unwrap().strip_prefix("[truncated]\n").unwrap();
        assert!(shown.len() > 4 << 10 && whole.ends_with(shown), "{} bytes of {stream}", shown.len());
        let blob = &line[format!("{stream}_blob")];
        assert_eq!(blob["size"], json!(CAPTURED_BYTES));
        let digest = BlobDigest::new(blob["blobstore_id"].as_str().unwrap());
        let stored = executor::blobs::read_whole(&*world.ports.blobs, &digest).await.unwrap();
        assert!(stored == whole.as_bytes());
    }
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2, "the errand's VM is gone");
}

/// Every way into the log that a task has, and the task that takes it.
async fn ways_into_the_log(world: &TestWorld) -> BTreeMap<&'static str, TaskKind> {
    let blob = world.put(release("other")).await;
    let release = TaskKind::UploadRelease { blob, rebase: false, fix: false };
    let blob = world.put(stemcell()).await;
    let stemcell = TaskKind::UploadStemcell { blob, fix: true };
    let deploy = Shape::default().deploy();
    BTreeMap::from([
        ("log:task_line", deploy.clone()),
        ("log:plan_commit", deploy.clone()),
        ("started:create_vm", deploy.clone()),
        ("finished:bind_vm", deploy),
        ("log:release_put", release),
        ("log:stemcell_put", stemcell),
    ])
}

#[tokio::test]
async fn what_no_entry_holds_ends_the_task() {
    let world = TestWorld::seed().await;
    for (name, kind) in ways_into_the_log(&world).await {
        *world.log.too_large.lock().unwrap() = Some(name);
        let ended = world.run(kind).await;
        assert_eq!(ended.task.state, TaskState::Error, "{name}");
        assert!(ended.task.error.unwrap().message.contains(" bytes, "), "{name}");
        assert!(world.read(|state| state.locks()).is_empty(), "{name}");
    }
    *world.log.too_large.lock().unwrap() = None;
    world.run(Shape::default().deploy()).await.done();
    assert_eq!(world.outside.cloud.cloud().vms.len(), 2);
    world.assert_consistent();
}

#[tokio::test]
async fn a_defect_of_ours_ends_the_task_after_a_few_times() {
    let world = TestWorld::seed().await;
    *world.log.defect.lock().unwrap() = Some("log:plan_commit");
    let error = world.run(Shape::default().deploy()).await.error();
    assert!(error.contains("a defect of its own"), "{error}");
    let met = world.log.proposed.lock().unwrap().iter().filter(|name| *name == "log:plan_commit").count();
    assert_eq!(met, 3);
    assert!(world.read(|state| state.locks()).is_empty());
    *world.log.defect.lock().unwrap() = None;
    world.run(Shape::default().deploy()).await.done();
}

#[tokio::test]
async fn an_error_that_is_longer_than_a_row_should_be_is_cut() {
    let world = TestWorld::seed().await;
    let long = format!("begin {} end", "x".repeat(3 << 20));
    world.outside.behave("pre-start", agent_api::fake::Behaviour::Fail(long));
    let error = world.run(Shape::default().deploy()).await.error();
    assert!(error.len() < 64 << 10, "{} bytes", error.len());
    assert!(error.contains("begin") && error.ends_with("end"), "{error}");
    world.outside.behave_as_usual();
    world.run(Shape::default().deploy()).await.done();
    world.assert_consistent();
}
