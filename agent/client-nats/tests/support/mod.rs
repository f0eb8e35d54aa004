//! A real NATS server on loopback with certificates of its own, what BOSH's agent does on it, and a book of deeds.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

mod authority;
mod book;
pub mod go_agent;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_client_nats::{AgentBlobs, Brought, LongTexts, NatsAgents, NotBrought, Options, users};
use async_trait::async_trait;
use model::{AgentId, BlobDigest};
use owned_tasks::OwnedTasks;

pub use authority::Authority;
pub use book::Book;
pub use go_agent::GoAgent;
pub use server::{NatsServer, missing};

/// Longest that anything may take on a busy machine. Every wait ends with its condition, long before.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long an agent may be silent in these tests before it is asked whether it is there.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// One replica's end of the bus. Dropped, it is gone at once, as in a crash.
pub struct Replica {
    pub agents: NatsAgents,
    tasks: OwnedTasks,
}

/// Texts that agents left in the blobstore.
pub struct Texts;

#[async_trait]
impl LongTexts for Texts {
    async fn take(&self, agent: &AgentId, blob: &str) -> Option<String> {
        (blob == "a-long-text").then(|| format!("the whole long text of {agent}"))
    }
}

/// Blobs that agents fetch by themselves, from the blobstore of their settings, and bring there.
pub struct NoUrls;

#[async_trait]
impl AgentBlobs for NoUrls {
    fn url_to_get(&self, _agent: &AgentId, _blob: &BlobDigest) -> Option<String> {
        None
    }

    fn url_to_put(&self, _agent: &AgentId, _name: &str) -> Option<String> {
        None
    }

    async fn brought(&self, _agent: &AgentId, name: &str, _digest: &str) -> Result<Brought, NotBrought> {
        Ok(Brought { blob: BlobDigest::new(name), size_bytes: 0 })
    }
}

impl Replica {
    pub async fn start(server: &NatsServer, book: &Arc<Book>) -> Self {
        Self::with_blobs(server, book, Arc::new(NoUrls)).await
    }

    pub async fn with_blobs(server: &NatsServer, book: &Arc<Book>, blobs: Arc<dyn AgentBlobs>) -> Self {
        let tasks = OwnedTasks::new();
        let (options, book, texts) = (options(server, users::DIRECTOR), book.clone(), Arc::new(Texts));
        let agents = NatsAgents::connect(options, book, texts, blobs, &tasks).await.unwrap();
        Self { agents, tasks }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

/// How to connect as somebody, with short waits.
pub fn options(server: &NatsServer, common_name: &str) -> Options {
    let identity = server.authority.identity(common_name);
    let url = server.url();
    let mut options =
        Options::new(vec![url], server.authority.pem_file(), identity.certificate, identity.key);
    options.poll_every = Duration::from_millis(20);
    options.answer_within = ANSWER_WITHIN;
    options
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
