//! The door as a client meets it: who may, what comes back, what happens to what is sent again.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::TaskId;
use model::task::TaskKind;
use release::Blobstore as _;
use serde_json::{Value, json};
use state::State;
use state::command::{Command, TaskEnd};
use state::log::CommandLog as _;
use tower::ServiceExt as _;

use crate::test_support::replica::{PASSWORD, Replica};
use crate::test_support::state::EPOCH;

const MANIFEST: &str = "name: web\nreleases: []\n";

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub location: String,
    range: String,
    headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(super) struct Client {
    router: Router,
    user: &'static str,
}

impl Client {
    pub fn of(replica: &Replica, user: &'static str) -> Self {
        Self { router: super::routes(replica.door.clone(), "sim"), user }
    }

    /// Returns another one, with another login. To make the router takes long: it describes itself.
    pub fn again(&self, user: &'static str) -> Self {
        Self { router: self.router.clone(), user }
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send_with(method, path, body, &[]).await
    }

    pub async fn send_with(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if matches!(method, "POST" | "PUT") && !headers.iter().any(|(name, _)| *name == "content-type") {
            let kind = if body.starts_with('{') { "application/json" } else { "text/yaml" };
            request = request.header("content-type", kind);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.user.is_empty() {
            let login = STANDARD.encode(format!("{}:{PASSWORD}", self.user));
            request = request.header("authorization", format!("Basic {login}"));
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let header =
            |name| answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let (location, range) = (header("location"), header("content-range"));
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        Answer { status, location, range, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }
}

/// Returns the number of the task that an answer sends to.
pub(super) fn task(answer: &Answer) -> TaskId {
    assert_eq!(answer.status, StatusCode::FOUND, "{answer:?}");
    TaskId(answer.location.strip_prefix("/tasks/").unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_but_info_answers_who_has_not_logged_in_or_may_nothing() {
    let replica = Replica::start().await;
    let (stranger, nobody) = (Client::of(&replica, ""), Client::of(&replica, "nobody"));
    let mut asked = 0;
    for path in super::paths() {
        let path = path.replace(['{', '}'], "");
        for (method, body) in
            [("GET", ""), ("POST", "{"), ("POST", ""), ("PUT", "{"), ("PUT", ""), ("DELETE", "")]
        {
            let answer = stranger.send(method, &path, body).await;
            match answer.status {
                StatusCode::NOT_FOUND => continue,
                _ if path == "/info" => assert_eq!(answer.json()["user"], Value::Null),
                status => assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}"),
            }
            asked += 1;
            if path != "/info" {
                let answer = nobody.send(method, &path, body).await;
                assert!(answer.status.is_client_error(), "{method} {path}: {answer:?}");
            }
        }
    }
    assert!(asked > 40, "only {asked} routes were walked");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_changes_nothing() {
    let replica = Replica::start().await;
    let reader = Client::of(&replica, "reader");
    assert_eq!(reader.get("/info").await.json()["user"], "reader");
    assert_eq!(reader.get("/deployments").await.json(), json!([]));
    let refused = reader.send("POST", "/deployments", MANIFEST).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::UNAUTHORIZED, &json!(600000)));
    let refused = reader.send("POST", "/cloud_configs", "azs: []").await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::UNAUTHORIZED, &json!(600000)));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_while_its_task_is_under_way_is_that_task() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let first = task(&admin.send("POST", "/deployments", MANIFEST).await);
    assert_eq!(task(&admin.send("POST", "/deployments", MANIFEST).await), first, "sent again");
    let other = task(&admin.send("POST", "/deployments?fix=true", MANIFEST).await);
    assert_ne!(other, first, "something else was asked for");
    let found = admin.get(&format!("/tasks/{first}")).await.json();
    assert_eq!((&found["state"], &found["timestamp"]), (&json!("queued"), &Value::Null));
    replica.must(Command::TaskTake { task: first, epoch: EPOCH }).await;
    let end = TaskEnd::Done(Some("/deployments/web".into()));
    replica.must(Command::TaskFinish { task: first, epoch: EPOCH, end }).await;
    let again = task(&admin.send("POST", "/deployments", MANIFEST).await);
    assert!(again != first && again != other, "asked for anew, after the first has ended");
    let listed = admin.get("/tasks?state=queued&verbose=1").await.json();
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|task| task["id"].as_u64().unwrap()).collect();
    assert_eq!(listed, [again.0, other.0]);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_polled_by_byte_and_the_tail_comes_whole() {
    let (replica, _) = Replica::with_agent().await;
    let admin = Client::of(&replica, "admin");
    let id = task(&admin.get("/deployments/web/vms?format=full").await);
    replica.must(Command::TaskTake { task: id, epoch: EPOCH }).await;
    let output = |kind: &str| format!("/tasks/{id}/output?type={kind}");
    let poll = async |byte: usize| {
        let range = format!("bytes={byte}-");
        admin.send_with("GET", &output("result"), "", &[("range", &range)]).await
    };
    assert_eq!(poll(0).await.status, StatusCode::RANGE_NOT_SATISFIABLE);
    replica.must(Command::TaskReport { task: id, epoch: EPOCH, lines: "{\"a\":1}\n".into() }).await;
    let first = poll(0).await;
    assert_eq!((first.status, first.range.as_str()), (StatusCode::PARTIAL_CONTENT, "bytes 0-7/8"));
    replica.must(Command::TaskReport { task: id, epoch: EPOCH, lines: "{\"b\":2}\n".into() }).await;
    let second = poll(8).await;
    assert_eq!((second.body.as_str(), second.range.as_str()), ("{\"b\":2}\n", "bytes 8-15/16"));
    assert_eq!(poll(16).await.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(admin.get(&output("result")).await.body, "{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(admin.get(&output("none")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.get(&output("what")).await.json()["code"], 600000);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_packed_by_a_task_and_fetched_by_its_result() {
    let (replica, _) = Replica::with_agent().await;
    let (admin, reader) = (Client::of(&replica, "admin"), Client::of(&replica, "reader"));
    let logs = |path: &str| format!("/deployments/web/jobs/{path}/logs?type=agent,job&filters=a*,b%20c");
    let id = task(&admin.get(&logs("api/0")).await);
    assert_eq!(task(&admin.get(&logs("api/0")).await), id, "sent again");
    assert_ne!(task(&admin.get(&logs("*/*")).await), id);
    let found = admin.get(&format!("/tasks/{id}")).await.json();
    assert_eq!((&found["description"], &found["deployment"]), (&json!("fetch logs"), &json!("web")));
    let kind = {
        let view = replica.log.view();
        State::new(&*view).task(id).unwrap().kind
    };
    let TaskKind::FetchLogs { logs: types, filters, .. } = kind else { panic!("{kind:?}") };
    assert_eq!((types.as_str(), filters), ("agent,job", ["a*", "b", "c"].map(str::to_owned).to_vec()));
    let none = admin.get(&logs("nope/0")).await;
    assert_eq!((none.status.as_u16(), none.json()["code"].as_u64()), (404, Some(70001)), "{none:?}");
    assert_eq!(reader.get(&logs("api/0")).await.status, StatusCode::UNAUTHORIZED);

    let digest = replica.door.blobs.put(&mut &b"packed"[..]).await.unwrap().digest;
    let fetched = admin.get(&format!("/resources/{digest}")).await;
    let length = fetched.header("content-length");
    assert_eq!((fetched.status.as_u16(), fetched.body.as_str(), length), (200, "packed", "6"));
    assert_eq!(fetched.header("content-type"), "application/x-gzip");
    assert_eq!(reader.get(&format!("/resources/{digest}")).await.status, StatusCode::UNAUTHORIZED);
    for unknown in ["0".repeat(64), "00000000-0000-0000-0000-000000000000".into(), "..%2Fraft".into()] {
        let answer = admin.get(&format!("/resources/{unknown}")).await;
        let text = format!("Resource '{}' not found in the blobstore", unknown.replace("%2F", "/"));
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.json(), json!({ "code": 100002, "description": text }));
    }
    replica.must(Command::BlobForget { digest: digest.clone() }).await;
    assert_eq!(admin.get(&format!("/resources/{digest}")).await.status, StatusCode::NOT_FOUND, "forgotten");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_operators_are_made_and_removed_by_tasks() {
    let (replica, _) = Replica::with_agent().await;
    let (admin, reader) = (Client::of(&replica, "admin"), Client::of(&replica, "reader"));
    let path = "/deployments/web/ssh";
    let body = |command: &str, params: Value| {
        let target = json!({ "job": "api", "indexes": ["0"], "ids": [0] });
        json!({ "deployment_name": "web", "target": target, "command": command, "params": params })
            .to_string()
    };
    let setup = body("setup", json!({ "user": "bosh_1a", "public_key": "ssh-rsa AAAA\n" }));
    let id = task(&admin.send("POST", path, &setup).await);
    assert_eq!(task(&admin.send("POST", path, &setup).await), id, "sent again");
    let found = admin.get(&format!("/tasks/{id}")).await.json();
    let described = r#"ssh: setup:{"ids" => ["0"], "indexes" => ["0"], "job" => "api"}"#;
    assert_eq!(found["description"], described);
    let cleanup = body("cleanup", json!({ "user_regex": "^bosh_1a" }));
    assert_ne!(task(&admin.send("POST", path, &cleanup).await), id);
    assert_eq!(reader.send("POST", path, &setup).await.status, StatusCode::UNAUTHORIZED);
    let long = "a".repeat(40_000);
    for bad in [
        "{}".to_owned(),
        "{".to_owned(),
        body("bogus", json!({})),
        body("setup", json!({ "user": "bosh_1a" })),
        body("cleanup", json!({ "user_regex": "" })),
        body("cleanup", json!({ "user_regex": long })),
    ] {
        let refused = admin.send("POST", path, &bad).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["code"].as_u64()),
            (400, Some(440010)),
            "{bad:.80}"
        );
    }
    let none = admin.send("POST", "/deployments/none/ssh", &setup).await;
    assert_eq!((none.status.as_u16(), none.json()["code"].as_u64()), (404, Some(70000)));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_bosh_s_numbers_and_texts() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    for (method, path, body, status, code) in [
        ("GET", "/deployments/none", "", 404, 70000),
        ("GET", "/tasks/9999", "", 404, 10000),
        ("GET", "/tasks/x", "", 404, 10000),
        ("GET", "/releases/none", "", 404, 30005),
        ("GET", "/releases/none?version=1", "", 404, 30005),
        ("GET", "/configs/77", "", 404, 440012),
        ("GET", "/configs?limit=0", "", 400, 440010),
        ("POST", "/configs", "{", 400, 710001),
        ("POST", "/configs", "{}", 400, 440010),
        ("POST", "/deployments", "a: [", 400, 440001),
        ("POST", "/configs", r#"{"type":"a","name":"b","content":"c: ["}"#, 400, 440011),
        ("POST", "/packages/matches", "a: 1", 400, 440001),
        ("POST", "/deployments", "releases: []", 400, 40001),
        ("POST", "/deployments?context=%7B%7D", MANIFEST, 400, 190025),
        (
            "POST",
            "/deployments?context=%7B%22cloud_config_ids%22:%5B99%5D,%22runtime_config_ids%22:%5B%5D%7D",
            MANIFEST,
            400,
            190025,
        ),
        ("PUT", "/deployments/none/jobs/*?state=what", "", 400, 440010),
    ] {
        let answer = admin.send(method, path, body).await;
        let what = format!("{method} {path}: {answer:?}");
        assert_eq!((answer.status.as_u16(), answer.json()["code"].as_u64()), (status, Some(code)), "{what}");
    }
    let unknown = admin.get("/nothing/here").await;
    assert_eq!((unknown.status.as_u16(), unknown.body.as_str()), (404, "Not Found: /nothing/here"));
    let json = [("content-type", "application/json")];
    let other = admin.send_with("POST", "/deployments", MANIFEST, &json).await;
    assert_eq!(
        (other.status.as_u16(), other.body.as_str()),
        (404, "Endpoint '/deployments' not found."),
        "a manifest is YAML, and says so"
    );
    assert_eq!(admin.send("DELETE", "/info", "").await.status, StatusCode::NOT_FOUND);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_is_stored_once_and_guarded_by_the_id_that_was_seen() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let put = async |content: &str, expected: &str| {
        let body =
            json!({ "type": "cloud", "name": "default", "content": content, "expected_latest_id": expected });
        admin.send("POST", "/configs", &body.to_string()).await
    };
    let diff = admin.send("POST", "/cloud_configs/diff?name=", "azs: []").await.json();
    assert_eq!(diff, json!({ "diff": [["azs: []", "added"]] }));
    let body = json!({ "type": "cloud", "name": "default", "content": "azs: []" }).to_string();
    assert_eq!(admin.send("POST", "/configs/diff", &body).await.json()["from"]["id"], "0");
    let first = put("azs: []", "0").await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        put("azs: []", &id).await.json()["id"],
        first.json()["id"],
        "the same content is no new version"
    );
    let second = put("azs: [{name: z1}]", &id).await;
    assert_eq!(second.status, StatusCode::CREATED);
    let stale = put("azs: [{name: z2}]", &id).await;
    assert_eq!((stale.status.as_u16(), &stale.json()["latest_id"]), (412, &second.json()["id"]));
    let typed = admin.get("/cloud_configs?name=&limit=1").await.json();
    assert_eq!(typed[0]["properties"], "azs: [{name: z1}]");
    let versions = admin.get("/configs?type=cloud&latest=false&limit=5").await.json();
    let current: Vec<_> = versions.as_array().unwrap().iter().map(|config| &config["current"]).collect();
    assert_eq!(current, [&json!(true), &json!(false)]);
    assert_eq!(admin.send("DELETE", "/configs?type=cloud&name=default", "").await.status.as_u16(), 204);
    assert_eq!(admin.send("DELETE", "/configs?type=cloud&name=default", "").await.status.as_u16(), 404);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_uses_is_shown_and_deleted() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let json = [("content-type", "application/json")];
    let shown = admin.get("/cleanup/dryrun?remove_all=true").await.json();
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 7, "{shown}");
    let wish = r#"{"config":{"remove_all":true,"keep_orphaned_disks":false}}"#;
    let first = task(&admin.send_with("POST", "/cleanup", wish, &json).await);
    assert_eq!(admin.get(&format!("/tasks/{first}")).await.json()["description"], "clean up all");
    assert_eq!(task(&admin.send_with("POST", "/cleanup", wish, &json).await), first, "sent again");
    assert_ne!(task(&admin.send_with("POST", "/cleanup", "{}", &json).await), first);
    assert_eq!(admin.get("/disks").await.json(), json!([]));
    task(&admin.send("DELETE", "/disks/gone%2Falready", "").await);
    assert_eq!(admin.get("/networks?orphaned=true").await.json(), json!([]));
    let deletion = task(&admin.send("DELETE", "/networks/front", "").await);
    let row = admin.get(&format!("/tasks/{deletion}")).await.json();
    assert_eq!(row["description"], "delete orphan networks: front");
    assert_eq!(admin.get("/networks").await.status, StatusCode::BAD_REQUEST, "nothing has failed");
    for (method, path, body) in [
        ("POST", "/cleanup", "no json"),
        ("POST", "/cleanup", r#"{"config":{"remove_all":"perhaps"}}"#),
        ("PUT", "/resurrection", "{}"),
        ("PUT", "/resurrection", r#"{"resurrection_paused":"x"}"#),
        ("PUT", "/deployments/web/instance_groups/g/0/ignore", "{"),
    ] {
        let refused = admin.send_with(method, path, body, &json).await;
        assert_eq!((refused.status.as_u16(), refused.json()["code"].as_u64()), (400, Some(440010)), "{body}");
    }
    for paused in [true, false] {
        let body = json!({ "resurrection_paused": paused }).to_string();
        assert_eq!(admin.send_with("PUT", "/resurrection", &body, &json).await.status, StatusCode::OK);
        assert_eq!(admin.get("/resurrection").await.json(), json!({ "resurrection": !paused }));
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_diff_was_shown_of_is_deployed() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let json = [("content-type", "application/json")];
    for kind in ["cloud", "runtime", "other"] {
        let config = json!({ "type": kind, "name": "default", "content": "tags: {}" }).to_string();
        let put = admin.send_with("POST", "/configs", &config, &json).await;
        assert_eq!(put.status, StatusCode::CREATED, "{kind}");
    }
    let diff = admin.send("POST", "/deployments/web/diff", MANIFEST).await.json();
    let ids = |kind: &str| diff["context"][kind].as_array().unwrap().clone();
    let (cloud, runtime) = (ids("cloud_config_ids"), ids("runtime_config_ids"));
    assert_eq!((cloud.len(), runtime.len()), (1, 1), "{diff}");
    let query = |context: &Value| {
        let context = context.to_string().replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        format!("/deployments?context={}", context.replace('[', "%5B").replace(']', "%5D"))
    };
    let filed = task(&admin.send("POST", &query(&diff["context"]), MANIFEST).await);
    let task = {
        let view = replica.log.view();
        State::new(&*view).task(filed).unwrap()
    };
    let TaskKind::Deploy { options, .. } = task.kind else { panic!("it is a deploy") };
    let numbers: Vec<Value> = options.configs.unwrap().iter().map(|id| json!(id)).collect();
    assert_eq!(numbers, [cloud, runtime].concat());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_is_checked_and_problems_are_decided_about() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let json = [("content-type", "application/json")];
    let missing = admin.send_with("POST", "/deployments/web/scans", "", &json).await;
    assert_eq!((missing.status.as_u16(), missing.json()["code"].as_u64()), (404, Some(70000)));
    let deploy = task(&admin.send("POST", "/deployments", MANIFEST).await);
    replica.must(Command::TaskTake { task: deploy, epoch: EPOCH }).await;
    let scan = task(&admin.send_with("POST", "/deployments/web/scans", "", &json).await);
    assert_eq!(task(&admin.send_with("POST", "/deployments/web/scans", "", &json).await), scan, "sent again");
    assert_eq!(admin.get(&format!("/tasks/{scan}")).await.json()["description"], "scan cloud");
    assert_eq!(admin.get("/deployments/web/problems").await.json(), json!([]));
    let put = async |path: &str, body: &str| admin.send_with("PUT", path, body, &json).await;
    let choices = r#"{"resolutions":{"7":null,"8":"recreate_vm"},"max_in_flight_overrides":{"api":"50%"}}"#;
    let applied = task(&put("/deployments/web/problems", choices).await);
    let view = replica.log.view();
    let kind = State::new(&*view).task(applied).unwrap().kind;
    let TaskKind::ApplyResolutions { resolutions, max_in_flight } = kind else { panic!("{kind:?}") };
    let named: Vec<_> =
        resolutions.iter().map(|choice| (choice.problem.0, choice.resolution.as_deref())).collect();
    assert_eq!(named, [(7, None), (8, Some("recreate_vm"))]);
    assert_eq!(max_in_flight["api"], "50%");
    for wrong in ["{}", r#"{"resolutions":{"x":null}}"#, r#"{"resolutions":[]}"#] {
        let refused = put("/deployments/web/problems", wrong).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["code"].as_u64()),
            (400, Some(410003)),
            "{wrong}"
        );
    }
    // The health monitor's: nobody to resurrect, and then paused.
    let jobs = r#"{"jobs":{"api":["u1",77]}}"#;
    let none = put("/deployments/web/scan_and_fix", jobs).await;
    assert_eq!((none.status.as_u16(), none.json()["code"].as_u64()), (404, Some(70001)));
    put("/resurrection", r#"{"resurrection_paused":true}"#).await;
    let paused = put("/deployments/web/scan_and_fix", jobs).await;
    assert_eq!(
        (paused.status.as_u16(), paused.body.as_str()),
        (400, r#"{"code":410004,"description":"Resurrector is paused"}"#)
    );
    let gone = put("/deployments/web/jobs/api/0/resurrection", "{}").await;
    assert!(gone.status == StatusCode::GONE && gone.body.starts_with("This endpoint has been removed."));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_exported_by_a_task() {
    let (replica, _) = Replica::with_agent().await;
    let (admin, reader) = (Client::of(&replica, "admin"), Client::of(&replica, "reader"));
    let export = |deployment: &str| {
        json!({
            "deployment_name": deployment, "release_name": "golden", "release_version": "1", "sha2": true,
            "stemcell_os": "toronto-os", "stemcell_version": "1.2", "jobs": [{ "name": "server" }],
        })
        .to_string()
    };
    let id = task(&admin.send("POST", "/releases/export", &export("web")).await);
    assert_eq!(task(&admin.send("POST", "/releases/export", &export("web")).await), id, "sent again");
    let found = admin.get(&format!("/tasks/{id}")).await.json();
    assert_eq!(found["description"], "export release: 'golden/1' for 'toronto-os/1.2'");
    let kind = {
        let view = replica.log.view();
        State::new(&*view).task(id).unwrap().kind
    };
    let TaskKind::ExportRelease { export: filed } = kind else { panic!("{kind:?}") };
    assert_eq!((filed.jobs, filed.digest), (vec!["server".into()], model::task::DigestKind::Sha256));
    let none = admin.send("POST", "/releases/export", &export("none")).await;
    assert_eq!((none.status.as_u16(), none.json()["code"].as_u64()), (404, Some(70000)), "{none:?}");
    let refused = reader.send("POST", "/releases/export", &export("web")).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let other = admin.send("POST", "/releases/golden", &export("web")).await;
    assert_eq!(
        (other.status, other.body.as_str()),
        (StatusCode::NOT_FOUND, "Endpoint '/releases/golden' not found.")
    );
    assert_eq!(admin.get("/releases/export").await.json()["code"], 30005, "a release may be called so");
    replica.stop().await;
}
