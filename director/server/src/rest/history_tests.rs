//! Events that others add, and the id by which requests are correlated.

use axum::http::StatusCode;
use serde_json::json;

use super::tests::Client;
use crate::test_support::replica::Replica;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_somebody_else_is_on_record() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    let event = json!({
        "action": "failover", "object_type": "database", "object_name": "pg/0", "deployment": "web",
        "instance": "pg/0", "timestamp": "1451020321", "error": "it was slow", "context": { "from": "a", "lag": 3 },
    });
    let added = admin.send_with("POST", "/events", &event.to_string(), &JSON).await;
    assert_eq!((added.status, added.body.as_str()), (StatusCode::OK, ""));
    let found = admin.get("/events?object_type=database").await.json();
    let mut row = found[0].clone();
    assert!(row.as_object_mut().unwrap().remove("id").is_some_and(|id| id.is_string()), "{found}");
    let mut wanted = event.clone();
    wanted["user"] = json!("admin");
    wanted["timestamp"] = json!(1_451_020_321);
    assert_eq!((row, found.as_array().unwrap().len()), (wanted, 1));
    for (field, value, code) in [
        ("action", json!(""), Some(40000)),
        ("object_type", json!(""), Some(40000)),
        ("object_name", json!(""), Some(40000)),
        ("context", json!("text"), Some(40000)),
        ("timestamp", json!("yesterday"), None),
    ] {
        let mut wrong = event.clone();
        wrong[field] = value;
        let refused = admin.send_with("POST", "/events", &wrong.to_string(), &JSON).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{field}: {refused:?}");
        match code {
            Some(code) => assert_eq!(refused.json()["code"], code, "{field}"),
            None => assert_eq!(refused.body, "Invalid timestamp parameter: 'yesterday' "),
        }
    }
    assert_eq!(admin.get("/events?object_type=database").await.json().as_array().unwrap().len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_id_that_is_too_long_is_refused_wherever_it_is_sent() {
    let replica = Replica::start().await;
    let (admin, stranger) = (Client::of(&replica, "admin"), Client::of(&replica, ""));
    let long = "x".repeat(65);
    let long = [("x-bosh-context-id", long.as_str())];
    let refused = admin.send_with("GET", "/deployments", "", &long).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::BAD_REQUEST, &json!(70010)));
    let unknown = stranger.send_with("GET", "/deployments", "", &long).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED, "who asks comes first");
    let most = "x".repeat(64);
    let taken = admin.send_with("GET", "/deployments", "", &[("x-bosh-context-id", most.as_str())]).await;
    assert_eq!(taken.status, StatusCode::OK);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_no_date_can_name_is_refused() {
    let replica = Replica::start().await;
    let admin = Client::of(&replica, "admin");
    for (field, word) in [("after_time", "after"), ("before_time", "before")] {
        for time in ["9223372036854775", "-9223372036854775", "99999999999999999999"] {
            let answer = admin.get(&format!("/events?{field}={time}")).await;
            let wanted = (StatusCode::BAD_REQUEST, format!("Invalid {word} parameter: '{time}' "));
            assert_eq!((answer.status, answer.body), wanted);
        }
        assert_eq!(admin.get(&format!("/events?{field}=253402300799")).await.status, StatusCode::OK);
    }
    replica.stop().await;
}
