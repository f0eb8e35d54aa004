//! How long nobody can write: when the leader dies, and when it hands over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chaos_tests::client::Client;
use chaos_tests::cluster::Cluster;
use dctl::call;
use proto::v1::TransferLeaderRequest;
use proto::v1::cluster_client::ClusterClient;

use crate::table::Table;
use crate::{Options, fleet};

/// Kills the leader again and again; asks it to hand over as often, and to stop.
pub async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let mut cluster = fleet().await?;
    let mut times = Vec::new();
    for run in 0..options.runs {
        times.push(kill_once(&mut cluster, run).await?);
    }
    table.times("kill of the leader -> next accepted write", times);
    let client = cluster.client()?;
    let mut pauses = Vec::new();
    for run in 0..options.runs {
        let transfer = async {
            call!(client.fleet, ClusterClient.transfer_leader(TransferLeaderRequest::default())).await?;
            Ok(())
        };
        pauses.push(longest_pause(&client, &format!("hand-over {run}"), transfer).await?);
    }
    table.times("planned hand-over: longest pause between writes", pauses);
    let mut pauses = Vec::new();
    for run in 0..options.runs {
        let leader = cluster.leader().await?;
        let client = cluster.client()?;
        let stop = cluster.terminate(leader);
        pauses.push(longest_pause(&client, &format!("stop {run}"), stop).await?);
        cluster.run(leader)?;
        cluster.wait_for_voter(leader).await?;
    }
    table.times("SIGTERM of the leader: longest pause between writes", pauses);
    cluster.finish().await
}

async fn kill_once(cluster: &mut Cluster, run: usize) -> Result<Duration> {
    let leader = cluster.leader().await?;
    let client = cluster.client()?;
    // The connections are there before: what is measured is the fleet, not a handshake.
    client.put_config("failover", &format!("text: before {run}")).await?;
    cluster.kill(leader)?;
    let dead = Instant::now();
    client.put_config("failover", &format!("text: after {run}")).await?;
    let time = dead.elapsed();
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;
    Ok(time)
}

/// Writes without a break while the leader changes, and for a while after; returns how long the longest write took. Each
/// must be accepted.
async fn longest_pause(
    client: &Client,
    name: &str,
    change: impl Future<Output = Result<()>>,
) -> Result<Duration> {
    /// Writes go on for so long afterwards.
    const AFTER: Duration = Duration::from_millis(300);
    let change = async {
        change.await?;
        tokio::time::sleep(AFTER).await;
        Ok(())
    };
    let mut change = std::pin::pin!(change);
    let mut longest = Duration::ZERO;
    for number in 0.. {
        let content = format!("text: {name}-{number}");
        let asked = Instant::now();
        let mut write = std::pin::pin!(client.put_config("planned", &content));
        let changed: Option<Result<()>> = tokio::select! {
            written = &mut write => {
                written?;
                None
            }
            changed = &mut change => {
                write.await?;
                Some(changed)
            }
        };
        longest = longest.max(asked.elapsed());
        if let Some(changed) = changed {
            return changed.map(|()| longest);
        }
    }
    None.context("nobody counts to the end of all numbers")
}
