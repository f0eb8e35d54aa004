//! Archives that others keep: fetched once they are asked for, checked, and filed as those that were brought.

use model::task::{RemoteArchive, TaskKind, TaskState};
use model::{BlobDigest, ErrorCode, NodeId};
use release::digest::{Algorithm, Hashed};
use serde_json::json;
use state::command::Command;
use state::records::{LineState, Member};

use crate::artifacts;
use crate::gate::{Point, Side};
use crate::web::Page;
use crate::world::TestWorld;

const URL: &str = "https://me:secret@there/spare.tgz?signature=secret";

fn archive(world: &TestWorld, digest: Option<&str>) -> RemoteArchive {
    let location = world.ports.vault.seal(RemoteArchive::SEALED_AS, &json!(URL));
    RemoteArchive { location, digest: digest.map(Into::into) }
}

fn release(world: &TestWorld, digest: Option<&str>) -> TaskKind {
    TaskKind::FetchRelease { archive: archive(world, digest), rebase: false, fix: false }
}

/// A world in which somebody keeps something there.
async fn keeping(page: Page) -> TestWorld {
    let world = TestWorld::seed().await;
    world.web.pages.lock().unwrap().insert(URL.to_owned(), page);
    world
}

fn has_release(world: &TestWorld, name: &str) -> bool {
    world.read(|state| state.releases().iter().any(|found| found.release.name.as_str() == name))
}

#[tokio::test]
async fn a_release_is_fetched_and_filed() {
    let content = artifacts::release("spare");
    let hashed = Hashed::of(&content);
    let sha1 = hashed.hex(Algorithm::Sha1).to_owned();
    let several = format!("{sha1};sha256:{}", hashed.hex(Algorithm::Sha256));
    for digest in [None, Some(sha1.as_str()), Some(several.as_str())] {
        let world = keeping(Page::Whole(content.clone())).await;
        let ended = world.run(release(&world, digest)).await.done();
        assert_eq!(ended.task.result.as_deref(), Some("Created release 'spare/1'"));
        assert!(has_release(&world, "spare"));
        let lines = ended.lines();
        assert_eq!(lines[0], "Downloading remote release: Downloading remote release 1/1 started");
        let verified =
            lines.contains(&"Verifying remote release: Verifying remote release 1/1 finished".to_owned());
        assert_eq!(verified, digest.is_some(), "{lines:?}");
    }
}

#[tokio::test]
async fn a_stemcell_is_fetched_and_handed_to_the_cloud() {
    let content = artifacts::stemcell_with("2", "not a disk either");
    let digest = format!("sha256:{}", Hashed::of(&content).hex(Algorithm::Sha256));
    let world = keeping(Page::Whole(content)).await;
    let archive = archive(&world, Some(&digest));
    let ended = world.run(TaskKind::FetchStemcell { archive, fix: false }).await.done();
    assert_eq!(ended.task.result.as_deref(), Some("/stemcells/small-stemcell/2"));
    assert_eq!(
        ended.lines()[..6],
        [
            "Update stemcell: Downloading remote stemcell 1/7 started",
            "Update stemcell: Downloading remote stemcell 1/7 finished",
            "Update stemcell: Verifying remote stemcell 2/7 started",
            "Update stemcell: Verifying remote stemcell 2/7 finished",
            "Update stemcell: Extracting stemcell archive 3/7 started",
            "Update stemcell: Extracting stemcell archive 3/7 finished",
        ]
    );
    let last = ended.lines().pop().unwrap();
    assert!(last.contains("Save stemcell small-stemcell/2") && last.ends_with("7/7 finished"), "{last}");
}

#[tokio::test]
async fn what_can_not_be_fetched_is_told_in_boshs_words() {
    let whole = artifacts::release("spare");
    let other = "0".repeat(40);
    let failed = "Downloading remote release failed. Check task debug log for details.";
    let cases = [
        (Page::Error("nobody answers"), None, ErrorCode::ResourceError, failed),
        (Page::BrokenOff(whole[..100].to_vec()), None, ErrorCode::ResourceError, failed),
        (Page::RedirectsOn, None, ErrorCode::ResourceError, "Too many redirects at 'http://shown'."),
        (Page::Whole(whole.clone()), Some(other.as_str()), ErrorCode::ReleaseDigestMismatch, "but was"),
        (Page::Whole(whole), Some("md5:1"), ErrorCode::ReleaseDigestMismatch, "is not a digest"),
    ];
    for (page, digest, code, text) in cases {
        let world = keeping(page).await;
        let ended = world.run(release(&world, digest)).await;
        let error = ended.task.error.clone().unwrap();
        assert_eq!(error.code, code.number(), "{error}");
        assert!(error.message.contains(text), "{error}");
        assert!(!has_release(&world, "spare"));
        assert_no_secret(&world, &ended.events);
    }
    let world = TestWorld::seed().await;
    let error = world.run(release(&world, None)).await.task.error.unwrap();
    assert_eq!(error.code, ErrorCode::ResourceNotFound.number());
    assert_eq!(error.message, "No release found at 'http://shown'.");
}

#[track_caller]
fn assert_no_secret(world: &TestWorld, events: &str) {
    let tasks = world.read(|state| format!("{:?}", state.tasks(&Default::default())));
    for (what, text) in [("events", events.to_owned()), ("debug", world.debug()), ("tasks", tasks)] {
        assert!(!text.contains("secret"), "{what}: {text}");
    }
}

#[tokio::test]
async fn an_archive_that_is_not_the_announced_one_is_not_stored() {
    let content = artifacts::release("spare");
    let digest = BlobDigest::new(Hashed::of(&content).hex(Algorithm::Sha256));
    let world = keeping(Page::Whole(content)).await;
    world.run(release(&world, Some(&"0".repeat(40)))).await.error();
    assert!(!world.ports.blobs.has(&digest).await.unwrap());
}

#[tokio::test]
async fn an_archive_that_the_fleet_holds_is_not_fetched_again() {
    let content = artifacts::release("spare");
    let world = keeping(Page::Whole(content.clone())).await;
    let size_bytes = content.len() as u64;
    let blob = world.put(content).await;
    let digest = format!("sha256:{blob}");
    // Copies of those who are not members count for nothing.
    let member = Member {
        node: NodeId(1),
        name: "one".into(),
        api_address: "one:1".into(),
        peer_address: "one:2".into(),
        agent_address: "one:3".into(),
        version: "0".into(),
        feature_level: state::command::FEATURE_LEVEL,
    };
    world.apply(Command::MemberPut { member });
    world.apply(Command::BlobHeld { digest: blob, size_bytes, nodes: vec![NodeId(1)] });
    world.run(release(&world, Some(&digest))).await.done();
    assert!(has_release(&world, "spare"));
    assert_eq!(world.web.asked(), 0);
}

#[tokio::test]
async fn another_leader_goes_on_with_a_fetch() {
    let at = |name: &str, nth, side| Point { name: name.into(), nth, side };
    for point in [
        at("web:open", 1, Side::Before),
        at("web:open", 1, Side::After),
        // In the middle of what follows: lines are told, the release is not filed yet.
        at("log", 6, Side::Before),
        at("log", 6, Side::After),
    ] {
        let world = keeping(Page::Whole(artifacts::release("spare"))).await;
        let ended = world.run_through(release(&world, None), point).await.done();
        assert_eq!(ended.task.result.as_deref(), Some("Created release 'spare/1'"));
        let lines = ended.lines();
        let told = lines.iter().filter(|line| line.starts_with("Downloading")).count();
        assert_eq!(told, 2, "no line is told twice: {lines:?}");
        assert_eq!(world.web.asked(), 2);
    }
}

#[tokio::test]
async fn a_fetch_that_stalls_can_be_cancelled() {
    let world = keeping(Page::Stalled(vec![0; 100])).await;
    let id = world.queue(release(&world, None));
    world
        .until("it is fetched", |state| {
            state
                .has_line(id, "Downloading remote release", "Downloading remote release", LineState::Started)
                .then_some(())
        })
        .await;
    world.apply(Command::TaskCancel { task: id });
    assert_eq!(world.ended(id).await.task.state, TaskState::Cancelled);
}

#[tokio::test]
async fn a_location_that_is_no_text_is_told() {
    let world = TestWorld::seed().await;
    let location = world.ports.vault.seal(RemoteArchive::SEALED_AS, &json!({ "not": "a text" }));
    let archive = RemoteArchive { location, digest: None };
    let kind = TaskKind::FetchRelease { archive, rebase: false, fix: false };
    assert_eq!(world.run(kind).await.error(), "a location of an archive is a text");
}
