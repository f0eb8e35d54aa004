//! Deploys with every flag, and what stands beside them: dry runs, errands, links, the end of a deployment.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use serde_json::{Value, json};

use super::story::{Death, Story, manifest};

fn deploy(flags: &str, greeting: &str) -> Request {
    Request::yaml("POST", format!("/deployments?{flags}"), &manifest(greeting))
}

#[tokio::test]
async fn deploys_and_errands_go_on_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(13).await?;
    let cids = |rows: Vec<Value>| {
        rows.iter().filter_map(|row| row["cid"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let before = cids(story.list("/deployments/web/instances").await?);
    for (command, death, flags, greeting) in [
        ("deploy", Death::Lines(6), "", "one"),
        ("deploy, nothing changed", Death::AtOnce, "", "one"),
        ("deploy --dry-run", Death::AtOnce, "dry_run=true", "two"),
        ("deploy --canaries --max-in-flight", Death::Lines(4), "canaries=2&max_in_flight=1", "two"),
        ("deploy --skip-drain", Death::Lines(5), "skip_drain=*", "three"),
        ("deploy --fix", Death::Begun, "fix=true", "four"),
    ] {
        story.task(command, death, &deploy(flags, greeting)).await?;
    }
    ensure!(before == cids(story.list("/deployments/web/instances").await?), "a VM was made anew");
    story.task("deploy --recreate", Death::Lines(6), &deploy("recreate=true", "four")).await?;
    let disks = "recreate_persistent_disks=true";
    story.task("deploy --recreate-persistent-disks", Death::Lines(6), &deploy(disks, "four")).await?;
    let after = cids(story.list("/deployments/web/instances").await?);
    ensure!(
        after.len() == before.len() && after.iter().all(|cid| !before.contains(cid)),
        "{before:?} {after:?}"
    );

    let run = |keep_alive| json!({ "keep-alive": keep_alive, "when-changed": false, "instances": [] });
    let smoke = |keep_alive| Request::json("POST", "/deployments/web/errands/smoke/runs", &run(keep_alive));
    story.task("run-errand --keep-alive", Death::Lines(3), &smoke(true)).await?;
    story.task("run-errand", Death::Begun, &smoke(false)).await?;
    let check = Request::json("POST", "/deployments/web/errands/check/runs", &run(false));
    let errand = story.task("run-errand beside other jobs", Death::Begun, &check).await?;
    let runs = story.result(&errand).await?;
    ensure!(runs.len() == 3 && runs.iter().all(|run| run["exit_code"] == 0), "{runs:?}");

    links(&mut story).await?;
    story
        .task(
            "delete-deployment --force",
            Death::Lines(2),
            &Request::new("DELETE", "/deployments/web?force=true"),
        )
        .await?;
    ensure!(story.list("/deployments").await?.is_empty());
    story.end().await
}

async fn links(story: &mut Story) -> Result<()> {
    let providers = story.list("/link_providers?deployment=web").await?;
    let endpoint = providers.iter().find(|row| row["name"] == "endpoint").context("a provider")?;
    let wish = json!({
        "link_provider_id": endpoint["id"],
        "link_consumer": { "owner_object": { "name": "outside", "type": "external" } },
    });
    let before = story.list("/links?deployment=web").await?.len();
    let made = story.at_once("create a link", 200, &Request::json("POST", "/links", &wish)).await?;
    ensure!(story.list("/links?deployment=web").await?.len() == before + 1);
    let made: Value = serde_json::from_slice(&made.body)?;
    let delete = Request::new("DELETE", format!("/links/{}", made["id"].as_str().context("an id")?));
    story.at_once("delete a link", 204, &delete).await?;
    ensure!(story.list("/links?deployment=web").await?.len() == before);
    Ok(())
}

#[tokio::test]
async fn a_task_is_cancelled_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(14).await?;
    for (number, cancel) in ["cancel-task", "cancel-tasks"].into_iter().enumerate() {
        let bosh = story.bosh().await?;
        let task = bosh.start(&deploy("recreate=true", &format!("again {number}"))).await?;
        wait::until_true("the deploy is under way", chaos_tests::cluster::SETTLE, async || {
            Ok(bosh.look(task, 0).await?.state == "processing")
        })
        .await?;
        let request = match cancel {
            "cancel-task" => Request::new("DELETE", format!("/task/{task}")),
            _ => Request::json(
                "POST",
                "/tasks/cancel",
                &json!({ "states": ["processing"], "deployment": "web" }),
            ),
        };
        story.at_once(cancel, 204, &request).await?;
        let bosh = story.bosh().await?;
        let end = wait::until("the task has ended", chaos_tests::cluster::SETTLE * 2, async || {
            Ok(Some(bosh.look(task, 0).await?).filter(chaos_tests::bosh::Look::is_over))
        });
        let end = end.await?;
        ensure!(end.state == "cancelled", "{}", end.row);
    }
    story.task("deploy after that", Death::Lines(4), &deploy("", "at last")).await?;
    story.end().await
}
