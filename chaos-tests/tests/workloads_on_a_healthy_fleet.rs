//! Every kind of client at work on a fleet to which nothing happens: each one sees something, and all judges are content.

use anyhow::{Result, ensure};
use chaos_tests::checks;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Net, upload_hello};
use chaos_tests::workloads::{Mix, Workloads};
use cpi_sim::Knobs;

#[tokio::test]
async fn every_kind_of_client_is_served_as_promised() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let cluster = Cluster::start(3, CloudKind::Sim { seed: 1, knobs: Knobs::default() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let workloads = Workloads::start(&cluster, 1, Mix { deployments: 2, ..Mix::default() })?;
    wait::until_true("every client has got something done", SETTLE, async || {
        let so_far = workloads.progress();
        Ok(so_far.register_events > 400 && so_far.writes > 50 && so_far.outputs > 4 && so_far.blobs > 2)
    })
    .await?;
    let observed = workloads.stop().await?;
    let verdict = checks::all(&cluster, &observed).await?;
    println!("{verdict}");
    verdict.hold()?;
    for (checker, noun) in [
        ("linearizable", "answered operations"),
        ("watch", "changes received"),
        ("output", "bytes"),
        ("blobs", "readings"),
        ("locks", "events"),
        ("deaths", "acknowledged heartbeats"),
        ("deeds", "things made"),
        ("leadership", "deeds"),
    ] {
        ensure!(verdict.looked_at(checker, noun) > 0, "`{checker}` saw no {noun}");
    }
    // Nothing happened to this fleet: nobody has a reason to be left without an answer.
    ensure!(verdict.looked_at("linearizable", "unknown outcomes") == 0, "{verdict}");
    cluster.finish().await
}
