//! `logs`: one archive of one instance, an archive of archives of several, whoever leads.

use std::collections::BTreeSet;
use std::io::Read as _;

use agent_api::fake::Behaviour;
use flate2::read::GzDecoder;
use model::task::{TaskKind, TaskState};
use model::{BlobDigest, InstanceId};
use serde_json::{Value, json};
use state::command::Command;
use tokio::io::AsyncReadExt as _;

use crate::artifacts::Shape;
use crate::ended::Ended;
use crate::gate::{Point, Side};
use crate::world::TestWorld;

/// What agents pack here.
const LOGS: &[u8] = b"logs of an instance";

/// A deployment of two instances whose agents have logs.
async fn deployed() -> TestWorld {
    let world = TestWorld::seed().await;
    world.run(Shape::default().deploy()).await.done();
    let digest = world.put(LOGS.to_vec()).await;
    world.apply(Command::BlobHeld { digest: digest.clone(), size_bytes: 19, nodes: vec![model::NodeId(1)] });
    world.outside.answer("fetch_logs", json!({ "blobstore_id": digest, "sha1": "" }));
    world
}

fn instances(world: &TestWorld) -> Vec<InstanceId> {
    let all = world.read(|state| state.instances(&"p".into()));
    all.into_iter().map(|instance| instance.spec.id).collect()
}

fn of(instances: Vec<InstanceId>) -> TaskKind {
    TaskKind::FetchLogs { instances, logs: "job".into(), filters: vec!["*.log".into()] }
}

/// Returns the blob that is a task's result.
async fn content(world: &TestWorld, ended: &Ended) -> Vec<u8> {
    let digest = BlobDigest::new(ended.task.result.clone().unwrap());
    let mut content = Vec::new();
    world.ports.blobs.get(&digest).await.unwrap().read_to_end(&mut content).await.unwrap();
    content
}

fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        (entry.path().unwrap().display().to_string(), body)
    };
    tar.entries().unwrap().map(read).collect()
}

#[tokio::test]
async fn the_logs_of_one_instance_are_its_archive() {
    let world = deployed().await;
    let ended = world.run(of(vec![world.first_web()])).await.done();
    assert_eq!(content(&world, &ended).await, LOGS);
    assert_eq!(
        ended.lines(),
        [
            "Fetching logs for web/<id> (0): Finding and packing log files 1/1 started",
            "Fetching logs for web/<id> (0): Finding and packing log files 1/1 finished",
        ]
        .map(|line| line.replace("<id>", world.first_web().as_str()))
    );
    let bundles =
        world.read(|state| state.bundles().map(|(digest, _)| digest.to_string()).collect::<Vec<_>>());
    assert_eq!(bundles, [ended.task.result.unwrap()], "it is not kept for ever");
    assert_eq!(ended.result, "", "the result's text is elsewhere");
}

/// It may have dialled in a moment ago, and the watchers not have heard of it yet.
#[tokio::test]
async fn an_agent_that_was_called_dead_is_asked_whether_it_is() {
    let world = deployed().await;
    let agent = world.read(|state| state.active_vm(&world.first_web()).unwrap()).agent;
    world.call_dead(&agent);
    let ended = world.run(of(vec![world.first_web()])).await.done();
    assert_eq!(content(&world, &ended).await, LOGS);
    world.outside.hush(&agent);
    let error = world.run(of(vec![world.first_web()])).await.error();
    assert!(error.contains("is not connected to any director"), "{error}");
}

#[tokio::test]
async fn the_logs_of_several_are_packed_together_under_their_names() {
    let world = deployed().await;
    // The instance of the errand's group has no VM, and so no logs.
    let ended = world.run(of(instances(&world))).await.done();
    let found = files(&content(&world, &ended).await);
    let with_vms: BTreeSet<String> = world.read(|state| {
        let all = state.instances(&"p".into()).into_iter().map(|instance| instance.spec);
        let with_vms = all.filter(|spec| state.active_vm(&spec.id).is_some());
        with_vms.map(|spec| format!("{}.{}", spec.group, spec.id)).collect()
    });
    let named: BTreeSet<String> =
        found.iter().map(|(name, _)| name.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")).collect();
    assert_eq!((named.len(), &named), (2, &with_vms));
    assert!(found.iter().all(|(name, body)| name.ends_with(".tgz") && body == LOGS), "{found:?}");
}

#[tokio::test]
async fn another_leader_ends_up_with_the_same_archive() {
    let at = |name: &str, nth, side| Point { name: name.into(), nth, side };
    for point in [
        at("agent:fetch_logs", 1, Side::Before),
        at("agent:fetch_logs", 2, Side::After),
        at("log", 3, Side::After),
        at("log", 6, Side::After),
        at("log", 9, Side::Before),
    ] {
        let world = deployed().await;
        let case = format!("{point:?}");
        let ended = world.run_through(of(instances(&world)), point).await.done();
        assert_eq!(files(&content(&world, &ended).await).len(), 2, "{case}");
        assert_eq!(world.outside.done("fetch_logs"), 2, "each agent has packed once: {case}");
        assert_eq!(ended.lines().len(), 6, "{case}: {:?}", ended.lines());
    }
}

#[tokio::test]
async fn an_agent_that_has_no_logs_to_give_fails_the_task() {
    let world = deployed().await;
    for (behaviour, text) in [
        (Behaviour::Fail("Invalid log type".into()), "Invalid log type"),
        (Behaviour::Give(json!({ "blobstore_id": "0".repeat(64) })), "nobody holds them"),
        (Behaviour::Give(json!({ "blobstore_id": "../../etc" })), "web/"),
        (Behaviour::Give(json!({ "blobstore_id": null })), "not where they are"),
    ] {
        world.outside.behave("fetch_logs", behaviour);
        let error = world.run(of(instances(&world))).await.error();
        assert!(error.contains(text), "{error}");
    }
    let gone = world.kill_a_vm();
    let error = world.run(of(vec![gone])).await.error();
    assert!(error.contains("can't be reached"), "{error}");
    assert!(world.run(of(vec!["never-there".into()])).await.error().contains("has a VM any more"));
}

#[tokio::test]
async fn nobody_waits_for_logs_that_are_not_wanted_any_more() {
    let world = deployed().await;
    world.outside.behave("fetch_logs", Behaviour::Hang { then: Value::Null });
    let task = world.queue(of(instances(&world)));
    world.until_asked("fetch_logs", 2).await;
    world.apply(Command::TaskCancel { task });
    assert_eq!(world.ended(task).await.task.state, TaskState::Cancelled);
}
