//! What has broken others who spoke BOSH's protocol: `docs/traps.md` lists it, with the test that would see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use model::instance::{InstanceState, ReleaseRef};
use model::release::{CompiledPackage, PackageInfo, ReleaseVersion};
use model::step::PackageRefKey;
use model::task::{StateChange, TaskKind};
use serde_json::{Value, json};
use state::State;
use state::command::Command;
use state::log::CommandLog as _;

use super::tests::{Client, task};
use crate::test_support::replica::Replica;
use crate::test_support::state::EPOCH;

const MANIFEST: &str = "name: web\nreleases: []\n";
const PAGE: &str = include_str!("../../../../docs/traps.md");

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        match path.is_dir() {
            true if !matches!(name.as_str(), "target" | ".git" | ".demo") => sources(&path, found),
            false if name.ends_with(".rs") => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn every_trap_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| trap"));
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "a trap without a test: {row}");
        tests.into_iter().for_each(|test| *named.entry(test).or_default() += 1);
    }
    assert!(named.len() > 20, "{named:?}");
    let is_there = |test: &str| texts.iter().any(|text| text.contains(&format!("fn {test}(")));
    let missing: Vec<&&str> = named.keys().filter(|test| !is_there(test)).collect();
    assert!(missing.is_empty(), "docs/traps.md names tests that there are not: {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_pointed_to_by_a_path_without_a_host() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let host = [("host", "director.example.org:25555")];
    let filed = admin.send_with("POST", "/deployments", MANIFEST, &host).await;
    assert_eq!(filed.status, StatusCode::FOUND, "and it is no 307: that would lose the body");
    // `task` takes nothing but `/tasks/N`.
    task(&filed);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_texts_are_what_the_cli_reads() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let id = task(&admin.send("POST", "/deployments", MANIFEST).await);
    replica.must(Command::TaskTake { task: id, epoch: EPOCH }).await;
    let config = admin.send("POST", "/configs", r#"{"type":"x","name":"n","content":"a: 1"}"#).await.json();
    assert!(config["id"].is_string(), "{config}");
    let one = |rows: Value| rows.as_array().and_then(|rows| rows.first()).cloned().unwrap_or_default();
    let lock = one(admin.get("/locks").await.json());
    assert!(lock["task_id"].is_string() && lock["timeout"].is_string(), "{lock}");
    assert_eq!((&lock["type"], &lock["resource"]), (&json!("deployment"), &json!(["web"])));
    let event = one(admin.get("/events").await.json());
    assert!(event["id"].is_string() && event["timestamp"].is_u64(), "{event}");
    let row = one(admin.get("/tasks?state=processing").await.json());
    assert!(row["id"].is_u64() && row["started_at"].is_u64(), "{row}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_in_full_is_a_task_although_it_is_a_get() {
    let (replica, _) = Replica::with_agent().await;
    let admin = Client::of(&replica, "admin");
    for path in ["/deployments/web/instances?format=full", "/deployments/web/vms?format=full"] {
        task(&admin.get(path).await);
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_shown_in_the_plural_and_cancelled_in_the_singular() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let id = task(&admin.send("POST", "/deployments", MANIFEST).await);
    assert_eq!(admin.get(&format!("/task/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.send("DELETE", &format!("/tasks/{id}"), "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.get(&format!("/tasks/{id}")).await.json()["state"], "queued");
    let cancelled = admin.send("DELETE", &format!("/task/{id}"), "").await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT, "{cancelled:?}");
    assert_eq!(admin.get(&format!("/tasks/{id}")).await.json()["state"], "cancelled");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_is_not_there_yet_is_compared_with_nothing() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let diff = admin.send("POST", "/deployments/new/diff", "name: new\nreleases: []\n").await;
    assert_eq!(diff.status, StatusCode::OK, "{diff:?}");
    let diff = diff.json();
    assert!(diff["context"]["cloud_config_ids"].is_array(), "{diff}");
    assert!(diff["diff"].as_array().is_some_and(|lines| !lines.is_empty()), "{diff}");
    // The CLI asks for this before each deploy.
    let deploy_configs = admin.get("/configs?type=deploy&latest=true").await;
    assert_eq!((deploy_configs.status, deploy_configs.json()), (StatusCode::OK, json!([])));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_means_that_no_config_was_seen() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let put = async |content: &str, seen: &str| {
        let body = json!({ "type": "x", "name": "n", "content": content, "expected_latest_id": seen });
        admin.send("POST", "/configs", &body.to_string()).await
    };
    let first = put("a: 1", "0").await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let late = put("a: 2", "0").await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED, "there is one now: {late:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(put("a: 2", &id).await.status, StatusCode::CREATED);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_state_without_a_body_is_of_what_was_deployed() {
    let (replica, _) = Replica::with_agent().await;
    let admin = Client::of(&replica, "admin");
    let yaml = [("content-type", "text/yaml"), ("content-length", "0")];
    let path = "/deployments/web/jobs/*?state=stopped";
    let id = task(&admin.send_with("PUT", path, "", &yaml).await);
    let view = replica.log.view();
    let kind = State::new(&*view).task(id).unwrap().kind;
    let TaskKind::ChangeState { change, filter, .. } = kind else { panic!("{kind:?}") };
    assert_eq!(change, StateChange::Become(InstanceState::Stopped));
    assert_eq!((filter.group, filter.id_or_index), (None, None), "the star stands for all");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_here_of_a_release_is_said_to_be() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let id = task(&admin.send("POST", "/deployments", MANIFEST).await);
    replica.must(Command::TaskTake { task: id, epoch: EPOCH }).await;
    let package = |name: &str, source: Option<&str>| PackageInfo {
        name: name.into(),
        fingerprint: "f".into(),
        digest: String::new(),
        source: source.map(Into::into),
        dependencies: Vec::new(),
    };
    let release = ReleaseVersion {
        release: ReleaseRef { name: "r".into(), version: "1".into() },
        commit_hash: String::new(),
        uncommitted_changes: false,
        jobs: Vec::new(),
        packages: vec![package("with-source", Some("b")), package("compiled", None)],
        uploaded_at: Default::default(),
    };
    let key = PackageRefKey {
        name: "compiled".into(),
        fingerprint: "f".into(),
        os: "os".into(),
        stemcell_version: "1".into(),
        dependency_key: "[]".into(),
    };
    let compiled =
        vec![CompiledPackage { key, build: 1, blob: "b".into(), digest: String::new(), size_bytes: 1 }];
    let (release, fix, partial) = (Box::new(release), false, false);
    replica.must(Command::ReleasePut { task: id, epoch: EPOCH, release, compiled, fix, partial }).await;
    let (sources, compiled) = ("packages", "compiled_packages");
    for (section, name, stemcell, matches) in [
        (sources, "with-source", "os/1", json!(["f"])),
        (sources, "compiled", "os/1", json!([])),
        (compiled, "with-source", "os/1", json!([])),
        (compiled, "compiled", "os/1", json!(["f"])),
        (compiled, "compiled", "os/2", json!([])),
    ] {
        let path = if section == sources { "/packages/matches" } else { "/packages/matches_compiled" };
        let sha1 = "0".repeat(40);
        let package = format!(
            "{{name: {name}, version: f, fingerprint: f, sha1: '{sha1}', dependencies: [], stemcell: {stemcell}}}"
        );
        let manifest = format!("name: r\nversion: '1'\n{section}:\n- {package}\n");
        let answer = admin.send("POST", path, &manifest).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, matches), "{section} {name} {stemcell}");
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_sent_as_it_is_so_that_its_bytes_can_be_counted() {
    let (replica, _) = Replica::with_agent().await;
    let admin = Client::of(&replica, "admin");
    let id = task(&admin.get("/deployments/web/vms?format=full").await);
    replica.must(Command::TaskTake { task: id, epoch: EPOCH }).await;
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(4000));
    replica.must(Command::TaskReport { task: id, epoch: EPOCH, lines: line.clone() }).await;
    let accepts = [("accept-encoding", "gzip"), ("range", "bytes=0-")];
    let answer = admin.send_with("GET", &format!("/tasks/{id}/output?type=result"), "", &accepts).await;
    assert_eq!((answer.header("content-encoding"), answer.body.as_str()), ("", line.as_str()));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_tasks_leave_none_out() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let first = task(&admin.send("POST", "/deployments", MANIFEST).await);
    let refused = admin.send("DELETE", "/deployments/none", "").await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    admin.send("POST", "/configs", r#"{"type":"x","name":"n","content":"a: 1"}"#).await;
    let second = task(&admin.send("POST", "/deployments", "name: other\nreleases: []\n").await);
    assert_eq!(second.0, first.0 + 1, "people type them");
    replica.stop().await;
}
