//! Dynamic disks as CSI drivers ask for them: BOSH's shapes, codes and redirects.

use axum::http::StatusCode;
use model::TaskId;
use model::task::TaskKind;
use model::task::TaskState;
use serde_json::{Value, json};
use state::State;
use state::command::Command;
use state::log::CommandLog as _;
use state::records::DynamicDeed;

use super::tests::{Client, task};
use crate::test_support::replica::Replica;
use crate::test_support::state::{EPOCH, dynamic_deed, dynamic_make};

fn new_disk() -> Value {
    json!({
        "deployment_name": "web", "az": "z1", "disk_name": "data", "disk_pool_name": "small", "disk_size": 64,
        "metadata": {"owner": "csi", "n": 7},
    })
}

fn kind(replica: &Replica, task: TaskId) -> (TaskKind, String, Vec<String>) {
    let view = replica.log.view();
    let row = State::new(&*view).task(task).unwrap();
    assert_eq!((row.deployment.as_ref(), row.state), (None, TaskState::Queued));
    let locks = row.locks.iter().map(ToString::to_string).collect();
    (row.kind.clone(), row.description(), locks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deed_is_a_task_under_the_lock_of_the_name() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let provided = json!({
        "instance_id": "i1", "disk_name": "data", "disk_pool_name": "small", "disk_size": 64,
    });
    let attached = json!({"instance_id": "i1", "metadata": {}}).to_string();
    for (method, path, body, wanted) in [
        ("POST", "/dynamic_disks", new_disk().to_string(), "create dynamic disk"),
        ("POST", "/dynamic_disks/provide", provided.to_string(), "provide dynamic disk"),
        ("POST", "/dynamic_disks/data/attach", attached, "attach dynamic disk"),
        ("POST", "/dynamic_disks/data/detach", String::new(), "detach dynamic disk"),
        ("DELETE", "/dynamic_disks/data", String::new(), "delete dynamic disk"),
    ] {
        let answer = admin.send(method, path, &body).await;
        assert_eq!(answer.status, StatusCode::FOUND, "{method} {path}: {answer:?}");
        let (_, description, locks) = kind(&replica, task(&answer));
        assert_eq!((description.as_str(), locks), (wanted, vec!["lock:dynamic_disk:data".to_owned()]));
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_body_has_bosh_s_number() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let without = |key: &str| {
        let mut body = new_disk();
        body.as_object_mut().unwrap().remove(key);
        body
    };
    let with = |key: &str, value: Value| {
        let mut body = new_disk();
        body[key] = value;
        body
    };
    let mut cases: Vec<(Value, u64)> = ["deployment_name", "az", "disk_name", "disk_pool_name", "disk_size"]
        .map(|key| (without(key), 40001))
        .into();
    cases.extend([
        (with("disk_size", json!("64")), 40000),
        (with("disk_name", json!(["data"])), 40000),
        (with("az", Value::Null), 40000),
        (with("metadata", json!("x")), 40000),
        (with("disk_size", json!(0)), 40002),
        (with("disk_size", json!(-1)), 40002),
        (with("disk_name", json!("a/b")), 440010),
    ]);
    for (body, code) in cases {
        let answer = admin.send("POST", "/dynamic_disks", &body.to_string()).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (StatusCode::BAD_REQUEST, &json!(code)),
            "{body}"
        );
    }
    for (path, body, code) in [
        ("/dynamic_disks/data/attach", "{}", 40001),
        ("/dynamic_disks/data/attach", r#"{"instance_id":{}}"#, 40000),
        ("/dynamic_disks/provide", r#"{"instance_id":"i1"}"#, 40001),
        ("/dynamic_disks/provide", "{no JSON", 440010),
    ] {
        let answer = admin.send("POST", path, body).await;
        assert_eq!(answer.json()["code"], json!(code), "{path} {body}: {answer:?}");
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_has_bosh_s_shape() {
    let (replica, _) = Replica::with_agent().await;
    let admin = Client::of(&replica, "admin");
    assert_eq!(admin.get("/dynamic_disks").await.json(), json!([]));
    let queued = task(&admin.send("POST", "/dynamic_disks/data/detach", "").await);
    replica.must(Command::TaskTake { task: queued, epoch: EPOCH }).await;
    let view = replica.log.view();
    let vm = State::new(&*view).all_vms().pop().unwrap();
    for deed in [
        dynamic_make(vm.agent.as_str()),
        DynamicDeed::Made { id: "id-data".into(), cid: "disk-9".into() },
        DynamicDeed::Told { metadata: [("owner".to_owned(), json!("csi"))].into() },
    ] {
        replica.must(dynamic_deed(queued, deed)).await;
    }
    let row = json!({
        "name": "data", "disk_cid": "disk-9", "deployment": "web", "availability_zone": "z1", "size": 512,
        "disk_pool_name": "small", "cpi": "", "metadata": {"owner": "csi"},
    });
    assert_eq!(admin.get("/dynamic_disks").await.json(), json!([row]));
    replica.stop().await;
}
