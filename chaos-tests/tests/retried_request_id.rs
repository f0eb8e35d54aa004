//! A client that does not know whether it was heard asks again: nothing happens twice.

use anyhow::Result;
use chaos_tests::cluster::{CloudKind, Cluster};
use chaos_tests::deploying::DEPLOY_LIMIT;
use chaos_tests::needs::{self, Need};
use chaos_tests::workload::{Hello, Net, upload_hello};
use cpi_sim::Knobs;
use dctl::call;
use proto::v1::PutConfigRequest;
use proto::v1::configs_client::ConfigsClient;

#[tokio::test]
async fn one_request_id_is_one_task_through_a_failover() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Sim { seed: 1, knobs: Knobs::default() }).await?;
    upload_hello(&cluster, Net::Simulated).await?;
    let (client, manifest) = (cluster.client()?, Hello::default().manifest());
    let before = client.tasks().await?.len();

    let mut answers = Vec::new();
    for number in 1..=3 {
        answers.push(cluster.client_of(number)?.deploy(&manifest, "one and the same").await?);
    }
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    answers.push(client.deploy(&manifest, "one and the same").await?);
    client.done(answers[0], DEPLOY_LIMIT).await?;
    // Also long after it is done, and on the replica that was away.
    cluster.run(leader)?;
    cluster.wait_for_voter(leader).await?;
    answers.push(cluster.client_of(leader)?.deploy(&manifest, "one and the same").await?);

    assert!(answers.iter().all(|task| *task == answers[0]), "{answers:?}");
    assert_eq!(client.tasks().await?.len(), before + 1, "one task only");
    assert_eq!(cluster.sim().control().statistics().await?.vms, 2);
    cluster.finish().await
}

#[tokio::test]
async fn many_clients_with_one_request_id_get_one_answer_while_the_leader_dies() -> Result<()> {
    if !needs::met(&[Need::Ruby]) {
        return Ok(());
    }
    let mut cluster = Cluster::start(3, CloudKind::Process).await?;
    let clients = (0..8).map(|n| cluster.client_of(n % 3 + 1)).collect::<Result<Vec<_>>>()?;
    let leader = cluster.leader().await?;
    let request = PutConfigRequest {
        request_id: "one and the same".into(),
        r#type: "note".into(),
        name: "n".into(),
        content: "text: once".into(),
        expected_latest_id: None,
    };
    // Whoever had asked the dead leader alone asks the others: that is what endpoints are for.
    let everybody = cluster.client()?;
    let calls = futures::future::join_all(clients.iter().map(|client| {
        let (request, again) = (request.clone(), request.clone());
        async {
            match tokio::time::timeout(SHORT, call!(client.fleet, ConfigsClient.put(request))).await {
                Ok(Ok(answer)) => Ok(answer),
                _ => call!(everybody.fleet, ConfigsClient.put(again)).await,
            }
        }
    }));
    let (answers, killed) = tokio::join!(calls, async { cluster.kill(leader) });
    killed?;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    cluster.finish().await
}

/// Long enough for an answer, short enough to ask somebody else.
const SHORT: std::time::Duration = std::time::Duration::from_secs(2);
