//! Followers hold the agents' streams; a deploy does without any one of them.

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::Deploying;
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, upload_hello};

#[tokio::test]
async fn a_deploy_ends_well_without_a_follower_and_its_streams() -> Result<()> {
    if !needs::met(&[Need::Ruby, Need::Gcc]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    upload_hello(&cluster, Net::Loopback(cluster.loopback_net())).await?;
    cluster.operate(&["-d", "hello", "deploy", &Hello::default().file(&cluster)?]).await?;

    let changed = Hello { greeting: "Moin".into(), ..Hello::default() };
    let mut deploying = Deploying::start(&cluster, "hello", &changed.file(&cluster)?)?;
    deploying.printed_text("Updating instance hello").await?;
    let (leader, follower) = (cluster.leader().await?, cluster.follower().await?);
    cluster.kill(follower)?;
    deploying.end().await?.check_complete(&cluster).await?;
    assert_eq!(cluster.leader().await?, leader, "nobody had a reason to elect");

    cluster.run(follower)?;
    cluster.wait_for_voter(follower).await?;
    let instances = cluster.client_of(follower)?.instances("hello").await?;
    assert!(instances.iter().all(|i| i.process_state == "running" && i.update_completed), "{instances:?}");
    cluster.finish().await
}
