//! What a fleet has before anything happens to it: replicas that vote, a release, a stemcell, a cloud config.

use std::sync::Arc;
use std::time::Duration;

use model::task::TaskKind;
use model::{BlobDigest, Epoch, LockName, NodeId, RequestId, TaskId};
use state::State;
use state::command::{Command, Outcome, TaskEnd};
use state::query::TaskFilter;
use state::records::{FleetSecrets, Member, Sealed};

use super::{Answer, Client, documents};
use crate::parts::MemoryBlobs;
use crate::services::Services;

const LIMIT: Duration = Duration::from_secs(60);

/// Sets a fleet up, whose first replica runs and whose others are empty. Fails only if the fleet is broken.
pub async fn prepare(client: Client, blobs: Arc<MemoryBlobs>) -> Result<(), String> {
    let replicas = client.replicas;
    // The others know no leader yet.
    let client = Client { replicas: 1, ..client };
    bootstrap(&client).await?;
    let secrets = FleetSecrets { authority_pem: String::new(), authority_key: Sealed(Vec::new()) };
    let (cluster_id, director_name) = ("c".to_owned(), "directorate".to_owned());
    must(
        &client,
        "init",
        Command::ClusterInit { cluster_id, director_name, director_uuid: "u".into(), secrets },
    )
    .await?;
    for replica in 1..=replicas {
        if replica > 1 {
            add(&client, replica).await?;
        }
        must(&client, &format!("member-{replica}"), Command::MemberPut { member: member(replica) }).await?;
    }
    let (kind, name, content) = ("cloud".to_owned(), "default".to_owned(), documents::cloud_config());
    must(&client, "cloud", Command::ConfigPut { kind, name, content, expected_latest: None }).await?;
    artifacts(&client, &blobs).await
}

fn member(replica: u64) -> Member {
    let address = format!("replica-{replica}");
    Member {
        node: NodeId(replica),
        name: address.clone(),
        api_address: address.clone(),
        peer_address: address.clone(),
        agent_address: address,
        version: "0".into(),
        feature_level: state::command::FEATURE_LEVEL,
    }
}

async fn bootstrap(client: &Client) -> Result<(), String> {
    loop {
        let asked = client.net.call(client.me(), 1, |services| {
            let Services::Replica(replica) = services else { return None };
            Some(async move { replica.node.bootstrap("replica-1").await })
        });
        match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) => return Err(format!("bootstrap: {error}")),
            _ => client.pause(10, 20).await,
        }
    }
}

async fn add(client: &Client, replica: u64) -> Result<(), String> {
    for _ in 0..50 {
        let asked = client.net.call(client.me(), 1, move |services| {
            let Services::Replica(first) = services else { return None };
            Some(async move { first.node.add_member(replica, &format!("replica-{replica}"), LIMIT).await })
        });
        if let Ok(Ok(Ok(()))) = tokio::time::timeout(LIMIT, asked).await {
            return Ok(());
        }
        client.pause(50, 100).await;
    }
    Err(format!("replica {replica} was not added"))
}

async fn must(client: &Client, id: &str, command: Command) -> Result<Outcome, String> {
    match client.ask(&RequestId::new(format!("setup-{id}")), &command, LIMIT).await {
        Answer::Known(Ok(outcome)) => Ok(outcome),
        other => Err(format!("setup: {id}: {other:?}")),
    }
}

/// Files the release and the stemcell as their uploads do: in a task, under the leader's epoch. Executors begin only when
/// they find them ([`is_prepared`]), so that nobody else takes the task up.
async fn artifacts(client: &Client, blobs: &MemoryBlobs) -> Result<(), String> {
    let (job, package) = (blobs.keep(documents::job_archive()), blobs.keep(b"package".to_vec()));
    let epoch = epoch(client).await?;
    must(client, "begin", Command::LeaderBegin { node: NodeId(1), epoch }).await?;
    let task = queue(client).await?;
    must(client, "take", Command::TaskTake { task, epoch }).await?;
    let release = Box::new(documents::release(&job, &package));
    let compiled = Vec::new();
    must(
        client,
        "release",
        Command::ReleasePut { task, epoch, release, compiled, fix: false, partial: false },
    )
    .await?;
    must(client, "stemcell", Command::StemcellPut { task, epoch, stemcell: documents::stemcell() }).await?;
    must(client, "finish", Command::TaskFinish { task, epoch, end: TaskEnd::Done(None) }).await?;
    Ok(())
}

/// Returns whether a fleet has what it is set up with.
pub fn is_prepared(state: &State<'_>) -> bool {
    let filed = !state.stemcells().is_empty();
    filed && state.open_tasks() == 0 || state.tasks(&TaskFilter::default()).len() > 1
}

async fn queue(client: &Client) -> Result<TaskId, String> {
    let kind = TaskKind::UploadRelease { blob: BlobDigest::new("0".repeat(64)), rebase: false, fix: false };
    let locks = vec![LockName::new("lock:releases")];
    let command = Command::TaskQueue { kind, deployment: None, context_id: String::new(), locks };
    match must(client, "queue", command).await? {
        Outcome::TaskQueued(task) => Ok(task),
        other => Err(format!("a task was queued as {other:?}")),
    }
}

async fn epoch(client: &Client) -> Result<Epoch, String> {
    for _ in 0..100 {
        let asked = client.net.call(client.me(), 1, |services| {
            let Services::Replica(replica) = services else { return None };
            Some(async move { replica.node.leadership().map(|leads| Epoch(leads.term)) })
        });
        if let Ok(Ok(Some(epoch))) = tokio::time::timeout(Duration::from_secs(1), asked).await {
            return Ok(epoch);
        }
        client.pause(10, 50).await;
    }
    Err("replica 1 does not lead".into())
}
