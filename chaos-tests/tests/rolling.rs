//! One replica after the other is restarted, or upgraded, or hands over, while clients write. None of them sees a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use dctl::call;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{CreateUserTokenRequest, TransferLeaderRequest};
use tokio::task::{JoinSet, LocalSet};

/// Clients that write at the same time.
const WRITERS: usize = 4;

/// Planned hand-overs.
const HAND_OVERS: u64 = 10;

/// What makes a replica of the tests' build pass for the version before.
const OLDER: &[(&str, &str)] = &[("CHAOS_FEATURE_LEVEL", "1")];

/// Clients that write without a pause, each its own note, one number after the other.
struct Writers {
    tasks: JoinSet<Result<u64>>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Writers {
    fn start(cluster: &Cluster) -> Result<Self> {
        let (mut tasks, stop, written) =
            (JoinSet::new(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        for writer in 0..WRITERS {
            let (client, stop, written) = (cluster.client()?, stop.clone(), written.clone());
            tasks.spawn_local(async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    last += 1;
                    let put = client.put_config(&format!("writer-{writer}"), &format!("text: {last}")).await;
                    put.with_context(|| format!("write {last} of writer {writer}"))?;
                    written.fetch_add(1, Ordering::Relaxed);
                }
                Ok(last)
            });
        }
        Ok(Self { tasks, stop, written })
    }

    /// Waits until there were more writes: nobody is stuck.
    async fn go_on(&self) -> Result<()> {
        let before = self.written.load(Ordering::Relaxed);
        let wanted = before + 5 * WRITERS as u64;
        wait::until_true("clients go on writing", SETTLE, async || {
            Ok(self.written.load(Ordering::Relaxed) >= wanted)
        })
        .await
    }

    /// Stops them; errs if one of them saw a failure, or if the last thing that it was told was written is not there.
    async fn end(mut self, cluster: &Cluster) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut last = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            last.push(ended??);
        }
        let mut found = Vec::new();
        for writer in 0..WRITERS {
            let text = cluster.client()?.config("note", &format!("writer-{writer}")).await?;
            found.push(text.strip_prefix("text: ").context("it is a number")?.parse::<u64>()?);
        }
        last.sort_unstable();
        found.sort_unstable();
        ensure!(last == found, "acknowledged {last:?}, there is {found:?}");
        println!("{} writes, and none failed", self.written.load(Ordering::Relaxed));
        Ok(())
    }
}

#[tokio::test]
async fn a_rolling_restart_fails_nobody_who_tries_again() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    LocalSet::new().run_until(restart()).await
}

async fn restart() -> Result<()> {
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let writers = Writers::start(&cluster)?;
    for number in 1..=3 {
        writers.go_on().await?;
        cluster.terminate(number).await?;
        writers.go_on().await?;
        cluster.run(number)?;
        cluster.wait_for_voter(number).await?;
    }
    writers.end(&cluster).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_planned_hand_over_fails_nobody() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    LocalSet::new().run_until(hand_over()).await
}

async fn hand_over() -> Result<()> {
    let cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    let writers = Writers::start(&cluster)?;
    for _ in 0..HAND_OVERS {
        writers.go_on().await?;
        let before = cluster.leader().await?;
        let request = TransferLeaderRequest { request_id: dctl::client::request_id(), node_id: 0 };
        call!(client.fleet, ClusterClient.transfer_leader(request)).await?;
        wait::until_true("another one leads", SETTLE, async || Ok(cluster.leader().await? != before)).await?;
    }
    writers.go_on().await?;
    writers.end(&cluster).await?;
    cluster.finish().await
}

/// Asks for something that only the newer version knows; returns what the fleet said to it.
async fn ask_for_the_new(cluster: &Cluster) -> Result<std::result::Result<(), String>> {
    let request = CreateUserTokenRequest {
        request_id: dctl::client::request_id(),
        note: "a command of the second level".into(),
        ..CreateUserTokenRequest::default()
    };
    let client = cluster.client()?;
    match call!(client.fleet, ClusterClient.create_user_token(request)).await {
        Ok(_) => Ok(Ok(())),
        Err(dctl::error::Error::Refused { message, .. }) => Ok(Err(message)),
        Err(other) => Err(other.into()),
    }
}

#[tokio::test]
async fn a_rolling_upgrade_begins_the_new_when_all_can_read_it() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    LocalSet::new().run_until(upgrade()).await
}

async fn upgrade() -> Result<()> {
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    for number in 1..=3 {
        cluster.terminate(number).await?;
        cluster.run_with(number, OLDER)?;
        cluster.wait_for_voter(number).await?;
    }
    let refused = async |cluster: &Cluster| -> Result<bool> {
        Ok(ask_for_the_new(cluster).await?.is_err_and(|told| told.contains("feature level 1")))
    };
    wait::until_true("all have announced that they are old", SETTLE, async || refused(&cluster).await)
        .await?;
    let writers = Writers::start(&cluster)?;
    for number in 1..=3 {
        ensure!(refused(&cluster).await?, "before director-{number} is upgraded");
        writers.go_on().await?;
        cluster.terminate(number).await?;
        ensure!(refused(&cluster).await?, "while director-{number} is away");
        cluster.run(number)?;
        cluster.wait_for_voter(number).await?;
    }
    wait::until_true("the new is there once all know it", SETTLE, async || {
        Ok(ask_for_the_new(&cluster).await?.is_ok())
    })
    .await?;
    writers.go_on().await?;
    writers.end(&cluster).await?;
    // And it is the same on all of them.
    for number in 1..=3 {
        let tokens = cluster
            .dctl()
            .env("DCTL_ENDPOINTS", cluster.api(number))
            .args(["user", "tokens"])
            .output()
            .await?;
        let told = String::from_utf8_lossy(&tokens.stdout).into_owned();
        ensure!(told.contains("a command of the second level"), "director-{number}: {told}");
    }
    cluster.finish().await
}
