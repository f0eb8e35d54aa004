//! Networks that directors make: with the deploy that needs one, until somebody deletes it.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use chaos_tests::needs::{self, Need};

use super::story::{Death, Story, manifest};

/// The zones' one network becomes one that directors make; the cloud chooses its addresses.
fn managed() -> Result<String> {
    let people = Story::cloud_config();
    let subnet = "range: 10.244.0.0/16, gateway: 10.244.0.1, ";
    ensure!(people.contains(subnet), "{people}");
    Ok(people
        .replace(subnet, "name: s, netmask_bits: 24, ")
        .replace("type: manual\n", "type: manual\n  managed: true\n"))
}

#[tokio::test]
async fn a_network_is_made_and_deleted_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin_with_web(20).await?;
    story.undisturbed(&Request::new("DELETE", "/deployments/web")).await?;
    let config = Request::yaml("POST", "/cloud_configs", &managed()?);
    ensure!(story.bosh().await?.send(&config).await?.status == 201);
    story.cluster.operate(&["managed-networks", "on"]).await?;

    let deploy = Request::yaml("POST", "/deployments", &manifest("hello"));
    story.task("deploy with a managed network", Death::Lines(2), &deploy).await?;
    let rows = story.list("/deployments/web/instances").await?;
    let is_in = |row: &serde_json::Value| row["ips"][0].as_str().is_some_and(|ip| ip.starts_with("10.200."));
    ensure!(rows.iter().any(is_in), "{rows:?}");
    ensure!(in_cloud(&story).await? == 1, "there is one, however often it was asked for");
    ensure!(story.list("/networks?orphaned=true").await?.is_empty());
    let listed = story.cluster.operate(&["networks"]).await?;
    ensure!(listed.contains("default") && listed.contains("web"), "{listed}");

    story.task("delete-deployment", Death::Lines(2), &Request::new("DELETE", "/deployments/web")).await?;
    let orphans = story.list("/networks?orphaned=true").await?;
    let orphan = orphans.first().context("an orphan")?;
    ensure!(orphans.len() == 1 && orphan["name"] == "default" && orphan["type"] == "manual", "{orphan}");
    story.task("delete-network", Death::Begun, &Request::new("DELETE", "/networks/default")).await?;
    ensure!(story.list("/networks?orphaned=true").await?.is_empty() && in_cloud(&story).await? == 0);
    story.end().await
}

async fn in_cloud(story: &Story) -> Result<usize> {
    Ok(story.cluster.sim().control().record().await?.networks.len())
}
