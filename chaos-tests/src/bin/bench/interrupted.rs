//! A deploy whose director dies when half of its VMs exist: how long until it is over, what is left behind, and whether
//! anybody has to lend a hand. The same moment in which the Ruby director was measured.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::{DEPLOY_LIMIT, Deploying};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::{Chances, Knobs, Span};

use crate::folder;
use crate::table::{Table, shown};

/// Instances of the deploy.
const INSTANCES: usize = 10;

/// How often each is done.
const RUNS: usize = 5;

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    /// The leader, who stays dead until the deploy is over.
    Leader,
    /// All replicas, which are started again at once.
    All,
}

/// A cloud that takes its time, so that half of the VMs exist for a while.
fn knobs() -> Knobs {
    let span = |min_ms, max_ms| Span { min_ms, max_ms };
    Knobs {
        calls: Chances { latency: span(200, 400), ..Chances::default() },
        boot: span(300, 600),
        action: span(20, 60),
        ..Knobs::default()
    }
}

/// Deploys undisturbed, with the leader killed, and with everybody killed.
pub async fn measure(table: &mut Table) -> Result<()> {
    let mut cluster = Cluster::start_in(folder()?, 3, CloudKind::Sim { seed: 1, knobs: knobs() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    for (victim, what) in [
        (Victim::Nobody, "10 instances, undisturbed: deploy"),
        (Victim::Leader, "10 instances, leader killed at half of the VMs: kill -> deployed"),
        (Victim::All, "10 instances, all replicas killed at half of the VMs: kill -> deployed"),
    ] {
        let (mut times, mut leaked, mut hands) = (Vec::new(), 0, 0);
        for _ in 0..RUNS {
            let run = deploy(&mut cluster, victim).await?;
            times.push(run.time);
            leaked += run.leaked;
            hands += usize::from(!run.by_itself);
        }
        times.sort();
        let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
        let times = format!("median {}, max {} of {RUNS}", shown(median), shown(max));
        table.line(what, format!("{times}; VMs leaked {leaked}; hands needed {hands}"));
    }
    cluster.finish().await
}

struct Run {
    time: Duration,
    /// VMs that no instance has when all is over.
    leaked: usize,
    /// Whether the very `dctl deploy` that was under way has ended well, and no lock is left.
    by_itself: bool,
}

async fn deploy(cluster: &mut Cluster, victim: Victim) -> Result<Run> {
    let hello = Hello { instances: INSTANCES, max_in_flight: INSTANCES, ..Hello::default() };
    let begun = Instant::now();
    let deploying = Deploying::start(cluster, &hello.name, &hello.file(cluster)?)?;
    let (died, dead) = match victim {
        Victim::Nobody => (begun, Vec::new()),
        Victim::Leader | Victim::All => half_exists(cluster, victim).await?,
    };
    let (time, by_itself) = match deploying.end().await {
        Ok(deployed) => (died.elapsed(), deployed.exit == Some(0)),
        Err(_) => (died.elapsed(), false),
    };
    for number in dead {
        cluster.run(number)?;
        cluster.wait_for_voter(number).await?;
    }
    let client = cluster.client()?;
    let by_itself = by_itself && client.locks().await?.is_empty();
    let instances = client.instances(&hello.name).await?;
    let claimed: BTreeSet<&str> = instances.iter().map(|instance| instance.vm_cid.as_str()).collect();
    let record = cluster.sim().control().record().await?;
    let leaked = record.vms.keys().filter(|cid| !claimed.contains(cid.as_str())).count();
    // The next run begins with nothing.
    cluster.operate(&["-d", &hello.name, "delete-deployment"]).await?;
    let left = cluster.sim().control().statistics().await?.vms as usize;
    ensure!(left == leaked, "{left} VMs are left after the deployment was deleted, {leaked} of them leaked");
    Ok(Run { time, leaked, by_itself })
}

/// Waits until half of the VMs exist and kills; returns when, and who is to be started again later.
async fn half_exists(cluster: &mut Cluster, victim: Victim) -> Result<(Instant, Vec<usize>)> {
    let leader = cluster.leader().await?;
    let control = cluster.sim().control();
    wait::until_true("half of the VMs exist", DEPLOY_LIMIT, async || {
        Ok(control.statistics().await?.vms as usize >= INSTANCES / 2)
    })
    .await?;
    let died = Instant::now();
    let victims = if victim == Victim::All { cluster.started() } else { vec![leader] };
    for number in &victims {
        cluster.kill(*number)?;
    }
    if victim == Victim::All {
        for number in &victims {
            cluster.run(*number)?;
        }
        return Ok((died, Vec::new()));
    }
    Ok((died, victims))
}
