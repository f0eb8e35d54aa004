//! What BOSH's own agent is to a director on the bus, for tests: one callback that takes one message after the other, one
//! worker with a short queue, tasks that a restart forgets (but for those of `update_settings`, of which a restart is the end), no
//! idea of our request ids or epochs.
//!
//! What it does, [`Actions`] says: a script in the tests of `agent-client-nats`, a simulated machine in `cpi-sim`.
//!
//! Deliberately *not* here: anything that is kind to a director. A message that is none is not answered, a queue that is full
//! holds up everything, what was under way at the end is lost.
//!
//! Read next: [`StandIn`], then `memory.rs`.

mod memory;
mod methods;

use std::time::Duration;

use async_nats::{Client, Subscriber};
use async_trait::async_trait;
use futures::StreamExt as _;
use model::AgentId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::memory::Memory;
use self::methods::{Turn, turn};

/// How often BOSH's agent says how it is.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);

/// How many actions wait behind the one that runs; one more blocks the callback.
const QUEUE: usize = 5;

/// What the agent does when it is asked.
#[async_trait]
pub trait Actions: Send + Sync {
    /// Returns whether it has such a method.
    fn knows(&self, method: &str) -> bool;

    /// Does it; fails with the agent's words. What can be given up ends soon after `cancel`.
    async fn perform(
        &self,
        method: &str,
        arguments: &[Value],
        cancel: &CancellationToken,
    ) -> Result<Value, String>;

    /// Returns what a heartbeat says.
    async fn heartbeat(&self) -> Value;

    /// Hears of every message, before anything is done about it.
    fn heard(&self, _method: &str) {}

    /// Notes on the disk that a task of `update_settings` is begun, so that it has ended well after a restart.
    fn note_task(&self, _task: &str) {}

    /// Returns the tasks that are noted from before the last restart.
    fn noted_tasks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns whether the answer that is ready now gets lost on its way.
    fn loses_answer(&self, _method: &str) -> bool {
        false
    }
}

/// A question, as it comes over the bus.
#[derive(Clone, Deserialize)]
struct Request {
    method: String,
    #[serde(default)]
    arguments: Vec<Value>,
    reply_to: String,
}

/// An agent that listens, and has not begun to answer.
pub struct StandIn<'a> {
    voice: Voice<'a>,
    messages: Subscriber,
}

/// What an agent speaks with.
struct Voice<'a> {
    client: Client,
    agent: AgentId,
    actions: &'a dyn Actions,
}

/// Why an agent does not listen.
#[derive(Debug, thiserror::Error)]
#[error("agent {agent} can't listen on the bus: {reason}")]
pub struct Deaf {
    agent: AgentId,
    reason: String,
}

impl<'a> StandIn<'a> {
    /// Listens on the agent's subject; from now on nothing gets past it.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn listen(client: Client, agent: AgentId, actions: &'a dyn Actions) -> Result<Self, Deaf> {
        let deaf = |reason: String| Deaf { agent: agent.clone(), reason };
        let subscribed = client.subscribe(format!("agent.{agent}")).await;
        let messages = subscribed.map_err(|error| deaf(error.to_string()))?;
        client.flush().await.map_err(|error| deaf(error.to_string()))?;
        Ok(Self { voice: Voice { client, agent, actions }, messages })
    }

    /// Answers, for as long as it is polled. Dropped, it has forgotten everything that it has not noted, as BOSH's agent has
    /// after a restart.
    pub async fn serve(self) {
        let Self { voice, mut messages } = self;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let memory = Memory::new(queue, voice.actions.noted_tasks());
        let callback = async {
            while let Some(message) = messages.next().await {
                // Malformed: not a word.
                let Ok(request) = serde_json::from_slice(&message.payload) else { continue };
                voice.take(&memory, request).await;
            }
        };
        tokio::join!(callback, memory.work(voice.actions, waiting), voice.say_how_it_is());
    }
}

impl Voice<'_> {
    /// Takes one message; the next one waits.
    async fn take(&self, memory: &Memory, request: Request) {
        let method = request.method.clone();
        self.actions.heard(&method);
        if method == "drain" && request.arguments.first().and_then(Value::as_str) == Some("shutdown") {
            self.tell("shutdown", &Value::Null).await;
        }
        let reply_to = request.reply_to.clone();
        let answer = self.answer(memory, request).await;
        let body = match answer {
            Ok(value) => json!({ "value": value }),
            Err(message) => json!({ "exception": { "message": message } }),
        };
        if !self.actions.loses_answer(&method) {
            // A client that has ended answers nobody any more.
            let _ = self.client.publish(reply_to, body.to_string().into()).await;
        }
    }

    async fn answer(&self, memory: &Memory, request: Request) -> Result<Value, String> {
        let task = || request.arguments.first().and_then(Value::as_str).unwrap_or_default();
        match request.method.as_str() {
            "get_task" => memory.task(task()),
            "cancel_task" => memory.cancel(task()),
            method if !self.actions.knows(method) => Err(format!("unknown message {method}")),
            method if turn(method) == Turn::Queued => memory.start(request).await,
            method => {
                let done = self.actions.perform(method, &request.arguments, &CancellationToken::new()).await;
                done.map_err(|error| format!("Action Failed {method}: {error}"))
            }
        }
    }

    async fn say_how_it_is(&self) {
        let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
        loop {
            ticks.tick().await;
            let heartbeat = self.actions.heartbeat().await;
            self.tell("heartbeat", &heartbeat).await;
        }
    }

    async fn tell(&self, what: &str, body: &Value) {
        let subject = format!("hm.agent.{what}.{}", self.agent);
        let _ = self.client.publish(subject, body.to_string().into()).await;
    }
}
