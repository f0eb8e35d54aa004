//! Every kind of client at work while the leader is killed, comes back, and the next one is killed.

use std::time::Instant;

use anyhow::{Result, ensure};
use chaos_tests::checks;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::sim::takes_its_time;
use chaos_tests::wait;
use chaos_tests::workload::{Net, upload_hello};
use chaos_tests::workloads::{Mix, Workloads};

/// How often the leader dies.
const DEATHS: usize = 2;

#[tokio::test]
async fn no_client_sees_a_broken_promise_while_leaders_die() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 2, knobs: takes_its_time(60) }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let workloads = Workloads::start(&cluster, 2, Mix { deployments: 2, ..Mix::default() })?;
    for death in 1..=DEATHS {
        // In the middle of a deploy, and of everything else.
        wait::until_true("clients are at work", SETTLE, async || {
            let so_far = workloads.progress();
            Ok(so_far.register_events > 150 * death && so_far.writes > 20 * death && so_far.tasks > death)
        })
        .await?;
        let leader = cluster.leader().await?;
        cluster.kill(leader)?;
        let killed = Instant::now();
        let is_served = async || Ok(workloads.first_write_after(killed).is_some());
        wait::until_true("a write is accepted under the next leader", SETTLE, is_served).await?;
        println!("death {death}: a write was accepted after {:?}", workloads.first_write_after(killed));
        cluster.run(leader)?;
        cluster.wait_for_voter(leader).await?;
    }
    let observed = workloads.stop().await?;
    let verdict = checks::all(&cluster, &observed).await?;
    println!("{verdict}");
    verdict.hold()?;
    ensure!(verdict.looked_at("watch", "sessions") > 4, "nobody went on elsewhere");
    ensure!(verdict.looked_at("deeds", "things made") > 0, "nothing was made");
    cluster.finish().await
}
