//! URLs that agents are given: made as they are asked, so that a failover leaves nobody with those of a replica that is gone.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::Arc;

use agent_api::{AgentError, Agents as _, Method, Mode, Reply, Request};
use agent_client_nats::{AgentBlobs, Brought, Deed, NotBrought, Stage};
use async_trait::async_trait;
use model::{AgentId, BlobDigest, Epoch};
use serde_json::json;
use support::{Book, GoAgent, NatsServer, PATIENCE, Replica, missing, until};

/// The blobs of a replica: whatever was brought to `second` is there, and `first` is gone.
struct BlobsOf(&'static str);

#[async_trait]
impl AgentBlobs for BlobsOf {
    fn url_to_get(&self, _agent: &AgentId, blob: &BlobDigest) -> Option<String> {
        Some(format!("https://{}/{blob}?signature=secret", self.0))
    }

    fn url_to_put(&self, _agent: &AgentId, name: &str) -> Option<String> {
        Some(format!("https://{}/{name}?signature=secret", self.0))
    }

    async fn brought(&self, _agent: &AgentId, name: &str, digest: &str) -> Result<Brought, NotBrought> {
        Ok(Brought { blob: BlobDigest::new(format!("{name}-{digest}")), size_bytes: 1 })
    }
}

fn logs(epoch: u64) -> Request {
    let method = Method::FetchLogs { kind: "job".into(), filters: None };
    Request { id: "logs".into(), epoch: Epoch(epoch), mode: Mode::Submit, timeout: PATIENCE, method }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_the_url_of_a_lost_leader_is_asked_once_more_with_another() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    let (server, book) = (Arc::new(NatsServer::start(&["a-1"]).await), Arc::new(Book::default()));
    let agent = GoAgent::start(&server, "a-1").await;
    let first = Replica::with_blobs(&server, &book, Arc::new(BlobsOf("first"))).await;
    let deed = Deed { agent: agent.id.clone(), request: "logs".into() };
    let begun = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            ended = first.agents.call(&agent.id, logs(7)) => panic!("ended: {ended:?}"),
            () = until("the number", || matches!(book.stage(&deed), Some(Stage::Running { .. }))) => {}
        }
    });
    begun.await.unwrap();
    assert!(!format!("{:?}", book.stage(&deed)).contains("secret"));
    drop(first);
    let second = Replica::with_blobs(&server, &book, Arc::new(BlobsOf("second"))).await;
    agent.machine.release();
    let told = second.agents.call(&agent.id, logs(8)).await;
    assert_eq!(told, Ok(Reply(json!({ "sha1": "d", "blobstore_id": "logs-d", "size": 1 }))));
    assert_eq!(agent.machine.begun("fetch_logs_with_signed_url"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_the_url_of_whoever_asks_has_failed_and_tells_no_signature() {
    if let Some(why) = missing() {
        return println!("skipped: {why}");
    }
    let (server, book) = (Arc::new(NatsServer::start(&["a-1"]).await), Arc::new(Book::default()));
    let agent = GoAgent::start(&server, "a-1").await;
    let replica = Replica::with_blobs(&server, &book, Arc::new(BlobsOf("first"))).await;
    agent.machine.release();
    let told = replica.agents.call(&agent.id, logs(7)).await;
    let Err(AgentError::Failed { message, .. }) = &told else { panic!("{told:?}") };
    assert!(message.contains("https://first/logs?signature=…"), "{message}");
    let deed = Deed { agent: agent.id.clone(), request: "logs".into() };
    let written = format!("{:?}", book.stage(&deed));
    assert!(written.contains("Failed") && !written.contains("secret"), "{written}");
    assert_eq!(agent.machine.begun("fetch_logs_with_signed_url"), 1);
}
