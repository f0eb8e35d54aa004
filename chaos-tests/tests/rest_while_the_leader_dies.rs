//! The REST door while leaders die: who sends and polls at one replica as the `bosh` CLI does sees no more of it than that
//! an answer takes longer. Nothing is done twice, no line of a task's output is missing, and none comes twice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chaos_tests::bosh::{Bosh, Request};
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::needs::{self, Need};
use chaos_tests::sim::takes_its_time;
use chaos_tests::workload::{Hello, Net, upload_hello};
use proto::v1::follow_task_request::Kind as Output;

/// Between two looks at a task; the CLI takes half a second.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// When the leader dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// While the deploy is being asked for.
    AtOnce,
    /// After so many bytes of its events.
    After(usize),
}

#[tokio::test]
async fn the_bosh_cli_at_a_replica_that_stays_ends_well_whenever_the_leader_dies() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 3, knobs: takes_its_time(40) }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    Bosh::introduce(&cluster).await?;
    for (number, death) in
        [Death::AtOnce, Death::After(1), Death::After(2000), Death::After(4000)].into_iter().enumerate()
    {
        let name = format!("hello-{number}");
        let hello = Hello { name: name.clone(), instances: 3, ..Hello::default() };
        let (leader, follower) = (cluster.leader().await?, cluster.follower().await?);
        deploy(&mut cluster, &hello, leader, follower, death).await.with_context(|| format!("{death:?}"))?;
        cluster.run(leader)?;
        cluster.wait_for_voter(leader).await?;
        let tasks = cluster.client()?.tasks().await?;
        let deploys =
            tasks.iter().filter(|task| task.deployment == name && task.description.starts_with("create"));
        ensure!(deploys.count() == 1, "{death:?}: {tasks:?}");
    }
    cluster.finish().await
}

/// Deploys through a follower while the leader is killed, and compares what was followed with what is stored.
async fn deploy(
    cluster: &mut Cluster,
    hello: &Hello,
    leader: usize,
    follower: usize,
    death: Death,
) -> Result<()> {
    let bosh = Bosh::at(cluster, follower)?;
    let request = Request::yaml("POST", "/deployments", &hello.manifest());
    if matches!(death, Death::AtOnce) {
        cluster.kill(leader)?;
    }
    // Sent again, as if the answer had been lost on its way.
    let (task, again) = (bosh.start(&request).await?, bosh.start(&request).await?);
    ensure!(task == again, "{task} and {again} for one wish");
    let (mut events, mut is_killed) = (Vec::new(), matches!(death, Death::AtOnce));
    let followed = async {
        loop {
            let look = bosh.look(task, events.len()).await?;
            events.extend(&look.events);
            if let Death::After(bytes) = death
                && !is_killed
                && events.len() >= bytes
            {
                cluster.kill(leader)?;
                is_killed = true;
            }
            if look.is_over() {
                // As the CLI: once more after the end.
                events.extend(bosh.look(task, events.len()).await?.events);
                return anyhow::Ok(look.state);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let state = tokio::time::timeout(SETTLE * 4, followed).await.context("it takes too long")??;
    ensure!(state == "done", "task {task} ended as {state}: {}", String::from_utf8_lossy(&events));
    ensure!(is_killed, "the deploy was over before the leader died: {} bytes", events.len());
    let stored = cluster.client_of(follower)?.output(task, Output::Event).await?;
    ensure!(
        stored.as_bytes() == events,
        "followed:\n{}\nstored:\n{stored}",
        String::from_utf8_lossy(&events)
    );
    Ok(())
}
