//! What bodies may be, and what of them is told to whom.

use axum::extract::Query;
use axum::http::StatusCode;
use model::TaskId;
use model::task::TaskKind;
use serde_json::json;
use state::State;
use state::log::CommandLog as _;

use super::deployments::named_in;
use super::tests::Client;
use crate::test_support::replica::Replica;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_is_no_object_with_its_fields_in_order() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let json = [("content-type", "application/json")];
    for (method, path, body) in [
        ("PUT", "/resurrection", "[true]"),
        ("POST", "/cleanup", " []"),
        ("POST", "/tasks/cancel", "[null,[\"queued\"],null]"),
        ("POST", "/deployments/web/errands/e/runs", "[true,true,[]]"),
        ("PUT", "/deployments/web/problems", "[{}]"),
    ] {
        let refused = admin.send_with(method, path, body, &json).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{method} {path}: {refused:?}");
    }
    assert_eq!(admin.get("/resurrection").await.json(), json!({ "resurrection": true }));
    replica.stop().await;
}

#[tokio::test]
async fn archives_by_url_become_tasks_that_tell_nobody_the_url() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let body = r#"{"location":"https://me:secret@there/a.tgz?signature=secret","sha1":"sha256:12"}"#;
    for path in ["/releases?rebase=true&fix=true", "/stemcells?fix=true"] {
        let first = admin.send("POST", path, body).await;
        assert_eq!(first.status, StatusCode::FOUND, "{first:?}");
        let again = admin.send("POST", path, body).await;
        assert_eq!(first.location, again.location, "what is sent again is one task");
        let id = TaskId(first.location.rsplit('/').next().unwrap().parse().unwrap());
        let view = replica.log.view();
        let kind = State::new(&*view).task(id).unwrap().kind;
        let (archive, fix) = match &kind {
            TaskKind::FetchRelease { archive, rebase: true, fix } => (archive, *fix),
            TaskKind::FetchStemcell { archive, fix } => (archive, *fix),
            other => panic!("{other:?}"),
        };
        assert_eq!((archive.digest.as_deref(), fix), (Some("sha256:12"), true));
        let stored = serde_json::to_string(&kind).unwrap();
        assert!(!stored.contains("secret") && !archive.location.0.windows(6).any(|part| part == b"secret"));
        for shown in ["/tasks?verbose=2", &first.location, "/events"] {
            let answer = admin.get(shown).await;
            assert!(!answer.body.contains("secret"), "{shown}: {}", answer.body);
        }
        for (body, code) in [
            ("{\"location\":\"secret", 710_001),
            ("{}", 40_001),
            (r#"{"location":["secret"]}"#, 40_000),
            (r#"{"location":"  "}"#, 40_005),
        ] {
            let answer = admin.send("POST", path, body).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
            assert_eq!(answer.json()["code"], code, "{body}: {answer:?}");
            assert!(!answer.body.contains("secret"), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_a_query_are_decoded() {
    for (query, names) in [
        ("deployment[]=web", vec!["web"]),
        ("deployment%5B%5D=web", vec!["web"]),
        ("deployment%5b%5d=%77eb", vec!["web"]),
        ("deployment[]=none&deployment[]=web", vec!["none", "web"]),
        ("deployment=web&%FF=web", vec![]),
        ("", vec![]),
    ] {
        let Query(pairs) = Query::try_from_uri(&format!("/?{query}").parse().unwrap()).unwrap();
        let read: Vec<String> = named_in(pairs).iter().map(ToString::to_string).collect();
        assert_eq!(read, names, "{query}");
    }
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    for broken in ["%FF", "%ZZ", "%", "%00"] {
        let answer = admin.get(&format!("/deployment_configs?deployment[]={broken}")).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!([])), "{broken}");
    }
    replica.stop().await;
}
