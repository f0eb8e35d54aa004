//! A leader that was asleep must not go on where it was: somebody else leads by then.

use std::time::{Duration, Instant};

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::Deploying;
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::{Chances, Knobs, Span};

/// Many times the lease.
const PAUSE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn who_wakes_up_after_losing_its_lease_touches_nothing() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let latency = Span { min_ms: 100, max_ms: 200 };
    let knobs =
        Knobs { calls: Chances { latency, ..Chances::default() }, action: latency, ..Knobs::default() };
    let cluster = Cluster::start(3, CloudKind::Sim { seed: 3, knobs }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let hello = Hello { instances: 6, ..Hello::default() };
    let mut deploying = Deploying::start(&cluster, "hello", &hello.file(&cluster)?)?;
    deploying.printed_text("Creating missing vms").await?;

    let asleep = cluster.leader().await?;
    cluster.pause(asleep)?;
    let begun = Instant::now();
    let awake = (1..=3).find(|n| *n != asleep).expect("three replicas");
    let others = cluster.client_of(awake)?;
    let name = format!("director-{asleep}");
    wait::until_true("another replica leads", SETTLE, async || {
        Ok(others.status().await?.members.iter().any(|m| m.role == "leader" && m.name != name))
    })
    .await?;
    wait::until_true("the pause is over", SETTLE, async || Ok(begun.elapsed() >= PAUSE)).await?;
    cluster.resume(asleep)?;

    deploying.end().await?.check_complete(&cluster).await?;
    wait::until_true("it follows", SETTLE, async || {
        Ok(cluster.client()?.status().await?.members.iter().any(|m| m.role == "follower" && m.name == name))
    })
    .await?;
    let statistics = cluster.sim().control().statistics().await?;
    assert_eq!(statistics.vms, 6, "a VM for each instance and no other: {statistics:?}");
    // Who was asleep would have asked for its VMs once more.
    assert_eq!(statistics.vms_ever - compiled(&cluster).await?, 6, "{statistics:?}");
    assert_eq!(cluster.client()?.lost().await?, Vec::new());
    cluster.finish().await
}

/// Returns how many VMs were made to compile in.
async fn compiled(cluster: &Cluster) -> Result<u64> {
    let units = cluster.client()?.steps(newest_task(cluster).await?).await?;
    let steps = units.iter().filter(|unit| unit.stage == "Compiling packages").flat_map(|unit| &unit.steps);
    Ok(steps.filter(|step| step.name == "create_vm").count() as u64)
}

async fn newest_task(cluster: &Cluster) -> Result<u64> {
    Ok(cluster.client()?.tasks().await?.iter().map(|task| task.id).max().unwrap_or_default())
}
