//! Questions and answers: one connection, one inbox, and a table of who waits for what.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::answer::{self, Answer};
use crate::options::{ConnectError, Options};
use crate::subjects::{self, Inbox};

/// The protocol between director and agent that we speak: BOSH's third.
const PROTOCOL: u32 = 3;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// An answer.
    Answer(Answer),
    /// It was certainly not delivered: there is no connection, nobody listens, or it is longer than servers take.
    NotSent(Hindrance),
    /// There was no answer in time.
    Silence,
}

/// Why a question was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// This may pass.
    NobodyListens,
    /// This does not.
    TooLong,
}

/// A connection to the bus.
pub(crate) struct Bus {
    client: Client,
    inbox: Inbox,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting(Mutex<HashMap<Uuid, Waiter>>);

struct Waiter {
    agent: AgentId,
    heard: oneshot::Sender<Heard>,
}

enum Heard {
    Payload(Bytes),
    NobodyListens,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Waiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a message to whoever waits for it: the first one under that number, from the agent that was asked. Nothing is read
    /// of it here, where everybody's answers come by.
    fn hand_over(&self, inbox: Inbox, message: Message) {
        let Some((agent, request)) = inbox.read(&message.subject) else { return };
        let mut waiting = self.lock();
        match waiting.get(&request) {
            Some(waiter) if waiter.agent == agent => {}
            Some(_) => return warn!(agent = %agent, "an agent answers what was asked of another"),
            None => return debug!(agent = %agent, "an answer that nobody waits for"),
        }
        let Some(waiter) = waiting.remove(&request) else { return };
        let heard = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Heard::NobodyListens,
            _ => Heard::Payload(message.payload),
        };
        // Whoever does not wait any more has been told that.
        let _ = waiter.heard.send(heard);
    }
}

/// A place in the table, for as long as somebody waits.
struct Place<'a> {
    waiting: &'a Waiting,
    request: Uuid,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.request);
    }
}

impl Bus {
    pub(crate) async fn connect(options: &Options, tasks: &OwnedTasks) -> Result<Self, ConnectError> {
        let (client, inbox) = (options.connect("requests").await?, Inbox::new());
        let waiting = Arc::new(Waiting::default());
        let subscriber = subscribe(&client, inbox.all()).await?;
        let table = waiting.clone();
        tasks.spawn("answers of agents on NATS", OnExit::StopNode, |stop| async move {
            let mut subscriber = pin!(subscriber.take_until(stop.cancelled_owned()));
            while let Some(message) = subscriber.next().await {
                table.hand_over(inbox, message);
            }
        });
        Ok(Self { client, inbox, waiting })
    }

    /// Asks an agent once, and waits for its answer until a time.
    pub(crate) async fn ask(
        &self,
        agent: &AgentId,
        method: &str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Asked {
        let Some(mut question) = self.send(agent, method, arguments).await else {
            return Asked::NotSent(Hindrance::NobodyListens);
        };
        question.answer(deadline).await.unwrap_or(Asked::Silence)
    }

    /// Sends a question. `None` where there is no connection: what is sent then waits in the client, and may come to the agent
    /// after whoever asked has given up.
    pub(crate) async fn send<'a>(
        &'a self,
        agent: &AgentId,
        method: &str,
        arguments: &[Value],
    ) -> Option<Question<'a>> {
        if self.client.connection_state() != State::Connected || !subjects::is_word(agent.as_str()) {
            return None;
        }
        let request = Uuid::new_v4();
        let reply_to = self.inbox.of_request(agent, request);
        let envelope =
            json!({ "protocol": PROTOCOL, "method": method, "arguments": arguments, "reply_to": reply_to });
        let payload: Bytes = envelope.to_string().into();
        let (heard, hearing) = oneshot::channel();
        self.waiting.lock().insert(request, Waiter { agent: agent.clone(), heard });
        let place = Place { waiting: &self.waiting, request };
        if payload.len() > self.client.max_payload().min(answer::ANSWER_BYTES_MAX) {
            return Some(Question { _place: place, hearing: None });
        }
        // Agents look at `reply_to` alone. The other one is for the server, which tells there that nobody listens.
        let sent = self.client.publish_with_reply(subjects::of_agent(agent), reply_to, payload).await;
        match sent {
            Ok(()) => Some(Question { _place: place, hearing: Some(hearing) }),
            Err(error) => {
                debug!(agent = %agent, error = %error, "a request was not sent");
                None
            }
        }
    }
}

/// A question under way.
pub(crate) struct Question<'a> {
    _place: Place<'a>,
    /// `None` for one that was too long to be sent.
    hearing: Option<oneshot::Receiver<Heard>>,
}

impl Question<'_> {
    /// Waits for the answer until a time; `None` when there is none yet.
    pub(crate) async fn answer(&mut self, deadline: Instant) -> Option<Asked> {
        let Some(hearing) = self.hearing.as_mut() else { return Some(Asked::NotSent(Hindrance::TooLong)) };
        match tokio::time::timeout_at(deadline, hearing).await {
            Ok(Ok(Heard::Payload(payload))) => Some(Asked::Answer(answer::read(&payload))),
            Ok(Ok(Heard::NobodyListens)) => Some(Asked::NotSent(Hindrance::NobodyListens)),
            // The table is gone with the bus: nobody will answer.
            Ok(Err(_)) => Some(Asked::Silence),
            Err(_) => None,
        }
    }
}

/// Subscribes, over every reconnect.
pub(crate) async fn subscribe(client: &Client, subject: String) -> Result<Subscriber, ConnectError> {
    client.subscribe(subject.clone()).await.map_err(|source| ConnectError::Subscribe {
        subject,
        source: std::io::Error::other(source.to_string()),
    })
}

/// Pause before an agent is asked again that was not there.
const AGAIN: retry::Policy =
    retry::Policy { initial: Duration::from_millis(100), max: Duration::from_secs(2), total: None };

/// Least time for a question. A server needs some to tell that nobody listens, and without its word nobody can know.
const QUESTION_MIN: Duration = Duration::from_millis(250);

/// The pauses between questions, until a time.
pub(crate) struct Pauses {
    waits: retry::Waits,
    deadline: Instant,
}

impl Pauses {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { waits: AGAIN.waits(), deadline }
    }

    /// Begins anew with the shortest: the agent is there.
    pub(crate) fn reset(&mut self) {
        self.waits.reset();
    }

    /// Waits for the next question; returns whether there is time for one.
    pub(crate) async fn next(&mut self) -> bool {
        // The policy has no end.
        let pause = self.waits.next().unwrap_or(AGAIN.max);
        self.after(pause).await
    }

    /// Waits for as long as the caller says; returns whether there is time for another question.
    pub(crate) async fn after(&mut self, pause: Duration) -> bool {
        let next = Instant::now() + pause;
        let is_time = next + QUESTION_MIN < self.deadline;
        tokio::time::sleep_until(if is_time { next } else { self.deadline }).await;
        is_time
    }
}
