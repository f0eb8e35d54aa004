//! A clock that is a day wrong, a disk that is full: on one replica. The others go on, and so does the fleet.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::client::Client;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::DEPLOY_LIMIT;
use chaos_tests::machine::{FailingSync, SmallDisk, WrongClock};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};
use dctl::call;
use dctl::client::Patience;
use dctl::error::Error;
use proto::v1::TransferLeaderRequest;
use proto::v1::cluster_client::ClusterClient;
use rand::RngCore as _;

const DAY: i64 = 24 * 3600;

/// Makes a replica the leader.
async fn lead(cluster: &Cluster, number: usize) -> Result<()> {
    let client = cluster.client()?;
    let name = format!("director-{number}");
    let members = client.status().await?.members;
    let node_id = members.iter().find(|m| m.name == name).context("it is a member")?.id;
    let request = TransferLeaderRequest { node_id, request_id: dctl::client::request_id() };
    call!(client.fleet, ClusterClient.transfer_leader(request)).await?;
    ensure!(cluster.leader().await? == number, "{name} does not lead");
    Ok(())
}

async fn with_a_clock_that_is(seconds: i64) -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(2, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let client = cluster.client()?;
    let clock = WrongClock::build(cluster.folder(), seconds)?;
    // It joins with a wrong clock, runs with it, and leads with it.
    let wrong = cluster.prepare()?;
    let token = client.join_token(600).await?;
    let joined = cluster.join_with(wrong, &token, &clock.environment())?;
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    cluster.run_with(wrong, &clock.environment())?;
    cluster.wait_for_voter(wrong).await?;
    cluster.client_of(wrong)?.put_config("through-it", "text: as follower").await?;
    lead(&cluster, wrong).await?;
    cluster.client_of(wrong)?.put_config("through-it", "text: as leader").await?;
    let task = client.deploy(&Hello::default().manifest(), "under a wrong clock").await?;
    client.done(task, DEPLOY_LIMIT).await?;
    assert!(client.instances("hello").await?.iter().all(|i| i.process_state == "running"));
    // Its certificate is one that the others believe, also after they have made new connections to it.
    cluster.kill(wrong)?;
    client.put_config("without-it", "text: y").await?;
    cluster.run_with(wrong, &clock.environment())?;
    cluster.wait_for_voter(wrong).await?;
    // Put right, it stays what it is.
    cluster.terminate(wrong).await?;
    cluster.run(wrong)?;
    cluster.wait_for_voter(wrong).await?;
    let task =
        client.deploy(&Hello { greeting: "Moin".into(), ..Hello::default() }.manifest(), "right").await?;
    client.done(task, DEPLOY_LIMIT).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_replica_whose_clock_is_a_day_ahead_leads_a_deploy() -> Result<()> {
    with_a_clock_that_is(DAY).await
}

#[tokio::test]
async fn a_replica_whose_clock_is_a_day_behind_leads_a_deploy() -> Result<()> {
    with_a_clock_that_is(-DAY).await
}

/// Writes a file of chance: no two are one blob.
fn some_file(cluster: &Cluster, mebibytes: usize) -> Result<PathBuf> {
    let mut content = vec![0; mebibytes << 20];
    rand::rng().fill_bytes(&mut content);
    let path = cluster.folder().join(format!("upload-{}", rand::random::<u64>()));
    std::fs::write(&path, content)?;
    Ok(path)
}

async fn upload(client: &Client, file: &std::path::Path) -> std::result::Result<String, Error> {
    let file = file.to_str().expect("the path is UTF-8");
    Ok(client.fleet.upload(file.into(), |_| {}).await?.digest)
}

#[tokio::test]
async fn a_full_disk_on_one_replica_stops_neither_it_nor_the_fleet() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start_with(2, CloudKind::Process, "[blobs]\nkeep_free_mib = 64\n").await?;
    let small = cluster.prepare()?;
    let Some(disk) = SmallDisk::mount(&cluster.folder_of(small).join("data"), 160)? else { return Ok(()) };
    let client = cluster.client()?;
    let token = client.join_token(600).await?;
    let joined = cluster.join(small, &token)?;
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    cluster.run(small)?;
    cluster.wait_for_voter(small).await?;
    lead(&cluster, small).await?;

    // More than its disk holds. The others take all of it; it takes what leaves room for its log.
    let mut uploaded = Vec::new();
    for _ in 0..12 {
        uploaded.push(upload(&client, &some_file(&cluster, 12)?).await?);
    }
    cluster.check_alive()?;
    let patience = Patience::within(Duration::from_secs(20));
    let own = Client::with_patience(&[cluster.api(small)], cluster.credentials(), patience)?;
    let refused = upload(&own, &some_file(&cluster, 12)?).await.expect_err("it is full");
    assert!(refused.to_string().contains("no room"), "at once, and why: {refused}");
    // What it has no room for it reads where it is.
    for digest in &uploaded {
        own.fleet.download(digest, &mut Vec::new()).await?;
    }
    for n in 0..20 {
        own.put_config("note", &format!("text: {n}")).await?;
    }
    assert_eq!(cluster.leader().await?, small, "it goes on leading");
    cluster.check_alive()?;

    // Somebody else fills the rest. It leaves the lead to one that has room, and goes on answering reads.
    let filler = disk.fill()?;
    wait::until_true("another one leads", SETTLE, async || Ok(cluster.leader().await? != small)).await?;
    let rest: Vec<String> = (1..small).map(|n| cluster.api(n)).collect();
    let rest = Client::new(&rest, cluster.credentials())?;
    let text = "x".repeat(64 << 10);
    for n in 0..60 {
        rest.put_config("note", &format!("text: {n} {text}")).await?;
    }
    let room = room_of(&client, small).await?;
    assert_eq!(room.as_deref(), Some("none"), "it takes nothing more, and says so");
    cluster.check_alive()?;
    // As soon as there is room it takes what it has missed: nobody restarts it.
    std::fs::remove_file(filler)?;
    wait::until_true("it has caught up", SETTLE, async || {
        Ok(own.config("note", "note").await?.contains("text: 59 "))
    })
    .await?;
    // The replica first: it has files open there.
    cluster.terminate(small).await?;
    drop(disk);
    client.put_config("after", "text: all").await?;
    cluster.finish().await
}

/// Returns how much room a replica says there is on its disk.
async fn room_of(client: &Client, number: usize) -> Result<Option<String>> {
    let name = format!("director-{number}");
    let members = client.status().await?.members;
    Ok(members.into_iter().find(|member| member.name == name).context("it is a member")?.room)
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_answers_reads_until_there_is_room_again() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("directorate-chaos-").tempdir()?;
    let Some(disk) = SmallDisk::mount(&folder.path().join("director-1/data"), 200)? else { return Ok(()) };
    let mut cluster = Cluster::start_in(folder, 1, CloudKind::Process).await?;
    let client = cluster.client()?;
    client.put_config("note", "text: before").await?;
    let filler = disk.fill()?;
    wait::until_true("it has noticed", SETTLE, async || {
        Ok(room_of(&client, 1).await?.as_deref() == Some("none"))
    })
    .await?;
    // Nobody has room to hand over to: a write is refused, and says why; a read is answered as ever.
    let refused = client.put_config("note", "text: refused").await.expect_err("there is no room");
    assert!(format!("{refused:#}").contains("no room on the leader's disk"), "{refused:#}");
    assert_eq!(client.config("note", "note").await?, "text: before");
    std::fs::remove_file(filler)?;
    wait::until_true("it takes writes again, by itself", SETTLE, async || {
        client.put_config("note", "text: after").await?;
        Ok(true)
    })
    .await?;
    assert_eq!(client.config("note", "note").await?, "text: after");
    cluster.terminate(1).await?;
    drop(disk);
    Ok(())
}

#[tokio::test]
async fn a_disk_that_does_not_sync_ends_its_replica_and_loses_nothing() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    let disk = FailingSync::build(cluster.folder())?;
    let leader = cluster.leader().await?;
    cluster.terminate(leader).await?;
    cluster.run_with(leader, &disk.environment())?;
    cluster.wait_for_voter(leader).await?;
    lead(&cluster, leader).await?;
    client.put_config("note", "text: acknowledged").await?;
    disk.fail()?;
    // It can acknowledge nothing any more: whoever asks it is answered by the others.
    client.put_config("note", "text: by another leader").await?;
    wait::until_true("it has ended", SETTLE, async || Ok(cluster.has_ended(leader))).await?;
    assert!(cluster.log_of(leader)?.contains("fatal: "), "and said why");
    assert_eq!(client.config("note", "note").await?, "text: by another leader");
    disk.heal()?;
    cluster.run_with(leader, &disk.environment())?;
    cluster.wait_for_voter(leader).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_replica_that_was_away_for_very_long_is_sent_a_snapshot() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let (client, away) = (cluster.client()?, cluster.follower().await?);
    let name = format!("director-{away}");
    client.put_config("before", "text: it left").await?;
    cluster.terminate(away).await?;
    // More entries than anybody keeps for one that was away: see the policy of the consensus crate.
    let (done, total) = (AtomicU64::new(0), 16_000);
    let writers = (0..64).map(|writer| {
        let (client, done) = (cluster.client(), &done);
        async move {
            let client = client?;
            while done.fetch_add(1, Ordering::Relaxed) < total {
                let content = format!("text: {}", done.load(Ordering::Relaxed));
                client.put_config(&format!("note-{writer}"), &content).await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(writers).await?;
    client.put_config("after", "text: it left").await?;
    cluster.run(away)?;
    cluster.wait_for_voter(away).await?;
    let own = cluster.client_of(away)?;
    wait::until_true("it has caught up", SETTLE, async || {
        let members = client.status().await?.members;
        let member = members.iter().find(|m| m.name == name).context("it is a member")?;
        Ok(member.lag == Some(0) && member.snapshot_index > Some(0))
    })
    .await?;
    for note in ["before", "after"] {
        assert_eq!(own.config("note", note).await?, "text: it left");
    }
    cluster.finish().await
}
