//! A restart in the middle of work: the leader is asked to stop, or killed, and comes back at once.

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::Deploying;
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, upload_hello};

#[tokio::test]
async fn a_deploy_goes_on_though_its_leader_is_restarted() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    let hello = Hello { drain_seconds: 1, ..Hello::default() };
    cluster.operate(&["-d", "hello", "deploy", &hello.file(&cluster)?]).await?;

    // Whoever leads is restarted while instances are drained: twice it is asked to stop, then it is killed.
    for (greeting, is_killed) in [("Moin", false), ("Servus", false), ("Ahoi", true)] {
        let hello = Hello { greeting: greeting.into(), ..hello.clone() };
        let mut deploying = Deploying::start(&cluster, "hello", &hello.file(&cluster)?)?;
        deploying.printed_text("Updating instance hello").await?;
        let leader = cluster.leader().await?;
        if is_killed {
            // Back before anybody has missed it: it may lead again, and find its own work half done.
            cluster.kill(leader)?;
        } else {
            cluster.terminate(leader).await?;
        }
        cluster.run(leader)?;
        deploying.end().await?.check_complete(&cluster).await?;
        cluster.wait_for_voter(leader).await?;
    }
    let mut deploys = cluster.client()?.tasks().await?;
    deploys.retain(|task| task.deployment == "hello");
    assert!(deploys.len() == 4 && deploys.iter().all(|task| task.state == "done"), "{deploys:#?}");
    let instances = cluster.client()?.instances("hello").await?;
    assert!(instances.len() == 2 && instances.iter().all(|i| i.process_state == "running"), "{instances:?}");
    cluster.finish().await
}
