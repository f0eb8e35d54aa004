//! Two people deploy the same thing at the same time.

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster, SETTLE};
use chaos_tests::deploying::{DEPLOY_LIMIT, Deploying};
use chaos_tests::needs::{self, Need};
use chaos_tests::wait;
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::{Knobs, Span};

#[tokio::test]
async fn the_second_deploy_waits_and_says_for_whom() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let action = Span { min_ms: 150, max_ms: 250 };
    let knobs = Knobs { action, ..Knobs::default() };
    let cluster = Cluster::start(3, CloudKind::Sim { seed: 1, knobs }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let client = cluster.client()?;
    let hello = Hello { instances: 2, ..Hello::default() };

    let first = client.deploy(&hello.manifest(), "the first").await?;
    wait::until_true("the first one is at work", SETTLE, async || {
        Ok(client.task(first).await?.state == "processing")
    })
    .await?;
    let second = Hello { greeting: "Moin".into(), ..hello };
    let file = second.file(&cluster)?;
    // Whoever only wants to know what a deploy would do waits for nobody.
    let plan = cluster.operate(&["-d", "hello", "plan", &file]).await?;
    assert!(!plan.trim().is_empty());
    let planned = client.tasks().await?.into_iter().find(|task| task.id > first).expect("the dry run");
    assert_eq!((planned.state.as_str(), planned.waits_for.len()), ("done", 0), "{planned:?}");
    let deploying = Deploying::start(&cluster, "hello", &file)?;
    let queued = wait::until("the second one is filed", SETTLE, async || {
        Ok(client.tasks().await?.into_iter().find(|task| task.id > planned.id))
    })
    .await?;
    assert_eq!((queued.state.as_str(), queued.waits_for.as_slice()), ("queued", [first].as_slice()));
    let lock =
        client.locks().await?.into_iter().find(|lock| lock.holder == first).expect("the first one's lock");
    assert_eq!(lock.waiters, [queued.id], "{lock:?}");

    let deployed = deploying.end().await?;
    deployed.check_complete(&cluster).await?;
    let told = format!("Waiting for task {first}");
    assert!(deployed.lines.iter().any(|line| line.ends_with(&told)), "{:#?}", deployed.lines);
    let (first, second) =
        (client.done(first, DEPLOY_LIMIT).await?, client.done(queued.id, DEPLOY_LIMIT).await?);
    assert!(second.started_at_unix_ms >= first.finished_at_unix_ms, "{first:?} {second:?}");
    assert!(planned.finished_at_unix_ms < first.finished_at_unix_ms, "{first:?} {planned:?}");
    cluster.finish().await
}
