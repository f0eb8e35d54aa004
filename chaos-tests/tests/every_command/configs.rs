//! What is written at once, without a task: configs, settings, events.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use serde_json::{Value, json};

use super::story::Story;

fn config(kind: &str, content: &str) -> Request {
    Request::json("POST", "/configs", &json!({ "type": kind, "name": "it", "content": content }))
}

#[tokio::test]
async fn what_is_written_without_a_task_is_written_once_while_leaders_die() -> Result<()> {
    let mut story = Story::begin(12).await?;
    for (kind, content) in
        [("cloud", "azs: []"), ("runtime", "releases: []"), ("cpi", "cpis: []"), ("note", "a: b")]
    {
        story.at_once(&format!("update-config --type {kind}"), 201, &config(kind, content)).await?;
        let all = story.list(&format!("/configs?type={kind}&latest=false")).await?;
        ensure!(all.len() == 1 && all[0]["content"] == content, "{all:?}");
    }
    let old = Request::yaml("POST", "/cloud_configs", &Story::cloud_config());
    story.at_once("update-cloud-config", 201, &old).await?;
    story.at_once("delete-config", 204, &Request::new("DELETE", "/configs?type=note&name=it")).await?;
    ensure!(story.list("/configs?type=note&latest=true").await?.is_empty());
    let one = story.list("/configs?type=cpi&latest=true").await?;
    let one = one[0]["id"].as_str().context("an id")?.to_owned();
    story.at_once("delete-config N", 204, &Request::new("DELETE", format!("/configs/{one}"))).await?;
    ensure!(story.list("/configs?type=cpi&latest=true").await?.is_empty());

    let off = Request::json("PUT", "/resurrection", &json!({ "resurrection_paused": true }));
    story.at_once("update-resurrection off", 200, &off).await?;
    let state = story.bosh().await?.get("/resurrection").await?;
    ensure!(state["resurrection"] == false, "{state}");

    let event = json!({ "action": "note", "object_type": "test", "object_name": "the only one" });
    story.at_once("add an event", 200, &Request::json("POST", "/events", &event)).await?;
    let is_ours = |event: &&Value| event["object_name"] == "the only one";
    ensure!(story.list("/events").await?.iter().filter(is_ours).count() == 1);
    story.end().await
}
