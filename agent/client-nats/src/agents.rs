//! [`agent_api::Agents`] over the bus.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{AgentError, Agents, Method, Mode, Reply, Request};
use async_trait::async_trait;
use model::{AgentId, Epoch, RequestId};
use owned_tasks::OwnedTasks;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use crate::answer::{Answer, Ending, LongTexts};
use crate::blobs::AgentBlobs;
use crate::bus::{Asked, Bus, Hindrance, Pauses};
use crate::deeds::{Deed, DeedError, Deeds, Stage};
use crate::message::{self, Message};
use crate::options::{ConnectError, Options};
use crate::submission::{Desk, Repeat, Submitted, repeat};

/// Pause before the first question how a request fares. Most are short, and an instance has a dozen of them one after the other.
const POLL_FIRST: Duration = Duration::from_millis(50);

/// How long an agent may take to give something up.
const CANCEL_WITHIN: Duration = Duration::from_secs(30);

/// How much longer than its caller's time the handing over of a request may take: what came of it has to be written down.
const WRITING: Duration = Duration::from_secs(5);

/// Every agent on the bus, as one replica reaches them.
#[derive(Clone)]
pub struct NatsAgents {
    desk: Arc<Desk>,
}

/// What became of a request that an agent was at.
enum Polled {
    Ended(Ending),
    /// The agent was restarted, and knows nothing of it.
    Lost,
    TimedOut,
}

/// When an agent was asked for what it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Now,
    Before,
}

fn is_worth_new_urls(request: &Request, asked: When) -> bool {
    asked == When::Before && request.mode == Mode::Submit && message::may_hold_urls(&request.method)
}

impl NatsAgents {
    /// Connects to the bus; the connection ends with `tasks`.
    ///
    /// # Errors
    /// If the settings can't be used. Servers that are not there are waited for.
    pub async fn connect(
        options: Options,
        deeds: Arc<dyn Deeds>,
        texts: Arc<dyn LongTexts>,
        blobs: Arc<dyn AgentBlobs>,
        tasks: &OwnedTasks,
    ) -> Result<Self, ConnectError> {
        let bus = Bus::connect(&options, tasks).await?;
        let under_way = Default::default();
        let tasks = tasks.clone();
        Ok(Self { desk: Arc::new(Desk { bus, deeds, texts, blobs, options, tasks, under_way }) })
    }

    /// Asks what only looks, again and again until there is an answer.
    async fn look(&self, agent: &AgentId, request: &Request) -> Result<Reply, AgentError> {
        let deadline = Instant::now() + request.timeout;
        let admitted = self.desk.deeds.admit(request.epoch).await;
        admitted.map_err(|error| not_written(agent, error))?;
        let (mut pauses, mut sent) = (Pauses::until(deadline), false);
        loop {
            let Message { method, arguments } = message::message(&*self.desk.blobs, agent, request);
            match self.ask(agent, method, &arguments, deadline).await {
                Asked::Answer(Answer::Running { agent_task }) => {
                    match self.poll(agent, &agent_task, deadline).await {
                        Polled::Ended(ending) => return ending.into_result(request),
                        Polled::Lost | Polled::TimedOut => sent = true,
                    }
                }
                Asked::Answer(answer) => return self.ending(agent, answer).await.into_result(request),
                Asked::NotSent(Hindrance::TooLong) => return Err(too_long(&request.method)),
                Asked::NotSent(Hindrance::NobodyListens) => {}
                Asked::Silence => sent = true,
            }
            if !pauses.next().await {
                return Err(if sent { timed_out(agent, request) } else { unreachable(agent) });
            }
        }
    }

    /// Has what may change an agent done once.
    async fn once(&self, agent: &AgentId, request: &Request) -> Result<Reply, AgentError> {
        let deadline = Instant::now() + request.timeout;
        let deed = Deed { agent: agent.clone(), request: request.id.clone() };
        loop {
            let submission = self.desk.submission(&deed, request, deadline);
            let Ok(submitted) = tokio::time::timeout_at(deadline + WRITING, submission).await else {
                return Err(timed_out(agent, request));
            };
            let (agent_task, asked) = match submitted {
                Submitted::Running { agent_task } => (agent_task, When::Now),
                Submitted::Found { agent_task } => (agent_task, When::Before),
                Submitted::Ended(ending) => return ending.into_result(request),
                Submitted::Interrupted => return Err(interrupted(&request.method)),
                Submitted::Unknown => return Err(unknown(agent, request)),
                Submitted::Silence => return Err(timed_out(agent, request)),
                Submitted::NotSent(Hindrance::TooLong) => return Err(too_long(&request.method)),
                // Another caller's time was over, who has asked for the same.
                Submitted::NotSent(Hindrance::NobodyListens) if Instant::now() < deadline => continue,
                Submitted::NotSent(Hindrance::NobodyListens) => return Err(unreachable(agent)),
                Submitted::NotWritten(error) => return Err(not_written(agent, error)),
            };
            match self.poll(agent, &agent_task, deadline).await {
                Polled::TimedOut => return Err(timed_out(agent, request)),
                // It may have failed because the replica is gone that its URLs name: it is asked again, with others.
                Polled::Ended(Ending::Failed(_)) if is_worth_new_urls(request, asked) => {
                    self.write_end(&deed, request.epoch, agent_task, Stage::Lost).await?;
                }
                Polled::Ended(ending) => {
                    let stage = Stage::Ended(ending.clone());
                    self.write_end(&deed, request.epoch, agent_task, stage).await?;
                    return ending.into_result(request);
                }
                Polled::Lost => self.write_end(&deed, request.epoch, agent_task, Stage::Lost).await?,
            }
            match (request.mode, repeat(&request.method)) {
                (Mode::Attach, _) => return Err(unknown(agent, request)),
                (Mode::Submit, Repeat::Never) => return Err(interrupted(&request.method)),
                // Begun and not ended: it is asked for once more, under the same id.
                (Mode::Submit, _) => {}
            }
        }
    }

    /// Writes down how a request ended that the agent was at. Where that can't be done now, whoever asks again finds out anew.
    async fn write_end(
        &self,
        deed: &Deed,
        epoch: Epoch,
        agent_task: String,
        stage: Stage,
    ) -> Result<(), AgentError> {
        match self.desk.deeds.put(deed, epoch, &Stage::Running { agent_task }, Some(stage)).await {
            Ok(()) => Ok(()),
            Err(DeedError::Unavailable { reason }) => {
                warn!(agent = %deed.agent, request_id = %deed.request, reason, "an end was not written down");
                Ok(())
            }
            Err(stale) => Err(not_written(&deed.agent, stale)),
        }
    }

    /// Asks how a task of an agent fares until it has ended. An agent that does not answer is asked again.
    async fn poll(&self, agent: &AgentId, agent_task: &str, deadline: Instant) -> Polled {
        let task = [json!(agent_task)];
        let mut pauses = Pauses::until(deadline);
        let mut pause = POLL_FIRST.min(self.desk.options.poll_every);
        loop {
            let is_time = match self.ask(agent, "get_task", &task, deadline).await {
                Asked::Answer(Answer::NoSuchTask) => return Polled::Lost,
                Asked::Answer(Answer::Running { .. }) => {
                    pauses.reset();
                    let is_time = pauses.after(pause).await;
                    pause = (pause * 2).min(self.desk.options.poll_every);
                    is_time
                }
                Asked::Answer(answer) => return Polled::Ended(self.ending(agent, answer).await),
                Asked::NotSent(_) | Asked::Silence => pauses.next().await,
            };
            if !is_time {
                return Polled::TimedOut;
            }
        }
    }

    async fn ask(&self, agent: &AgentId, method: &str, arguments: &[Value], deadline: Instant) -> Asked {
        let patience = deadline.min(Instant::now() + self.desk.options.answer_within);
        self.desk.bus.ask(agent, method, arguments, patience).await
    }

    async fn ending(&self, agent: &AgentId, answer: Answer) -> Ending {
        match answer {
            Answer::Ended(ending) => ending,
            Answer::LongWords { words, blob } => self.desk.ending_of_long_words(agent, words, &blob).await,
            Answer::Running { .. } | Answer::NoSuchTask => {
                Ending::Failed("the agent speaks of a task that nobody asked for".into())
            }
        }
    }

    /// Asks an agent to give a task up; `None` when it does not answer.
    async fn give_up(&self, agent: &AgentId, agent_task: &str, deadline: Instant) -> Option<bool> {
        let task = [json!(agent_task)];
        // To cancel what has ended is a success, too: so it is asked first whether it has.
        match self.ask(agent, "get_task", &task, deadline).await {
            Asked::Answer(Answer::Running { .. }) => {}
            Asked::Answer(_) => return Some(false),
            Asked::NotSent(_) | Asked::Silence => return None,
        }
        match self.ask(agent, "cancel_task", &task, deadline).await {
            // Most actions can't be given up, and say so. They were running all the same.
            Asked::Answer(_) => Some(true),
            Asked::NotSent(_) | Asked::Silence => None,
        }
    }
}

#[async_trait]
impl Agents for NatsAgents {
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError> {
        if let Method::SyncDnsHealth { .. } = request.method {
            // Ours alone: BOSH's agents ask each other.
            return Err(AgentError::UnknownMethod { method: request.method.name().to_owned() });
        }
        match repeat(&request.method) {
            Repeat::Look => {
                let reply = self.look(agent, &request).await?;
                Ok(message::without_urls(&request.method, reply))
            }
            Repeat::Safely | Repeat::AfterCleanupOf(_) | Repeat::Never => {
                let reply = self.once(agent, &request).await?;
                message::with_address(&*self.desk.blobs, agent, &request, reply).await
            }
        }
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        let deadline = Instant::now() + CANCEL_WITHIN;
        let deed = Deed { agent: agent.clone(), request: request.clone() };
        let _ = tokio::time::timeout_at(deadline, self.desk.settled(&deed)).await;
        let stage = self.desk.deeds.find(&deed, epoch).await.map_err(|error| not_written(agent, error))?;
        let Some(Stage::Running { agent_task }) = stage else { return Ok(false) };
        let mut pauses = Pauses::until(deadline);
        loop {
            if let Some(was_running) = self.give_up(agent, &agent_task, deadline).await {
                return Ok(was_running);
            }
            if !pauses.next().await {
                return Err(unreachable(agent));
            }
        }
    }
}

fn unreachable(agent: &AgentId) -> AgentError {
    AgentError::Unreachable { agent: agent.clone() }
}

fn timed_out(agent: &AgentId, request: &Request) -> AgentError {
    let (method, timeout) = (request.method.name(), request.timeout);
    AgentError::TimedOut { agent: agent.clone(), method, timeout }
}

fn unknown(agent: &AgentId, request: &Request) -> AgentError {
    AgentError::UnknownRequest { agent: agent.clone(), request: request.id.clone() }
}

fn interrupted(method: &Method) -> AgentError {
    let message = "it may have begun before the agent or a director was lost, and is not done a second time";
    AgentError::Failed { method: method.name(), message: message.to_owned() }
}

fn too_long(method: &Method) -> AgentError {
    let message = "its arguments are longer than a message to an agent on NATS may be";
    AgentError::Failed { method: method.name(), message: message.to_owned() }
}

fn not_written(agent: &AgentId, error: DeedError) -> AgentError {
    match error {
        DeedError::Stale { current } => AgentError::StaleEpoch { agent: agent.clone(), current },
        DeedError::Unavailable { reason } => {
            warn!(agent = %agent, reason, "an agent on NATS is not asked");
            unreachable(agent)
        }
    }
}
