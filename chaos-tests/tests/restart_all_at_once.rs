//! The power goes out, and comes back.

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::needs::{self, Need};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_all_replicas_died_at_once() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let client = cluster.client()?;
    let fleet = client.status().await?.cluster_id;
    for round in 0..2 {
        for n in 0..20 {
            client.put_config(&format!("note-{round}-{n}"), &format!("text: {n}")).await?;
        }
        // No goodbye: what is not on disk now, is lost.
        (1..=3).try_for_each(|number| cluster.kill(number))?;
        (1..=3).try_for_each(|number| cluster.run(number))?;
        for number in 1..=3 {
            cluster.wait_for_voter(number).await?;
            let replica = cluster.client_of(number)?;
            for n in 0..20 {
                let content = replica.config("note", &format!("note-{round}-{n}")).await?;
                assert_eq!(content, format!("text: {n}"), "director-{number}, round {round}");
            }
        }
    }
    assert_eq!(client.status().await?.cluster_id, fleet);
    client.put_config("after", "text: all is well").await?;
    cluster.finish().await
}
