//! The document against what else is known of the routes.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::described::who;
use super::super::people_tests::TABLE;
use super::super::tests::Client;
use crate::test_support::replica::Replica;

fn document() -> Value {
    serde_json::to_value(super::routes().1).unwrap()
}

/// Returns operations by method and path.
fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.insert((method.to_uppercase(), path.clone()), operation.clone());
        }
    }
    found
}

#[test]
fn every_operation_is_described_with_those_who_may() {
    let mut may: BTreeMap<(String, String), BTreeSet<&str>> = BTreeMap::new();
    for (method, path, _, _, words) in TABLE {
        let of_this = may.entry((method.to_string(), path.to_string())).or_default();
        of_this.extend(words.split_whitespace().filter(|word| *word != "A"));
    }
    let document = document();
    let described = operations(&document);
    let (known, told): (BTreeSet<_>, BTreeSet<_>) = (may.keys().collect(), described.keys().collect());
    assert_eq!(told, known);
    let order = ["anybody", "R", "TA", "TR", "DA", "DR", "UR", "US", "XL", "XC", "XA", "XP", "XT", "XD"];
    for (operation, words) in &may {
        let words: Vec<&str> = order.into_iter().filter(|word| words.contains(word)).collect();
        assert_eq!(described[operation]["description"], who(&words.join(" ")), "{operation:?}");
    }
}

#[test]
fn operations_have_names_summaries_errors_and_the_parts_of_their_path() {
    let document = document();
    let nouns: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().filter_map(|tag| tag["name"].as_str()).collect();
    let mut names = BTreeSet::new();
    for ((method, path), operation) in operations(&document) {
        let what = format!("{method} {path}: {operation:#}");
        assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "a second {what}");
        assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 5), "{what}");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{what}");
        assert!(nouns.contains(operation["tags"][0].as_str().unwrap()), "{what}");
        assert_eq!(
            operation["security"].as_array().unwrap().len(),
            2 + usize::from(path == "/info"),
            "{what}"
        );
        let answers = operation["responses"].as_object().unwrap();
        for error in ["400", "401", "404", "503"] {
            let schema = &answers[error]["content"]["application/json"]["schema"];
            let differs = path == "/configs/diff" && error == "400";
            assert!(differs || schema["$ref"] == "#/components/schemas/ErrorBody", "{error} of {what}");
        }
        let is_good = |status: &&String| status.as_str() < "400";
        let gone = path.ends_with("/{instance}/resurrection");
        assert_eq!(answers.keys().filter(is_good).count() == 0, gone, "{what}");
        assert_eq!(answers.contains_key("413"), operation.get("requestBody").is_some(), "{what}");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let in_path: Vec<String> = in_path.map(|p| format!("{{{}}}", p["name"].as_str().unwrap())).collect();
        assert_eq!(
            in_path,
            path.split('/').filter(|part| part.starts_with('{')).collect::<Vec<_>>(),
            "{what}"
        );
    }
    assert!(names.len() > 80, "{}", names.len());
}

#[test]
fn the_document_is_whole_and_the_same_each_time() {
    let first = document();
    assert_eq!(first, document());
    let text = first.to_string();
    let schemas = first["components"]["schemas"].as_object().unwrap();
    let mut named = BTreeSet::new();
    for part in text.split("#/components/schemas/").skip(1) {
        named.insert(part.split('"').next().unwrap());
    }
    assert_eq!(named, schemas.keys().map(String::as_str).collect());
    let row = &schemas["TaskRow"];
    let required: Vec<&str> = row["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(required.contains(&"timestamp") && required.contains(&"id"), "{row:#}");
    assert_eq!(
        row["properties"]["timestamp"]["type"],
        json!(["integer", "null"]),
        "always there, though it may be null"
    );
    let event = schemas["EventRow"]["required"].as_array().unwrap();
    assert!(!event.contains(&json!("parent_id")), "what an event has not got has no key");
}

#[test]
fn what_a_query_and_a_body_may_hold_is_told() {
    let operations = operations(&document());
    let of = |method: &str, path: &str| operations[&(method.to_owned(), path.to_owned())].clone();
    let tasks = of("GET", "/tasks");
    let limit = tasks["parameters"].as_array().unwrap().iter().find(|p| p["name"] == "limit").unwrap();
    assert_eq!((&limit["in"], &limit["schema"]["type"]), (&json!("query"), &json!("string")));
    assert_ne!(limit["required"], json!(true));
    let deploy = &of("POST", "/deployments")["requestBody"]["content"]["text/yaml"]["schema"];
    assert_eq!(deploy["required"], json!(["name"]));
    let upload = &of("POST", "/releases")["requestBody"]["content"];
    assert_eq!(upload.as_object().unwrap().len(), 2, "{upload:#}");
    let pause = &of("PUT", "/resurrection")["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(pause["properties"]["resurrection_paused"]["type"], "boolean");
    let redirect = &of("POST", "/deployments")["responses"]["302"]["headers"]["Location"];
    assert_eq!(redirect["required"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_some_business_here_is_told_what_can_be_asked_for() {
    let replica = Replica::start().await;
    let answer = Client::of(&replica, "reader").get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(answer.json(), document());
    assert_eq!(Client::of(&replica, "nobody").get("/openapi.json").await.status, StatusCode::UNAUTHORIZED);
    replica.stop().await;
}
