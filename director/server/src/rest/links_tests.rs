//! Links as `bosh curl` asks for them: BOSH's shapes, texts and statuses.

use model::link::Links;
use model::step::{Action, StepOutcome};
use serde_json::{Value, json};
use state::State;
use state::command::{Command, Outcome, TaskEnd};
use state::log::CommandLog as _;

use super::tests::Client;
use crate::test_support::replica::Replica;
use crate::test_support::state::{EPOCH, commit, finished, links, plan_of, queue, started};

/// A deploy of `web` that goes well.
async fn deploy(replica: &Replica, links: Links) {
    let Outcome::TaskQueued(task) = replica.must(queue(crate::test_support::state::deploy(), vec![])).await
    else {
        panic!("no task");
    };
    replica.must(Command::TaskTake { task, epoch: EPOCH }).await;
    let mut plan = plan_of(vec![Action::SaveDeployment]);
    plan.generation = State::new(&*replica.log.view()).deployment(&"web".into()).unwrap().generation;
    plan.record.as_mut().unwrap().planned_links = Some(Box::new(links));
    replica.must(commit(task, plan)).await;
    let records = vec![started(1, 0, 1), finished(1, 0, 1, StepOutcome::Done)];
    replica.must(Command::StepRecords { task, epoch: EPOCH, records }).await;
    replica.must(Command::TaskFinish { task, epoch: EPOCH, end: TaskEnd::Done(None) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_have_bosh_s_shapes() {
    let replica = Replica::start().await;
    deploy(&replica, links("srv", true)).await;
    let admin = Client::of(&replica, "admin");
    let job =
        |name: &str, group: &str| json!({"type": "job", "name": name, "info": {"instance_group": group}});
    let provider = json!({
        "id": "1", "name": "front", "shared": true, "deployment": "web",
        "link_provider_definition": {"type": "http", "name": "endpoint"}, "owner_object": job("server", "srv"),
    });
    assert_eq!(admin.get("/link_providers?deployment=web").await.json(), json!([provider]));
    let consumer = |id: &str, alias: &str, name: &str, optional: bool| {
        json!({
            "id": id, "name": alias, "optional": optional, "deployment": "web",
            "owner_object": job("client", "cli"), "link_consumer_definition": {"name": name, "type": "http"},
        })
    };
    let consumers = json!([consumer("1", "front", "endpoint", false), consumer("2", "db", "db", true)]);
    assert_eq!(admin.get("/link_consumers?deployment=web").await.json(), consumers);
    let body = r#"{"link_provider_id":"1","link_consumer":{"owner_object":{"type":"external","name":"x"}}}"#;
    let made = admin.send("POST", "/links", body).await.json();
    let created_at = made["created_at"].as_str().unwrap();
    assert!(created_at.len() == "2026-01-02 03:04:05 UTC".len() && created_at.ends_with(" UTC"), "{made}");
    assert_eq!(admin.send("POST", "/links", body).await.json(), made, "it is there already");
    let listed = admin.get("/links?deployment=web").await.json();
    assert_eq!((&listed[1], listed.as_array().unwrap().len()), (&made, 2));
    let external = admin.get("/link_consumers?deployment=web").await.json()[2].clone();
    assert_eq!(external["owner_object"], json!({"type": "external", "name": "x"}), "it has no group");
    let deleted = admin.send("DELETE", "/links/2", "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body.as_str()), (204, ""));

    // Nobody offers it any more: the link of somebody outside leads nowhere, but it is there.
    admin.send("POST", "/links", body).await;
    deploy(&replica, Links::default()).await;
    let left = admin.get("/links?deployment=web").await.json();
    assert_eq!((&left[0]["link_provider_id"], &left[0]["id"]), (&Value::Null, &json!("3")));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_links_have_bosh_s_numbers_and_statuses() {
    let replica = Replica::start().await;
    deploy(&replica, links("srv", false)).await;
    let admin = Client::of(&replica, "admin");
    let external = |provider: &str| {
        let owner = json!({"type": "external", "name": "x"});
        json!({"link_provider_id": provider, "link_consumer": {"owner_object": owner}}).to_string()
    };
    let (of_none, of_one) = (external("9"), external("1"));
    for (method, path, body, status, code) in [
        ("GET", "/links", "", 400, 190_024),
        ("GET", "/link_providers?deployment=", "", 400, 190_024),
        ("GET", "/link_consumers?deployment=nope", "", 404, 70000),
        ("POST", "/links", "{}", 400, 810_001),
        ("POST", "/links", "{not json", 400, 440_010),
        ("POST", "/links", &of_none, 400, 810_002),
        ("POST", "/links", &of_one, 403, 810_009),
        ("DELETE", "/links/1", "", 400, 810_005),
        ("DELETE", "/links/x", "", 404, 810_000),
        ("GET", "/link_address", "", 400, 810_006),
        ("GET", "/link_address?link_id=1&status=bogus", "", 400, 810_007),
        ("GET", "/link_address?link_id=1&azs=z1", "", 400, 810_008),
        ("GET", "/link_address?link_id=1&azs[]=nowhere", "", 400, 810_008),
        ("GET", "/link_address?link_id=9", "", 404, 810_000),
    ] {
        let answer = admin.send(method, path, body).await;
        let told = (answer.status.as_u16(), answer.json()["code"].as_u64());
        assert_eq!(told, (status, Some(code)), "{method} {path} {body}");
    }
    let address = admin.get("/link_address?link_id=1").await;
    assert_eq!(address.body, r#"{"address":"q-s0.srv.a.web.bosh"}"#);
    replica.stop().await;
}
