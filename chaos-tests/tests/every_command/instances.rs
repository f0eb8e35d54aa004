//! Instances: states, ignoring, logs, ssh, cloud checks.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use chaos_tests::needs::{self, Need};
use model::VmCid;
use serde_json::{Value, json};

use super::story::{Death, Story};

/// A key as an operator has one; nobody logs in with it.
const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBcmDmMvPcyQ0NPLMuAx1uIhdwxhWqGHs9ZnnKLxhVkz";

fn change(path: &str) -> Request {
    Request::yaml("PUT", format!("/deployments/web/jobs/{path}"), "")
}

async fn instance(story: &Story, group: &str, index: u64) -> Result<Value> {
    let all = story.list("/deployments/web/instances").await?;
    let found = all.into_iter().find(|row| row["job"] == group && row["index"] == index);
    found.with_context(|| format!("{group}/{index}"))
}

#[tokio::test]
async fn states_change_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(15).await?;
    for (command, death, path) in [
        ("stop", Death::Lines(4), "*?state=stopped"),
        ("start", Death::Lines(4), "*?state=started"),
        ("restart a group", Death::Lines(4), "api?state=restart"),
        ("recreate a group", Death::Lines(4), "api?state=recreate"),
        ("stop --hard an instance", Death::Begun, "api/0?state=detached"),
        ("start an instance", Death::Begun, "api/0?state=started"),
        ("recreate an instance", Death::Lines(4), "user/0?state=recreate"),
    ] {
        story.task(command, death, &change(path)).await?;
    }
    let before = instance(&story, "api", 0).await?;
    let id = before["id"].as_str().context("an id")?;
    for (command, action) in [
        ("stop --no-converge", "stop"),
        ("start --no-converge", "start"),
        ("restart --no-converge", "restart"),
        ("recreate --no-converge", "recreate"),
    ] {
        let path = format!("/deployments/web/instance_groups/api/{id}/actions/{action}");
        story.task(command, Death::Begun, &Request::yaml("POST", path, "")).await?;
    }
    ensure!(instance(&story, "api", 0).await?["cid"] != before["cid"], "it was not made anew");
    for ignore in [true, false] {
        let path = format!("/deployments/web/instance_groups/api/{id}/ignore");
        let request = Request::json("PUT", path, &json!({ "ignore": ignore }));
        story.at_once(if ignore { "ignore" } else { "unignore" }, 200, &request).await?;
    }
    story.end().await
}

#[tokio::test]
async fn instances_are_looked_into_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(16).await?;
    let logs = story
        .task("logs", Death::AtOnce, &Request::new("GET", "/deployments/web/jobs/*/*/logs?type=job"))
        .await?;
    let id = logs["result"].as_str().with_context(|| logs.to_string())?;
    let archive = story.bosh().await?.send(&Request::new("GET", format!("/resources/{id}"))).await?;
    ensure!(archive.status == 200 && archive.body.starts_with(b"\x1f\x8b"), "{}", archive.status);

    let ssh = |command: &str, params: Value| {
        let target = json!({ "job": "api", "ids": [], "indexes": [] });
        let wish =
            json!({ "command": command, "deployment_name": "web", "target": target, "params": params });
        Request::json("POST", "/deployments/web/ssh", &wish)
    };
    let setup = ssh("setup", json!({ "user": "bosh_0123456789abcde", "public_key": PUBLIC_KEY }));
    let users = story.task("ssh", Death::AtOnce, &setup).await?;
    let users = story.result(&users).await?;
    let users = users[0].as_array().context("a list")?;
    ensure!(users.len() == 2 && users.iter().all(|row| row["status"] == "success"), "{users:?}");
    let cleanup = ssh("cleanup", json!({ "user_regex": "^bosh_0123456789abcde" }));
    story.task("ssh, afterwards", Death::Begun, &cleanup).await?;
    story.end().await
}

#[tokio::test]
async fn problems_are_found_and_resolved_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(17).await?;
    // Otherwise the resurrector does it.
    let off = Request::json("PUT", "/resurrection", &json!({ "resurrection_paused": true }));
    ensure!(story.bosh().await?.send(&off).await?.status == 200);
    let lost = instance(&story, "user", 0).await?["cid"].as_str().context("a VM")?.to_owned();
    story.cluster.sim().control().crash_vm(VmCid::new(&lost)).await?;

    let scan = Request::json("POST", "/deployments/web/scans", &json!({}));
    story.task("cloud-check: scan", Death::Lines(1), &scan).await?;
    let problems = story.list("/deployments/web/problems").await?;
    ensure!(problems.len() == 1 && problems[0]["type"] == "unresponsive_agent", "{problems:?}");
    let id = problems[0]["id"].to_string();
    let resolve = json!({ "resolutions": { (id): "recreate_vm" } });
    let resolve = Request::json("PUT", "/deployments/web/problems", &resolve);
    story.task("cloud-check: resolve", Death::Lines(1), &resolve).await?;
    let made = instance(&story, "user", 0).await?;
    ensure!(made["cid"] != lost && made["cid"].is_string(), "{made}");

    // As `recover` does with a plan: what is to be done with each kind of problem, and how many at once.
    let lost = made["cid"].as_str().context("a VM")?.to_owned();
    story.cluster.sim().control().crash_vm(VmCid::new(&lost)).await?;
    story.task("recover: scan", Death::AtOnce, &scan).await?;
    let problems = story.list("/deployments/web/problems").await?;
    ensure!(problems.len() == 1 && problems[0]["type"] == "unresponsive_agent", "{problems:?}");
    let id = problems[0]["id"].to_string();
    let plan = json!({
        "resolutions": { (id): "recreate_vm" },
        "max_in_flight_overrides": { "user": "100%" },
    });
    let plan = Request::json("PUT", "/deployments/web/problems", &plan);
    story.task("recover: resolve", Death::Begun, &plan).await?;
    let made = instance(&story, "user", 0).await?;
    ensure!(made["cid"] != lost && made["cid"].is_string(), "{made}");
    story.end().await
}
