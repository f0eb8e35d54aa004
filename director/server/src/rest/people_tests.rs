//! Who may what: every path and method, by everybody, against the table of rights.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use model::TaskId;
use serde_json::{Value, json};
use state::command::Command;

use super::tests::{Client, task};
use crate::test_support::people::refused_first;
use crate::test_support::replica::Replica;
use crate::test_support::state::EPOCH;

const NEW_DISK: &str =
    r#"{"deployment_name":"web","az":"z1","disk_name":"d","disk_pool_name":"small","disk_size":1}"#;
const PROVIDED_DISK: &str =
    r#"{"instance_id":"i","disk_name":"d","disk_pool_name":"small","disk_size":1,"metadata":{}}"#;
const MANIFEST: &str = "name: web\nreleases: []\n";

/// Method, path in the router, what follows in it (`PERSON` is who asks), body, and who is let in (see
/// [`crate::test_support::people::let_in`]). What destroys comes last.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

pub(super) const TABLE: &[Row] = &[
    ("GET", "/info", "", "", "anybody"),
    ("GET", "/openapi.json", "", "", "R TA TR UR US XL XC XA XT XD"),
    ("GET", "/resurrection", "", "", "A"),
    ("PUT", "/resurrection", "", r#"{"resurrection_paused":false}"#, "A"),
    ("GET", "/director/certificate_expiry", "", "", "R"),
    ("GET", "/locks", "", "", "R"),
    ("GET", "/events", "", "", "R TA TR"),
    ("POST", "/events", "", r#"{"action":"a","object_type":"t","object_name":"n"}"#, "A"),
    ("GET", "/events/{id}", "", "", "A"),
    ("GET", "/tasks", "", "", "R TA"),
    // Whoever only reads for the team is refused at the door.
    ("GET", "/tasks/{id}", "", "", "R DA"),
    ("GET", "/tasks/{id}/output", "?type=event", "", "R DA DR"),
    ("GET", "/tasks/{id}/output", "?type=result", "", "R DA DR"),
    ("GET", "/tasks/{id}/output", "?type=none", "", "R DA DR"),
    ("GET", "/tasks/{id}/output", "?type=debug", "", "DA"),
    ("GET", "/tasks/{id}/output", "?type=cpi", "", "DA"),
    ("GET", "/tasks/{id}/output", "", "", "DA"),
    ("GET", "/deployments", "", "", "R TA"),
    ("POST", "/deployments", "", MANIFEST, "DA"),
    ("POST", "/deployments", "", "name: PERSON\nreleases: []\n", "TA"),
    ("GET", "/deployment_configs", "?deployment[]=web", "", "R TA"),
    ("GET", "/deployments/{deployment}", "", "", "R DA DR"),
    ("POST", "/deployments/{deployment}/diff", "", MANIFEST, "DA"),
    ("GET", "/deployments/{deployment}/errands", "", "", "R DA DR"),
    ("POST", "/deployments/{deployment}/errands/{errand}/runs", "", "{}", "DA"),
    ("GET", "/deployments/{deployment}/variables", "", "", "DA"),
    ("GET", "/deployments/{deployment}/certificate_expiry", "", "", "R DA DR"),
    ("GET", "/deployed_variables/{name}", "", "", "R TA"),
    ("GET", "/deployments/{deployment}/instances", "", "", "R DA DR"),
    ("GET", "/deployments/{deployment}/instances", "?format=full", "", "R DA DR"),
    ("GET", "/deployments/{deployment}/vms", "", "", "R DA DR"),
    ("GET", "/deployments/{deployment}/vms", "?format=full", "", "R DA DR"),
    ("PUT", "/deployments/{deployment}/jobs/{group}", "?state=started", "", "DA"),
    ("GET", "/deployments/{deployment}/jobs/{group}/{instance}", "", "", "DA"),
    ("GET", "/deployments/{deployment}/jobs/{group}/{instance}/logs", "?type=job", "", "DA"),
    // Whoever may have logs packed for a team can't fetch them, as in BOSH.
    ("GET", "/resources/{id}", "", "", "A"),
    ("PUT", "/deployments/{deployment}/jobs/{group}/{instance}", "?state=started", "", "DA"),
    (
        "PUT",
        "/deployments/{deployment}/instance_groups/{group}/{instance}/ignore",
        "",
        r#"{"ignore":true}"#,
        "DA",
    ),
    ("PUT", "/deployments/{deployment}/jobs/{group}/{instance}/resurrection", "", "{}", "DA"),
    ("POST", "/deployments/{deployment}/instance_groups/{group}/{instance}/actions/{action}", "", "", "DA"),
    ("POST", "/deployments/{deployment}/ssh", "", r#"{"command":"cleanup"}"#, "DA"),
    ("POST", "/deployments/{deployment}/scans", "", "{}", "DA"),
    ("GET", "/deployments/{deployment}/problems", "", "", "DA"),
    ("PUT", "/deployments/{deployment}/problems", "", r#"{"resolutions":{}}"#, "DA"),
    ("PUT", "/deployments/{deployment}/scan_and_fix", "", r#"{"jobs":{}}"#, "DA"),
    ("GET", "/deployments/{deployment}/snapshots", "", "", "DA"),
    ("POST", "/deployments/{deployment}/snapshots", "", "", "DA"),
    ("DELETE", "/deployments/{deployment}/snapshots", "", "", "DA"),
    ("DELETE", "/deployments/{deployment}/snapshots/{cid}", "", "", "DA"),
    ("GET", "/deployments/{deployment}/jobs/{group}/{instance}/snapshots", "", "", "DA"),
    ("POST", "/deployments/{deployment}/jobs/{group}/{instance}/snapshots", "", "", "DA"),
    ("GET", "/link_providers", "?deployment=web", "", "R DA DR"),
    ("GET", "/link_providers", "", "", "R"),
    ("GET", "/link_consumers", "?deployment=web", "", "R DA DR"),
    ("GET", "/link_consumers", "", "", "R"),
    ("GET", "/links", "?deployment=web", "", "R DA DR"),
    ("GET", "/links", "", "", "R"),
    // Whose the link is, is not asked.
    ("POST", "/links", "", "{}", "TA"),
    ("DELETE", "/links/{id}", "", "", "TA"),
    ("GET", "/link_address", "", "", "R TA TR"),
    ("GET", "/link_address", "?deployment=web", "", "R DA DR"),
    ("GET", "/orphaned_vms", "", "", "A"),
    ("DELETE", "/vms/{cid}", "", "", "A"),
    ("GET", "/configs", "", "", "R TA TR"),
    ("POST", "/configs", "", r#"{"type":"x","name":"one","content":"a: 1"}"#, "DA"),
    ("POST", "/configs", "", r#"{"type":"x","name":"PERSON","content":"a: 1"}"#, "TA"),
    ("POST", "/configs/diff", "", r#"{"type":"x","name":"one","content":"a: 2"}"#, "DA"),
    ("POST", "/configs/diff", "", r#"{"type":"x","name":"none","content":"a: 2"}"#, "R TA TR"),
    ("POST", "/configs/diff", "", r#"{"from":{"id":"CONFIG"},"to":{"content":"a: 2"}}"#, "DA"),
    ("GET", "/configs/{id}", "", "", "R"),
    ("GET", "/cloud_configs", "?limit=1", "", "R"),
    ("POST", "/cloud_configs", "", "azs: []", "A"),
    ("POST", "/cloud_configs/diff", "", "azs: []", "A"),
    ("GET", "/runtime_configs", "?limit=1", "", "R"),
    ("POST", "/runtime_configs", "", "addons: []", "A"),
    ("POST", "/runtime_configs/diff", "", "addons: []", "A"),
    ("GET", "/cpi_configs", "?limit=1", "", "A"),
    ("POST", "/cpi_configs", "", "cpis: []", "A"),
    ("POST", "/cpi_configs/diff", "", "cpis: []", "A"),
    ("GET", "/releases", "", "", "R TA"),
    ("POST", "/releases", "", "{}", "UR"),
    ("GET", "/releases/{name}", "", "", "R TA"),
    ("POST", "/releases/{name}", "", "{}", "A"),
    ("DELETE", "/releases/{name}", "", "", "A"),
    ("POST", "/packages/matches", "", "packages: []", "A"),
    ("POST", "/packages/matches_compiled", "", "compiled_packages: []", "A"),
    ("GET", "/packages/blobs/{id}", "", "", "R"),
    ("GET", "/jobs", "", "", "R"),
    ("GET", "/stemcells", "", "", "R TA"),
    ("POST", "/stemcells", "", "{}", "US"),
    ("DELETE", "/stemcells/{name}/{version}", "", "", "A"),
    ("POST", "/stemcell_uploads", "", r#"{"stemcell":{"name":"s","version":"1"}}"#, "R TA"),
    ("GET", "/disks", "", "", "A"),
    ("DELETE", "/disks/{cid}", "", "", "A"),
    ("DELETE", "/disks/{cid}", "?orphan=true", "", "A"),
    ("PUT", "/disks/{cid}/attachments", "?deployment=web&job=group&instance_id=instance", "", "A"),
    ("GET", "/orphan_disks", "", "", "A"),
    ("DELETE", "/orphan_disks/{cid}", "", "", "A"),
    ("GET", "/networks", "?orphaned=true", "", "A"),
    ("DELETE", "/networks/{name}", "", "", "A"),
    ("GET", "/dynamic_disks", "", "", "XL"),
    ("POST", "/dynamic_disks", "", NEW_DISK, "XC"),
    ("POST", "/dynamic_disks/provide", "", PROVIDED_DISK, "XP"),
    ("POST", "/dynamic_disks/{name}/attach", "", r#"{"instance_id":"i"}"#, "XA"),
    ("POST", "/dynamic_disks/{name}/detach", "", "", "XT"),
    ("DELETE", "/dynamic_disks/{name}", "", "", "XD"),
    ("POST", "/cleanup", "", "{}", "A"),
    ("GET", "/cleanup/dryrun", "", "", "A"),
    ("POST", "/tasks/cancel", "", r#"{"deployment":"nowhere"}"#, "A"),
    ("DELETE", "/deployments/{deployment}", "", "", "DA"),
    ("DELETE", "/configs", "?type=x&name=two", "", "DA"),
    ("DELETE", "/configs/{id}", "", "", "DA"),
    // Not even those who own it.
    ("DELETE", "/task/{id}", "", "", "A"),
];

/// What team red owns.
struct Reds {
    task: TaskId,
    config: String,
}

impl Reds {
    /// Has its admin deploy `web`, and store two configs.
    async fn make(replica: &Replica) -> Self {
        let red = Client::of(replica, "red-admin");
        let filed = task(&red.send("POST", "/deployments", MANIFEST).await);
        replica.must(Command::TaskTake { task: filed, epoch: EPOCH }).await;
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let body = json!({ "type": "x", "name": name, "content": "a: 1" }).to_string();
            let stored = red.send("POST", "/configs", &body).await;
            assert_eq!((stored.status, &stored.json()["team"]), (StatusCode::CREATED, &json!("red")));
            ids.push(stored.json()["id"].as_str().unwrap().to_owned());
        }
        Self { task: filed, config: ids.swap_remove(0) }
    }

    /// Returns a path of the router with something in each of its gaps.
    fn path(&self, pattern: &str) -> String {
        let id = if pattern.starts_with("/configs") { self.config.clone() } else { self.task.to_string() };
        let filled = pattern.replace("{id}", &id).replace("{deployment}", "web");
        filled.replace(['{', '}'], "")
    }
}

async fn everybody() -> (Replica, Reds) {
    let replica = Replica::start().await;
    replica.put_people().await;
    let reds = Reds::make(&replica).await;
    (replica, reds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_lets_in_just_those_whom_the_table_names() {
    let (replica, reds) = everybody().await;
    let stranger = Client::of(&replica, "");
    let mut wrong = Vec::new();
    for (method, pattern, rest, body, words) in TABLE {
        let bare = reds.path(pattern);
        let path = format!("{bare}{rest}");
        let answer = stranger.send(method, &path, body).await;
        let words_of_nobody = (StatusCode::UNAUTHORIZED, format!("Not authorized: '{bare}'\n"));
        if *words != "anybody" && (answer.status, answer.body.clone()) != words_of_nobody {
            wrong.push(format!("{method} {path} without a login: {answer:?}"));
        }
        for (name, is_let_in) in refused_first(words) {
            let body = body.replace("PERSON", name).replace("CONFIG", &reds.config);
            let answer = stranger.again(name).send(method, &path, &body).await;
            let is_refused = answer.status == StatusCode::UNAUTHORIZED;
            if is_refused == is_let_in || (is_refused && !says_which_scopes(&answer.json())) {
                wrong.push(format!("{method} {path} {body} as {name}: {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    replica.stop().await;
}

/// Returns whether a refusal is told as BOSH tells it.
fn says_which_scopes(body: &Value) -> bool {
    let text = body["description"].as_str().unwrap_or_default();
    let scopes = text.strip_prefix("Require one of the scopes: ");
    let scopes =
        scopes.or(text.strip_prefix("One of the following scopes is required to access this task: "));
    body["code"] == 600000 && scopes.is_some_and(|scopes| scopes.starts_with("bosh.admin, bosh.d-uuid.admin"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_names_every_route() {
    let (replica, reds) = everybody().await;
    let stranger = Client::of(&replica, "");
    let named: BTreeSet<(&str, &str)> = TABLE.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let mut found = BTreeSet::new();
    for pattern in super::paths() {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            // Some paths are there for JSON alone, some for YAML.
            for body in ["{", ""] {
                let answer = stranger.send(method, &reds.path(pattern), body).await;
                if answer.status != StatusCode::NOT_FOUND {
                    found.insert((method, pattern));
                }
            }
        }
    }
    let (unnamed, missing): (Vec<_>, Vec<_>) =
        (found.difference(&named).collect(), named.difference(&found).collect());
    assert!(unnamed.is_empty(), "say in the table above who may: {unnamed:?}");
    assert!(missing.is_empty(), "there are no such routes: {missing:?}");
    assert!(found.len() > 50, "only {} were found", found.len());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_what_is_one_s_own() {
    let (replica, reds) = everybody().await;
    let seen = async |name: &'static str, path: &str, field: &str| -> Vec<String> {
        let answer = Client::of(&replica, name).get(path).await;
        let rows = answer.json();
        let text = |row: &Value| row[field].as_str().map_or_else(|| row[field].to_string(), str::to_owned);
        rows.as_array().unwrap_or_else(|| panic!("{name} {path}: {answer:?}")).iter().map(text).collect()
    };
    let task = reds.task.to_string();
    for (name, is_shown) in [("admin", true), ("reader", true), ("red-admin", true), ("blue-admin", false)] {
        assert_eq!(
            seen(name, "/deployments", "name").await,
            [["web"].as_slice(), &[]][usize::from(!is_shown)]
        );
        let tasks = seen(name, "/tasks?state=processing", "id").await;
        assert_eq!(tasks, if is_shown { vec![task.clone()] } else { Vec::new() }, "{name}");
    }
    for (name, shown) in
        [("reader", 2), ("red-admin", 2), ("red-reader", 2), ("blue-admin", 0), ("blue-reader", 0)]
    {
        assert_eq!(seen(name, "/configs?type=x", "name").await.len(), shown, "{name}");
    }
    // Events are everybody's.
    assert!(seen("blue-reader", "/events?object_type=config/x", "id").await.len() == 2);
    assert_eq!(Client::of(&replica, "red-reader").get("/deployments").await.status, StatusCode::UNAUTHORIZED);
    let rows = Client::of(&replica, "admin").get("/deployments").await.json();
    assert_eq!(rows[0]["teams"], json!(["red"]));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_nobody_learns_nothing_of_what_is_there() {
    let (replica, _) = everybody().await;
    let unknown = |name| Client::of(&replica, name);
    for path in
        ["/deployments/web", "/deployments/none", "/tasks/1/output?type=event", "/tasks/99/output?type=event"]
    {
        assert_eq!(unknown("nobody").get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    // Who has some business here is told first whether there is one, as in BOSH.
    let missing = unknown("blue-reader").get("/deployments/none").await;
    assert_eq!((missing.status, &missing.json()["code"]), (StatusCode::NOT_FOUND, &json!(70000)));
    replica.stop().await;
}
