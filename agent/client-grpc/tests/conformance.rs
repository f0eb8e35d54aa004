//! Real agents over real streams keep the promises of the seam; every request is relayed by a replica that does not hold
//! the agent's stream, at least until the agent has moved.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_api::Agents;
use agent_api::conformance::Harness;
use async_trait::async_trait;
use model::AgentId;
use support::{Fleet, TestAgent};

struct GrpcHarness {
    fleet: Fleet,
    agent: TestAgent,
    home: AtomicUsize,
}

async fn harness() -> GrpcHarness {
    let fleet = Fleet::start(2);
    fleet.rehome(0).await;
    let agent = TestAgent::start(&fleet, "a-1");
    let marks = agent.dir.path().display().to_string();
    agent.install_errand("quick", &format!("echo x >> {marks}/quick; echo done"));
    let slow =
        format!("echo x >> {marks}/slow; until [ -e {marks}/released ]; do sleep 0.02; done; echo done");
    agent.install_errand("slow", &slow);
    fleet.until_at(&agent.id, 0).await;
    GrpcHarness { fleet, agent, home: AtomicUsize::new(0) }
}

#[async_trait]
impl Harness for GrpcHarness {
    fn agents(&self) -> Arc<dyn Agents> {
        Arc::new(self.fleet.replicas[1].agents.clone())
    }

    fn agent(&self) -> AgentId {
        self.agent.id.clone()
    }

    async fn begun(&self, errand: &str) -> usize {
        std::fs::read_to_string(self.agent.dir.path().join(errand)).unwrap_or_default().lines().count()
    }

    async fn release(&self) {
        std::fs::write(self.agent.dir.path().join("released"), "").unwrap();
    }

    async fn disconnect(&self) {
        let home = 1 - self.home.fetch_xor(1, Ordering::Relaxed);
        self.fleet.rehome(home).await;
        self.fleet.until_at(&self.agent.id, home).await;
    }

    async fn restart(&self) {
        self.agent.restart().await;
    }
}

agent_api::conformance!(harness);
