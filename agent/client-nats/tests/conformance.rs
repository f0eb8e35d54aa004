//! Over NATS, and with an agent that remembers nothing, the promises of the seam are kept.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::Arc;

use agent_api::Agents;
use agent_api::conformance::{Harness, Workers};
use async_trait::async_trait;
use model::AgentId;
use support::{Book, GoAgent, NatsServer, Replica, missing, until};

struct NatsHarness {
    server: Arc<NatsServer>,
    book: Arc<Book>,
    replica: Replica,
    agent: GoAgent,
}

async fn harness() -> NatsHarness {
    let server = Arc::new(NatsServer::start(&["a-1"]).await);
    let agent = GoAgent::start(&server, "a-1").await;
    let book = Arc::new(Book::default());
    let replica = Replica::start(&server, &book).await;
    NatsHarness { server, book, replica, agent }
}

#[async_trait]
impl Harness for NatsHarness {
    fn agents(&self) -> Arc<dyn Agents> {
        Arc::new(self.replica.agents.clone())
    }

    fn agent(&self) -> AgentId {
        self.agent.id.clone()
    }

    fn workers(&self) -> Workers {
        Workers::One
    }

    async fn begun(&self, errand: &str) -> usize {
        self.agent.machine.begun(errand)
    }

    async fn release(&self) {
        self.agent.machine.release();
    }

    async fn disconnect(&self) {
        // An errand whose first answer is lost is no promise kept: nobody can know whether it has begun (decision 24).
        until("what was begun is written down", || self.book.all_are_running()).await;
        self.server.kill();
        self.server.revive();
    }

    async fn restart(&self) {
        self.agent.restart().await;
    }
}

agent_api::conformance!(harness, unless: missing());
