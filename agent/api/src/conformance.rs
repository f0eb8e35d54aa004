//! Promises that every implementation of [`crate::Agents`] keeps.
//!
//! An implementation supplies a [`Harness`] and calls [`crate::conformance!`]; each promise becomes a test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{AgentId, Epoch, RequestId};
use serde_json::json;

use crate::{AgentError, Agents, Method, Mode, Reply, Request};

/// Longest that anything may take on a busy machine. Every wait ends with its condition, long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough that a request which hangs is surely under way, short enough to wait for its end.
const SHORT: Duration = Duration::from_secs(2);

/// How many requests an agent works on at a time, beside those that only look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// As many as have nothing to do with each other.
    Many,
    /// One: BOSH's agent has the others wait in line.
    One,
}

/// One agent with two errands: `quick` prints `done` and ends; `slow` ends when it is released.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Returns the implementation under test.
    fn agents(&self) -> Arc<dyn Agents>;

    /// Returns the agent.
    fn agent(&self) -> AgentId;

    /// Returns how many requests the agent works on at a time.
    fn workers(&self) -> Workers {
        Workers::Many
    }

    /// Returns how often an errand was begun.
    async fn begun(&self, errand: &str) -> usize;

    /// Lets every `slow` errand end.
    async fn release(&self);

    /// Breaks the agent's connection; the agent comes back by itself.
    async fn disconnect(&self);

    /// Ends the agent, and whatever it runs, and starts it again with what it remembers.
    async fn restart(&self);
}

/// Makes a test of every promise; the argument is a closure that returns a future of a [`Harness`]. With `unless:` and a reason,
/// an `Option` of a text, the tests are skipped, saying it.
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::conformance!($make, unless: None::<String>);
    };
    ($make:expr, unless: $why:expr) => {
        $crate::conformance!(@each $make, $why;
            an_agent_answers,
            a_repeated_request_is_answered_from_the_record,
            a_record_outlives_the_agent,
            attaching_to_an_unknown_request_says_so,
            an_older_epoch_is_refused,
            a_request_can_be_cancelled_once,
            a_request_survives_a_lost_connection,
            a_lost_answer_can_be_attached_to,
            requests_run_side_by_side,
            callers_of_one_request_share_it,
            an_interrupted_errand_is_not_run_again,
            a_failure_is_told_and_recorded,
            an_agent_that_nobody_knows_is_unreachable,
        );
    };
    (@each $make:expr, $why:expr; $($promise:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            if let Some(why) = $why {
                return println!("skipped: {why}");
            }
            let make = $make;
            $crate::conformance::$promise(make().await).await;
        }
    )+};
}

fn request(id: &str, method: Method) -> Request {
    Request { id: RequestId::from(id), epoch: Epoch(7), mode: Mode::Submit, timeout: PATIENCE, method }
}

fn errand(id: &str, name: &str) -> Request {
    request(id, Method::RunErrand { errand: name.into() })
}

fn done() -> Reply {
    Reply(json!({ "exit_code": 0, "stdout": "done\n", "stderr": "" }))
}

async fn call(harness: &impl Harness, request: Request) -> Result<Reply, AgentError> {
    harness.agents().call(&harness.agent(), request).await
}

async fn until_begun(harness: &impl Harness, errand: &str, times: usize) {
    let begun = async {
        while harness.begun(errand).await < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("the errand begins");
}

/// `ping` gives `pong`.
pub async fn an_agent_answers(harness: impl Harness) {
    assert_eq!(call(&harness, request("p", Method::Ping)).await, Ok(Reply(json!("pong"))));
}

/// The same id gives the same result, and the deed is done once.
pub async fn a_repeated_request_is_answered_from_the_record(harness: impl Harness) {
    for mode in [Mode::Submit, Mode::Submit, Mode::Attach] {
        assert_eq!(call(&harness, Request { mode, ..errand("once", "quick") }).await, Ok(done()));
    }
    assert_eq!(harness.begun("quick").await, 1);
}

/// Results are remembered over a restart of the agent.
pub async fn a_record_outlives_the_agent(harness: impl Harness) {
    assert_eq!(call(&harness, errand("once", "quick")).await, Ok(done()));
    harness.restart().await;
    assert_eq!(call(&harness, errand("once", "quick")).await, Ok(done()));
    assert_eq!(harness.begun("quick").await, 1);
}

/// [`Mode::Attach`] does nothing where there is nothing to attach to.
pub async fn attaching_to_an_unknown_request_says_so(harness: impl Harness) {
    let attach = Request { mode: Mode::Attach, ..errand("never", "quick") };
    let expected = AgentError::UnknownRequest { agent: harness.agent(), request: "never".into() };
    assert_eq!(call(&harness, attach).await, Err(expected));
    assert_eq!(harness.begun("quick").await, 0);
}

/// An agent that has heard from a later leader does nothing for an earlier one, also after a restart.
pub async fn an_older_epoch_is_refused(harness: impl Harness) {
    call(&harness, request("p", Method::Ping)).await.expect("the present leader is heard");
    let refused = Err(AgentError::StaleEpoch { agent: harness.agent(), current: Epoch(7) });
    let older = || Request { epoch: Epoch(6), ..errand("older", "quick") };
    assert_eq!(call(&harness, older()).await, refused);
    harness.restart().await;
    assert_eq!(call(&harness, older()).await, refused);
    assert_eq!(harness.begun("quick").await, 0);
    let cancelled = harness.agents().cancel(&harness.agent(), &"older".into(), Epoch(6)).await;
    assert_eq!(cancelled, Err(AgentError::StaleEpoch { agent: harness.agent(), current: Epoch(7) }));
}

/// Cancelling ends a request under way, an errand with what it has to tell until then; a second time there is nothing to
/// cancel.
pub async fn a_request_can_be_cancelled_once(harness: impl Harness) {
    let (agents, agent) = (harness.agents(), harness.agent());
    let cancel = async {
        until_begun(&harness, "slow", 1).await;
        agents.cancel(&agent, &"long".into(), Epoch(7)).await
    };
    let (ended, cancelled) = tokio::join!(call(&harness, errand("long", "slow")), cancel);
    assert_eq!(cancelled, Ok(true));
    assert_eq!(ended.map(|reply| reply.0["exit_code"].clone()), Ok(json!(143)));
    assert_eq!(agents.cancel(&agent, &"long".into(), Epoch(7)).await, Ok(false));
    assert_eq!(agents.cancel(&agent, &"never".into(), Epoch(7)).await, Ok(false));
}

/// A caller that waits gets the result although the connection was lost meanwhile, and the deed is done once.
pub async fn a_request_survives_a_lost_connection(harness: impl Harness) {
    let meanwhile = async {
        until_begun(&harness, "slow", 1).await;
        harness.disconnect().await;
        harness.release().await;
    };
    let (ended, ()) = tokio::join!(call(&harness, errand("long", "slow")), meanwhile);
    assert_eq!(ended, Ok(done()));
    assert_eq!(harness.begun("slow").await, 1);
}

/// A caller that gave up, or its successor, can still get the result.
pub async fn a_lost_answer_can_be_attached_to(harness: impl Harness) {
    let expected = AgentError::TimedOut { agent: harness.agent(), method: "run_errand", timeout: SHORT };
    assert_eq!(call(&harness, Request { timeout: SHORT, ..errand("long", "slow") }).await, Err(expected));
    let attach = Request { mode: Mode::Attach, epoch: Epoch(8), ..errand("long", "slow") };
    let (ended, ()) = tokio::join!(call(&harness, attach), harness.release());
    assert_eq!(ended, Ok(done()));
    assert_eq!(harness.begun("slow").await, 1);
}

/// A long request holds up neither one that only looks nor, where the agent has several workers, another that needs nothing for
/// itself. Where it has one, that is done next.
pub async fn requests_run_side_by_side(harness: impl Harness) {
    let meanwhile = async {
        until_begun(&harness, "slow", 1).await;
        let state = call(&harness, request("look", Method::GetState { full: false })).await.expect("a state");
        assert!(state.0.get("job_state").is_some(), "{state:?}");
        match harness.workers() {
            Workers::Many => {
                assert_eq!(call(&harness, errand("short", "quick")).await, Ok(done()));
                harness.release().await;
            }
            Workers::One => {
                let queued = call(&harness, errand("short", "quick"));
                let (ended, ()) = tokio::join!(queued, harness.release());
                assert_eq!(ended, Ok(done()));
            }
        }
    };
    let (ended, ()) = tokio::join!(call(&harness, errand("long", "slow")), meanwhile);
    assert_eq!(ended, Ok(done()));
}

/// Two callers of one id get the one result.
pub async fn callers_of_one_request_share_it(harness: impl Harness) {
    let meanwhile = async {
        until_begun(&harness, "slow", 1).await;
        harness.release().await;
    };
    let (one, other, ()) = tokio::join!(
        call(&harness, errand("long", "slow")),
        call(&harness, errand("long", "slow")),
        meanwhile
    );
    assert_eq!((one, other), (Ok(done()), Ok(done())));
    assert_eq!(harness.begun("slow").await, 1);
}

/// An errand that was under way when the agent ended is never run a second time under the same id.
pub async fn an_interrupted_errand_is_not_run_again(harness: impl Harness) {
    let meanwhile = async {
        until_begun(&harness, "slow", 1).await;
        harness.restart().await;
    };
    let (ended, ()) = tokio::join!(call(&harness, errand("long", "slow")), meanwhile);
    assert!(matches!(ended, Err(AgentError::Failed { method: "run_errand", .. })), "{ended:?}");
    let attach = Request { mode: Mode::Attach, ..errand("long", "slow") };
    let expected = AgentError::UnknownRequest { agent: harness.agent(), request: "long".into() };
    assert_eq!(call(&harness, attach).await, Err(expected));
    assert_eq!(harness.begun("slow").await, 1);
}

/// A failure comes with the agent's words, the same ones for a repeat.
pub async fn a_failure_is_told_and_recorded(harness: impl Harness) {
    let first = call(&harness, errand("bad", "missing")).await;
    assert!(
        matches!(&first, Err(AgentError::Failed { message, .. }) if message.contains("missing")),
        "{first:?}"
    );
    assert_eq!(call(&harness, errand("bad", "missing")).await, first);
}

/// An agent that never dialled in can't be reached, which is another thing than no answer.
pub async fn an_agent_that_nobody_knows_is_unreachable(harness: impl Harness) {
    let nobody = AgentId::from("nobody");
    let asked =
        harness.agents().call(&nobody, Request { timeout: SHORT, ..request("p", Method::Ping) }).await;
    assert_eq!(asked, Err(AgentError::Unreachable { agent: nobody }));
}
