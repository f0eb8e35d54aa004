//! Stemcells and releases: from the upload to the last clean-up.

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::Request;
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{self, ReleaseFolder};
use serde_json::json;

use super::shelf::Shelf;
use super::story::{Death, Story, manifest, release};

#[tokio::test]
async fn stemcells_and_releases_come_and_go_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin(11).await?;
    let stemcell = std::fs::read(workload::build_stemcell(story.cluster.folder())?)?;
    let again = || Request::archive("/stemcells?fix=true", stemcell.clone());
    story.task("upload-stemcell", Death::Begun, &Request::archive("/stemcells", stemcell.clone())).await?;
    story.task("upload-stemcell --fix", Death::Lines(1), &again()).await?;
    story.task("upload-release", Death::AtOnce, &Request::archive("/releases", release()?)).await?;
    let fix = Request::archive("/releases?fix=true", release()?);
    story.task("upload-release --fix", Death::Begun, &fix).await?;
    let dev = ReleaseFolder::copy_of_hello(story.cluster.folder())?.archive()?;
    let rebase = Request::archive("/releases?rebase=true", std::fs::read(dev)?);
    story.task("upload-release --rebase", Death::AtOnce, &rebase).await?;
    ensure!(story.list("/stemcells").await?.len() == 1 && story.list("/releases").await?.len() == 2);

    story.at_once("update-cloud-config", 201, &cloud_config()).await?;
    story.undisturbed(&Request::yaml("POST", "/deployments", &manifest("hello"))).await?;
    let wish = json!({
        "deployment_name": "web", "release_name": "golden", "release_version": "1",
        "stemcell_os": "directorate-host", "stemcell_version": "1.0", "sha2": true, "jobs": [],
    });
    let export = Request::json("POST", "/releases/export", &wish);
    let exported = story.task("export-release", Death::Begun, &export).await?;
    let exported = story.result(&exported).await?;
    let id = exported[0]["blobstore_id"].as_str().context("an archive")?;
    let archive = story.bosh().await?.send(&Request::new("GET", format!("/resources/{id}"))).await?;
    ensure!(archive.status == 200 && archive.body.starts_with(b"\x1f\x8b"), "{}", archive.status);

    story.task("delete-deployment", Death::Lines(3), &Request::new("DELETE", "/deployments/web")).await?;
    let version = Request::new("DELETE", "/releases/golden?version=1");
    story.task("delete-release of one version", Death::AtOnce, &version).await?;
    story.task("delete-release", Death::AtOnce, &Request::new("DELETE", "/releases/hello")).await?;
    story
        .task("delete-stemcell", Death::Begun, &Request::new("DELETE", "/stemcells/directorate-host/1.0"))
        .await?;
    ensure!(story.list("/releases").await?.is_empty() && story.list("/stemcells").await?.is_empty());
    story.end().await
}

fn cloud_config() -> Request {
    let content = json!({ "type": "cloud", "name": "default", "content": Story::cloud_config() });
    Request::json("POST", "/configs", &content)
}

#[tokio::test]
async fn archives_are_fetched_from_elsewhere_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut story = Story::begin(19).await?;
    let stemcells = Shelf::with(std::fs::read(workload::build_stemcell(story.cluster.folder())?)?).await?;
    let releases = Shelf::with(release()?).await?;
    let wish = |path: &str, shelf: &Shelf| Request::json("POST", path, &json!({ "location": shelf.url }));
    for (death, path) in [(Death::AtOnce, "/stemcells"), (Death::Lines(1), "/stemcells?fix=true")] {
        story.task("upload-stemcell by URL", death, &wish(path, &stemcells)).await?;
    }
    for (death, path) in [(Death::Begun, "/releases"), (Death::Lines(1), "/releases?fix=true")] {
        story.task("upload-release by URL", death, &wish(path, &releases)).await?;
    }
    ensure!(story.list("/stemcells").await?.len() == 1 && story.list("/releases").await?.len() == 1);
    story.end().await
}
