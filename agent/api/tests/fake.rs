//! The fake keeps the promises that it stands in for.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::sync::Arc;
use std::time::Duration;

use agent_api::conformance::Harness;
use agent_api::fake::{Behaviour, FakeAgents};
use agent_api::{AgentError, Agents, Method, Mode, Request};
use async_trait::async_trait;
use model::{AgentId, Epoch};
use serde_json::json;

struct FakeHarness(Arc<FakeAgents>);

fn agent() -> AgentId {
    "a-1".into()
}

/// Returns a fake whose errands do what the suite's errands do.
async fn harness() -> FakeHarness {
    let fake = FakeAgents::new();
    fake.add(&agent());
    fake.decide(
        &agent(),
        Box::new(|method| {
            let Method::RunErrand { errand } = method else { return None };
            let done = json!({ "exit_code": 0, "stdout": "done\n", "stderr": "" });
            Some(match errand.as_str() {
                "quick" => Behaviour::Give(done),
                "slow" => Behaviour::Hang { then: done },
                other => Behaviour::Fail(format!("errand `{other}` is not installed here")),
            })
        }),
    );
    FakeHarness(Arc::new(fake))
}

#[async_trait]
impl Harness for FakeHarness {
    fn agents(&self) -> Arc<dyn Agents> {
        self.0.clone()
    }

    fn agent(&self) -> AgentId {
        agent()
    }

    async fn begun(&self, errand: &str) -> usize {
        let is_it =
            |method: &Method| matches!(method, Method::RunErrand { errand: name } if name.as_str() == errand);
        self.0.deeds(&agent()).iter().filter(|deed| is_it(&deed.method)).count()
    }

    async fn release(&self) {
        self.0.release(&agent());
    }

    async fn disconnect(&self) {
        self.0.disconnect(&agent());
        self.0.connect(&agent());
    }

    async fn restart(&self) {
        self.0.restart(&agent());
    }
}

agent_api::conformance!(harness);

fn request(id: &str, method: Method) -> Request {
    let timeout = Duration::from_millis(50);
    Request { id: id.into(), epoch: Epoch(1), mode: Mode::Submit, timeout, method }
}

#[tokio::test]
async fn a_lost_answer_times_out_and_is_then_found() {
    let fake = FakeAgents::new();
    fake.add(&agent());
    fake.next(&agent(), "start", Behaviour::LoseAnswer);
    let lost = fake.call(&agent(), request("r", Method::Start)).await;
    assert!(matches!(lost, Err(AgentError::TimedOut { .. })), "{lost:?}");
    assert_eq!(fake.call(&agent(), request("r", Method::Start)).await.unwrap().0, json!("started"));
    assert_eq!(fake.deeds(&agent()).len(), 1);
}

#[tokio::test]
async fn behaviours_are_used_one_after_the_other() {
    let fake = FakeAgents::new();
    fake.add(&agent());
    fake.next(&agent(), "stop", Behaviour::Fail("no".into()));
    fake.next(&agent(), "stop", Behaviour::Give(json!("well")));
    let failed = fake.call(&agent(), request("1", Method::Stop)).await;
    assert!(matches!(failed, Err(AgentError::Failed { .. })));
    assert_eq!(fake.call(&agent(), request("2", Method::Stop)).await.unwrap().0, json!("well"));
    assert_eq!(fake.call(&agent(), request("3", Method::Stop)).await.unwrap().0, json!("stopped"));
}

#[tokio::test]
async fn an_agent_that_is_away_is_unreachable_until_it_is_back() {
    let fake = FakeAgents::new();
    fake.disconnect(&agent());
    let away = fake.call(&agent(), request("p", Method::Ping)).await;
    assert_eq!(away, Err(AgentError::Unreachable { agent: agent() }));
    fake.connect(&agent());
    assert!(fake.call(&agent(), request("p", Method::Ping)).await.is_ok());
}
