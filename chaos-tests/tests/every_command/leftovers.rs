//! What is left over: disks, VMs, and the clean-up.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use chaos_tests::needs::{self, Need};
use serde_json::{Value, json};

use super::story::{Death, Story};

#[tokio::test]
async fn disks_and_vms_are_given_up_and_taken_back_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(18).await?;
    story.undisturbed(&Request::yaml("PUT", "/deployments/web/jobs/api/0?state=stopped", "")).await?;
    let api = story.list("/deployments/web/instances").await?;
    let api = api.iter().find(|row| row["job"] == "api" && row["index"] == 0).context("api/0")?.clone();
    let known = story.cluster.client()?.instances("web").await?;
    let disk = known.into_iter().find(|row| row.group == "api" && row.index == 0).context("api/0")?;
    let disk = disk.disk_cids.first().context("a disk")?.clone();

    let give_up = Request::new("DELETE", format!("/disks/{disk}?orphan=true"));
    story.task("orphan-disk", Death::AtOnce, &give_up).await?;
    ensure!(orphans(&story).await?.contains(&disk));
    let id = api["id"].as_str().context("an id")?;
    let attach = format!("/disks/{disk}/attachments?deployment=web&job=api&instance_id={id}");
    story.task("attach-disk", Death::Begun, &Request::new("PUT", attach)).await?;
    ensure!(!orphans(&story).await?.contains(&disk));
    story.undisturbed(&give_up).await?;
    story.task("delete-disk", Death::Begun, &Request::new("DELETE", format!("/disks/{disk}"))).await?;
    ensure!(!orphans(&story).await?.contains(&disk));
    story.undisturbed(&Request::yaml("PUT", "/deployments/web/jobs/api/0?state=started", "")).await?;

    let off = Request::json("PUT", "/resurrection", &json!({ "resurrection_paused": true }));
    ensure!(story.bosh().await?.send(&off).await?.status == 200);
    let vm = story.list("/deployments/web/instances").await?;
    let vm =
        vm.iter().find(|row| row["job"] == "user").and_then(|row| row["cid"].as_str()).context("a VM")?;
    story.task("delete-vm", Death::Begun, &Request::new("DELETE", format!("/vms/{vm}"))).await?;
    let rows = story.list("/deployments/web/instances").await?;
    ensure!(rows.iter().all(|row| row["cid"] != vm), "{rows:?}");

    story.undisturbed(&Request::new("DELETE", "/deployments/web")).await?;
    ensure!(!orphans(&story).await?.is_empty());
    let all = json!({ "config": { "remove_all": true, "keep_orphaned_disks": false } });
    story.task("clean-up --all", Death::Lines(2), &Request::json("POST", "/cleanup", &all)).await?;
    ensure!(orphans(&story).await?.is_empty());
    for list in ["/releases", "/stemcells", "/orphaned_vms"] {
        ensure!(story.list(list).await?.is_empty(), "{list}");
    }
    story.end().await
}

#[tokio::test]
async fn snapshots_are_taken_and_deleted_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(19).await?;
    let all = "/deployments/web/snapshots";
    story.task("take-snapshot", Death::Begun, &Request::new("POST", all)).await?;
    let taken = Request::new("POST", "/deployments/web/jobs/api/0/snapshots");
    let told = story.task("take-snapshot of one", Death::Begun, &taken).await?;
    let listed = story.list(all).await?;
    let newest = listed.last().and_then(|row| row["snapshot_cid"].as_str()).context("a snapshot")?;
    ensure!(told["result"] == format!("snapshot(s) {newest} created"), "{told}");
    // One of each disk, and one more: none was taken twice, and none is there that nobody knows.
    ensure!(listed.len() == 3 && in_cloud(&story).await? == cids(&listed), "{listed:?}");
    let one = Request::new("DELETE", format!("{all}/{newest}"));
    story.task("delete-snapshot", Death::AtOnce, &one).await?;
    ensure!(cids(&story.list(all).await?) == in_cloud(&story).await?);
    story.task("delete-snapshots", Death::Begun, &Request::new("DELETE", all)).await?;
    ensure!(story.list(all).await?.is_empty() && in_cloud(&story).await?.is_empty());
    story.end().await
}

fn cids(listed: &[Value]) -> BTreeSet<String> {
    listed.iter().filter_map(|row| Some(row["snapshot_cid"].as_str()?.to_owned())).collect()
}

async fn in_cloud(story: &Story) -> Result<BTreeSet<String>> {
    let record = story.cluster.sim().control().record().await?;
    Ok(record.snapshots.keys().map(ToString::to_string).collect())
}

async fn orphans(story: &Story) -> Result<Vec<String>> {
    let rows = story.list("/disks").await?;
    Ok(rows.iter().filter_map(|row: &Value| Some(row["disk_cid"].as_str()?.to_owned())).collect())
}
