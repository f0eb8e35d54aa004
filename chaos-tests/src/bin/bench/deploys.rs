//! Deploys of many simulated instances, and what a replica weighs afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chaos_tests::cluster::Cluster;
use chaos_tests::workload::{Hello, Net, upload_hello};

use crate::table::Table;
use crate::{Options, fleet};

/// The bound on one deploy.
const LIMIT: Duration = Duration::from_secs(1800);

/// Instances that are updated at once.
const IN_FLIGHT: usize = 50;

/// Measures a fresh deploy, one that doubles it, and one that changes nothing.
pub async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let cluster = fleet().await?;
    upload_hello(&cluster, Net::Simulated).await?;
    memory(&cluster, table, "before").await?;
    let half = options.instances;
    let hello = |instances| Hello { instances, max_in_flight: IN_FLIGHT, ..Hello::default() };
    table.time(format!("fresh deploy of {half} simulated instances"), deploy(&cluster, &hello(half)).await?);
    memory(&cluster, table, &format!("with {half} instances")).await?;
    let whole = 2 * half;
    table.time(format!("{half} more of them"), deploy(&cluster, &hello(whole)).await?);
    table.time(format!("deploy of {whole} that changes nothing"), deploy(&cluster, &hello(whole)).await?);
    memory(&cluster, table, &format!("with {whole} instances")).await?;
    cluster.finish().await
}

async fn deploy(cluster: &Cluster, hello: &Hello) -> Result<Duration> {
    let client = cluster.client()?;
    let begun = Instant::now();
    let task = client.deploy(&hello.manifest(), &dctl::client::request_id()).await?;
    client.done(task, LIMIT).await?;
    let time = begun.elapsed();
    let vms = cluster.sim().control().statistics().await?.vms as usize;
    ensure!(vms == hello.instances, "{vms} VMs for {} instances", hello.instances);
    Ok(time)
}

async fn memory(cluster: &Cluster, table: &mut Table, when: &str) -> Result<()> {
    let members = cluster.client()?.status().await?.members;
    let sizes: Vec<String> =
        members.iter().map(|m| format!("{} {} MiB", m.role, m.rss_bytes.unwrap_or_default() >> 20)).collect();
    table.line(format!("resident memory of the replicas, {when}"), sizes.join(", "));
    Ok(())
}
