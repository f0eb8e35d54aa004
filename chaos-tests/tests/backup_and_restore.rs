//! The fleet is gone: a new one begins with a backup, or with what one replica has left.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::{DEPLOY_LIMIT, Deploying};
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::{Chances, Knobs, Span};
use serde_json::Value;

/// A cloud that takes its time: there is a middle in everything.
fn slow() -> Knobs {
    Knobs {
        calls: Chances { latency: Span { min_ms: 20, max_ms: 60 }, ..Chances::default() },
        boot: Span { min_ms: 20, max_ms: 60 },
        action: Span { min_ms: 20, max_ms: 60 },
        ..Knobs::default()
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is UTF-8")
}

/// Takes a backup; returns its file and what `dctl` says of it.
async fn save(cluster: &Cluster, more: &[&str]) -> Result<(PathBuf, Value)> {
    let file = cluster.folder().join("fleet.backup");
    let arguments = ["--json", "cluster", "snapshot", "save", text(&file)?];
    let told = cluster.operate(&[&arguments, more].concat()).await?;
    Ok((file, serde_json::from_str(&told)?))
}

/// Restores a backup on a new replica, which takes the agents' port of the first one; returns its number.
fn restore(cluster: &mut Cluster, file: &Path) -> Result<usize> {
    let number = cluster.prepare_in_place_of(1)?;
    fs::copy(cluster.folder_of(1).join("kek"), cluster.folder_of(number).join("kek"))?;
    let restored = cluster.directord(number, &["restore", "--snapshot", text(file)?], &[])?;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    Ok(number)
}

async fn members(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(cluster.client()?.status().await?.members.into_iter().map(|member| member.name).collect())
}

#[tokio::test]
async fn a_new_fleet_goes_on_from_a_backup_in_the_middle_of_a_deploy() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 1, knobs: slow() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let client = cluster.client()?;
    let hello = Hello { instances: 2, ..Hello::default() };
    client.done(client.deploy(&hello.manifest(), "first").await?, DEPLOY_LIMIT).await?;
    let grown = Hello { instances: 5, greeting: "Moin".into(), ..hello };
    let mut deploying = Deploying::start(&cluster, &grown.name, &grown.file(&cluster)?)?;
    deploying.printed(6).await?;
    client.put_config("before", "text: it is in the backup").await?;
    let (file, told) = save(&cluster, &["--with-blobs"]).await?;
    assert!(told["rows"].as_u64() > Some(50) && told["blobs"].as_u64() > Some(2), "{told}");
    let task = client.tasks().await?.into_iter().map(|task| task.id).max().context("the deploy is a task")?;
    let term = client.status().await?.members.iter().filter_map(|m| m.term).max();
    client.put_config("after", "text: it is not").await?;
    drop(deploying);
    (1..=3).try_for_each(|number| cluster.kill(number))?;

    let first = restore(&mut cluster, &file)?;
    cluster.run(first)?;
    cluster.wait_for_voter(first).await?;
    let (client, status) = (cluster.client()?, cluster.client()?.status().await?);
    assert_eq!(members(&cluster).await?, [format!("director-{first}")]);
    assert!(status.members[0].term > term, "no agent has heard of a later leader: {status:?}");
    // The task that was under way goes on, with the agents and the VMs that are there.
    client.done(task, DEPLOY_LIMIT).await?;
    assert_eq!(client.config("note", "before").await?, "text: it is in the backup");
    assert!(client.config("note", "after").await.is_err());
    let instances = client.instances("hello").await?;
    assert_eq!(instances.len(), 5);
    assert!(instances.iter().all(|i| i.process_state == "running"), "{instances:?}");
    let vms = cluster.sim().control().statistics().await?.vms;
    assert_eq!(vms, 5, "a VM for each instance and no other");
    // Others join it, and what they lead is what it was.
    let second = cluster.add().await?;
    cluster.wait_for_voter(second).await?;
    let third = cluster.add().await?;
    cluster.wait_for_voter(third).await?;
    cluster.operate(&["cluster", "transfer"]).await?;
    let changed = Hello { greeting: "Ahoi".into(), ..grown };
    let next = client.deploy(&changed.manifest(), "under the new fleet").await?;
    assert!(next > task + 1000, "an agent takes no request of {next} for one of the lost fleet's");
    client.done(next, DEPLOY_LIMIT).await?;
    assert_eq!(client.lost().await?, Vec::new());
    cluster.finish().await
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(1, CloudKind::Process).await?;
    cluster.client()?.put_config("note", "text: kept").await?;
    let (file, told) = save(&cluster, &[]).await?;
    assert_eq!(told["blobs"], Value::Null, "it was not asked for any");
    cluster.operate(&["cluster", "snapshot", "verify", text(&file)?]).await?;

    let number = cluster.prepare()?;
    let attempt = |cluster: &Cluster, number, file: &Path| -> Result<String> {
        let refused = cluster.directord(number, &["restore", "--snapshot", text(file)?], &[])?;
        assert!(!refused.status.success());
        Ok(String::from_utf8_lossy(&refused.stderr).into_owned())
    };
    let told = attempt(&cluster, number, &file)?;
    assert!(told.contains("key-encryption key into"), "without the key: {told}");
    let kek = cluster.folder_of(number).join("kek");
    fs::write(&kek, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")?;
    let told = attempt(&cluster, number, &file)?;
    assert!(told.contains("not the one under which"), "with another key: {told}");
    fs::copy(cluster.folder_of(1).join("kek"), &kek)?;
    let damaged = cluster.folder().join("damaged.backup");
    let mut bytes = fs::read(&file)?;
    let place = bytes.windows(4).position(|w| w == b"kept").context("the config is in it")?;
    bytes[place] ^= 1;
    fs::write(&damaged, bytes)?;
    let told = attempt(&cluster, number, &damaged)?;
    assert!(told.contains("table `configs`") && told.contains("is damaged"), "{told}");
    let verified = cluster.dctl().args(["cluster", "snapshot", "verify", text(&damaged)?]).output().await?;
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.code() == Some(1) && told.contains("table `configs`"), "{told}");
    let told = attempt(&cluster, 1, &file)?;
    assert!(told.contains("belongs to a fleet already"), "{told}");
    assert!(!cluster.folder_of(number).join("data/raft").exists(), "nothing was written");

    cluster.terminate(1).await?;
    let restored = cluster.directord(number, &["restore", "--snapshot", text(&file)?], &[])?;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    cluster.run(number)?;
    cluster.wait_for_voter(number).await?;
    assert_eq!(cluster.client()?.config("note", "note").await?, "text: kept");
    cluster.finish().await
}

#[tokio::test]
async fn the_last_replica_that_is_left_becomes_a_fleet_of_one() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 2, knobs: Knobs::default() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let client = cluster.client()?;
    client.done(client.deploy(&Hello::default().manifest(), "first").await?, DEPLOY_LIMIT).await?;
    client.put_config("note", "text: acknowledged").await?;
    let survivor = cluster.follower().await?;
    let term = client.status().await?.members.iter().filter_map(|m| m.term).max();
    let recover = |cluster: &Cluster, consent: &[&str]| -> Result<(bool, String)> {
        let done = cluster.directord(survivor, &[&["recover"], consent].concat(), &[])?;
        Ok((done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned()))
    };
    let consent = ["--unreplicated-writes-may-be-lost"];
    let (done, told) = recover(&cluster, &consent)?;
    assert!(!done && told.contains("is at work on"), "while it runs: {told}");
    (1..=3).try_for_each(|number| cluster.kill(number))?;
    for lost in (1..=3).filter(|number| *number != survivor) {
        fs::remove_dir_all(cluster.folder_of(lost).join("data"))?;
    }
    let (done, told) = recover(&cluster, &[])?;
    assert!(!done && told.contains("would be lost"), "without consent: {told}");
    let (done, told) = recover(&cluster, &consent)?;
    assert!(done, "{told}");
    cluster.run(survivor)?;
    cluster.wait_for_voter(survivor).await?;
    let status = client.status().await?;
    assert_eq!(members(&cluster).await?, [format!("director-{survivor}")]);
    assert!(status.members[0].term > term, "{status:?}");
    assert_eq!(client.config("note", "note").await?, "text: acknowledged");
    cluster.operate(&["health", "resurrection", "on"]).await?;
    for _ in 0..2 {
        let number = cluster.add().await?;
        cluster.wait_for_voter(number).await?;
    }
    let changed = Hello { greeting: "Moin".into(), ..Hello::default() };
    client.done(client.deploy(&changed.manifest(), "under the new fleet").await?, DEPLOY_LIMIT).await?;
    let events = client.events("recover", "fleet").await?;
    assert_eq!(events.len(), 1, "{events:?}");
    cluster.finish().await
}
