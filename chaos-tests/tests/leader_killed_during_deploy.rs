//! The promise of the house: a deploy outlives its leader, whenever that one dies.

use anyhow::{Result, ensure};
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::Deploying;
use chaos_tests::needs::{self, Need};
use chaos_tests::sim::takes_its_time;
use chaos_tests::workload::{Hello, Net, upload_hello};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// How many moments of a deploy are tried.
const MOMENTS: usize = 8;

/// Instances of each deploy.
const INSTANCES: usize = 3;

/// Set, another seed is used than the usual one.
const SEED: &str = "CHAOS_SEED";

#[tokio::test]
async fn the_same_dctl_ends_well_whenever_the_leader_dies() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let seed = std::env::var(SEED).map_or(Ok(2), |text| text.parse())?;
    println!("repeat with {SEED}={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed, knobs: takes_its_time(30) }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    // The first one, undisturbed, tells how many lines there are to choose from.
    let hello = |name: String| Hello { name, instances: INSTANCES, ..Hello::default() };
    let length = deploy_and_kill(&mut cluster, &hello("hello-0".into()), None).await?;
    for moment in 1..=MOMENTS {
        // One in each eighth of the deploy, somewhere in it.
        let (from, to) = ((moment - 1) * length / MOMENTS, moment * length / MOMENTS);
        let after = chance.random_range(from..to.max(from + 1));
        println!("moment {moment}: after {after} of about {length} lines");
        deploy_and_kill(&mut cluster, &hello(format!("hello-{moment}")), Some(after)).await?;
        let vms = cluster.sim().control().statistics().await?.vms as usize;
        assert_eq!(vms, (moment + 1) * INSTANCES, "a VM for each instance and no other");
    }
    assert_eq!(cluster.client()?.lost().await?, Vec::new());
    cluster.finish().await
}

/// Deploys; kills the leader after so many lines and starts it again afterwards. Returns how many lines there were.
async fn deploy_and_kill(cluster: &mut Cluster, hello: &Hello, kill_after: Option<usize>) -> Result<usize> {
    let mut deploying = Deploying::start(cluster, &hello.name, &hello.file(cluster)?)?;
    let killed = match kill_after {
        Some(lines) => {
            let leader = cluster.leader().await?;
            deploying.printed(lines).await?;
            cluster.kill(leader)?;
            Some(leader)
        }
        None => None,
    };
    let dead = std::time::Instant::now();
    let deployed = deploying.end().await?;
    println!("went on for {:.1} s", dead.elapsed().as_secs_f64());
    deployed.check_complete(cluster).await?;
    let client = cluster.client()?;
    let instances = client.instances(&hello.name).await?;
    ensure!(instances.len() == hello.instances, "{instances:?}");
    for instance in instances {
        ensure!(instance.process_state == "running" && instance.update_completed, "{instance:?}");
    }
    ensure!(client.locks().await?.is_empty(), "a lock is left: {:?}", client.locks().await?);
    if let Some(killed) = killed {
        cluster.run(killed)?;
        cluster.wait_for_voter(killed).await?;
    }
    Ok(deployed.event_count())
}
