//! Dynamic disks, as a CSI driver has them made, attached, detached and deleted; and what becomes of them when VMs go.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use chaos_tests::needs::{self, Need};
use serde_json::{Value, json};

use super::story::{Death, Story};

#[tokio::test]
async fn a_disk_is_made_attached_and_deleted_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(21).await?;
    let before = in_cloud(&story).await?;
    let rows = story.list("/deployments/web/instances").await?;
    let api = rows.iter().find(|row| row["job"] == "api").context("an instance")?;
    let (id, slug) = (api["id"].clone(), format!("api/{}", api["id"].as_str().context("its id")?));

    let provided = json!({
        "instance_id": id, "disk_name": "data", "disk_pool_name": "small", "disk_size": 64,
        "metadata": {"owner": "csi"},
    });
    let provide = Request::json("POST", "/dynamic_disks/provide", &provided);
    let task = story.task("provide a dynamic disk", Death::Begun, &provide).await?;
    let told = story.result(&task).await?;
    let disk = one(&story).await?;
    ensure!(told == [json!({ "disk_cid": disk["disk_cid"] })], "{told:?} {disk}");
    ensure!(disk["instance"] == slug.as_str() && disk["metadata"]["owner"] == "csi", "{disk}");
    ensure!(in_cloud(&story).await? == before + 1, "there is one, however often it was asked for");
    ensure!(story.cluster.operate(&["dynamic-disks"]).await?.contains(&slug));

    let recreate = format!("/deployments/web/jobs/{slug}?state=recreate");
    story.task("recreate", Death::Lines(2), &Request::yaml("PUT", recreate, "")).await?;
    let disk = one(&story).await?;
    ensure!(disk.get("instance").is_none(), "the VM that had it is gone: {disk}");

    let attach = Request::json("POST", "/dynamic_disks/data/attach", &json!({ "instance_id": id }));
    story.task("attach a dynamic disk", Death::AtOnce, &attach).await?;
    ensure!(one(&story).await?["instance"] == slug.as_str());
    let detach = Request::new("POST", "/dynamic_disks/data/detach");
    story.task("detach a dynamic disk", Death::AtOnce, &detach).await?;
    story
        .task("delete a dynamic disk", Death::AtOnce, &Request::new("DELETE", "/dynamic_disks/data"))
        .await?;
    ensure!(story.list("/dynamic_disks").await?.is_empty() && in_cloud(&story).await? == before);

    story.undisturbed(&provide).await?;
    story.undisturbed(&Request::new("DELETE", "/deployments/web")).await?;
    ensure!(story.list("/dynamic_disks").await?.is_empty() && in_cloud(&story).await? == before);
    story.end().await
}

async fn one(story: &Story) -> Result<Value> {
    let mut all = story.list("/dynamic_disks").await?;
    ensure!(all.len() == 1, "{all:?}");
    all.pop().context("a disk")
}

async fn in_cloud(story: &Story) -> Result<usize> {
    Ok(story.cluster.sim().control().record().await?.disks.len())
}
