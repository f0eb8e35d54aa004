//! Handing a request to an agent: written down before, and after, in a task of its own, which whoever asked can't break off
//! between the two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::{Method, Mode, Request};
use model::AgentId;
use owned_tasks::{OnExit, OwnedTasks};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{self, Answer, Ending, LongTexts};
use crate::blobs::AgentBlobs;
use crate::bus::{Asked, Bus, Hindrance, Pauses};
use crate::deeds::{Deed, DeedError, Deeds, Stage};
use crate::message::{self, Message};
use crate::options::Options;

/// How long a long text may take to be fetched.
const LONG_TEXT_WITHIN: Duration = Duration::from_secs(30);

/// What may be done where nobody can tell whether an agent has got a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only looks, or does nothing where it is done: nothing is written down.
    Look,
    /// It may be done again, and ends the same.
    Safely,
    /// It may be done again after this was undone: a user that exists already is an error.
    AfterCleanupOf(String),
    /// It may not be done again.
    Never,
}

/// Returns what may be done with a request of a method.
pub(crate) fn repeat(method: &Method) -> Repeat {
    match method {
        Method::Ping | Method::GetState { .. } | Method::ListDisk | Method::SyncDns { .. } => Repeat::Look,
        // An errand does whatever it does. Which disk is copied to which, BOSH's agent reads from what is mounted: after a
        // copy that is another thing than before.
        Method::RunErrand { .. } | Method::MigrateDisk { .. } => Repeat::Never,
        // The name goes into an expression.
        Method::SshSetup { user, .. } if user.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            Repeat::AfterCleanupOf(user.clone())
        }
        Method::SshSetup { .. } => Repeat::Never,
        _ => Repeat::Safely,
    }
}

/// What came of handing a request over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It has ended, now or long ago.
    Ended(Ending),
    /// The agent is at it, as it was asked now.
    Running { agent_task: String },
    /// The agent is at it, or was, as it was asked before: by another call, or by another leader.
    Found { agent_task: String },
    /// It may be done, in part or not at all, and is not done again.
    Interrupted,
    /// Only its result was wanted, and there is none.
    Unknown,
    /// The agent has certainly not got it.
    NotSent(Hindrance),
    /// The agent may have got it.
    Silence,
    /// It could not be written down.
    NotWritten(DeedError),
}

impl From<DeedError> for Submitted {
    fn from(error: DeedError) -> Self {
        Self::NotWritten(error)
    }
}

/// What every call needs.
pub(crate) struct Desk {
    pub bus: Bus,
    pub deeds: Arc<dyn Deeds>,
    pub texts: Arc<dyn LongTexts>,
    pub blobs: Arc<dyn AgentBlobs>,
    pub options: Options,
    pub tasks: OwnedTasks,
    /// Requests that are being handed over: whoever asks for the same waits for that.
    pub under_way: Mutex<HashMap<Deed, watch::Receiver<Option<Submitted>>>>,
}

impl Desk {
    fn under_way(&self) -> MutexGuard<'_, HashMap<Deed, watch::Receiver<Option<Submitted>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request over, or finds out what became of it. Goes on if the caller does not wait for the end.
    pub(crate) async fn submission(
        self: &Arc<Self>,
        deed: &Deed,
        request: &Request,
        deadline: Instant,
    ) -> Submitted {
        let mut told = self.join(deed, request, deadline);
        match told.wait_for(Option::is_some).await {
            Ok(submitted) => submitted.clone().unwrap_or(Submitted::Silence),
            // The replica stops.
            Err(_) => Submitted::Silence,
        }
    }

    /// Waits for a request that is being handed over.
    pub(crate) async fn settled(&self, deed: &Deed) {
        let told = self.under_way().get(deed).cloned();
        if let Some(mut told) = told {
            let _ = told.wait_for(Option::is_some).await;
        }
    }

    fn join(
        self: &Arc<Self>,
        deed: &Deed,
        request: &Request,
        deadline: Instant,
    ) -> watch::Receiver<Option<Submitted>> {
        let mut under_way = self.under_way();
        if let Some(told) = under_way.get(deed) {
            return told.clone();
        }
        let (tell, told) = watch::channel(None);
        under_way.insert(deed.clone(), told.clone());
        let (desk, deed, request) = (self.clone(), deed.clone(), request.clone());
        self.tasks.spawn("a request to an agent on NATS", OnExit::Ignore, |stop| async move {
            let work = Work { desk: &desk, deed: &deed, request: &request, deadline };
            let submitted = tokio::select! {
                submitted = work.submit() => submitted,
                () = stop.cancelled() => Submitted::Silence,
            };
            desk.under_way().remove(&deed);
            tell.send_replace(Some(submitted));
        });
        told
    }

    /// Returns how a request ended, with the words that stand elsewhere.
    pub(crate) async fn ending_of_long_words(&self, agent: &AgentId, words: String, blob: &str) -> Ending {
        let text = tokio::time::timeout(LONG_TEXT_WITHIN, self.texts.take(agent, blob)).await;
        Ending::Failed(answer::words(&text.ok().flatten().unwrap_or(words)))
    }
}

/// One request being handed over.
struct Work<'a> {
    desk: &'a Desk,
    deed: &'a Deed,
    request: &'a Request,
    deadline: Instant,
}

impl Work<'_> {
    async fn submit(&self) -> Submitted {
        let (deeds, epoch) = (&self.desk.deeds, self.request.epoch);
        let written = match self.request.mode {
            Mode::Submit => deeds.begin(self.deed, epoch).await,
            Mode::Attach => deeds.find(self.deed, epoch).await,
        };
        let stage = match written {
            Ok(stage) => stage,
            Err(error) => return error.into(),
        };
        let may_repeat = repeat(&self.request.method) != Repeat::Never;
        match (stage, self.request.mode) {
            (Some(Stage::Ended(ending)), _) => Submitted::Ended(ending),
            (Some(Stage::Running { agent_task }), _) => Submitted::Found { agent_task },
            (None | Some(Stage::Asked | Stage::Lost), Mode::Attach) => Submitted::Unknown,
            (None, Mode::Submit) => self.hand_over(Before::Never).await,
            (Some(Stage::Asked), Mode::Submit) if may_repeat => self.hand_over(Before::Perhaps).await,
            (Some(Stage::Lost), Mode::Submit) if may_repeat => {
                match deeds.put(self.deed, epoch, &Stage::Lost, Some(Stage::Asked)).await {
                    Ok(()) => self.hand_over(Before::Perhaps).await,
                    Err(error) => error.into(),
                }
            }
            (Some(Stage::Asked | Stage::Lost), Mode::Submit) => Submitted::Interrupted,
        }
    }

    /// Asks until the agent has taken it. What is written is `Asked`.
    async fn hand_over(&self, mut before: Before) -> Submitted {
        let repeat = repeat(&self.request.method);
        let mut pauses = Pauses::until(self.deadline);
        loop {
            match self.ask(before, &repeat).await {
                Asked::Answer(answer) => return self.taken(answer).await,
                Asked::NotSent(Hindrance::TooLong) => return self.not_sent(before, Hindrance::TooLong).await,
                Asked::NotSent(Hindrance::NobodyListens) => {}
                // While there is time, silence says that the answer is lost, or the question was: nothing more will come.
                Asked::Silence if repeat == Repeat::Never && !self.is_over() => {
                    return Submitted::Interrupted;
                }
                Asked::Silence if repeat == Repeat::Never => return Submitted::Silence,
                Asked::Silence => before = Before::Perhaps,
            }
            if !pauses.next().await {
                return self.not_sent(before, Hindrance::NobodyListens).await;
            }
        }
    }

    async fn ask(&self, before: Before, repeat: &Repeat) -> Asked {
        let method = &self.request.method;
        if let (Before::Perhaps, Repeat::AfterCleanupOf(user)) = (before, repeat) {
            let cleanup = [json!("cleanup"), json!({ "user_regex": format!("^{user}$") })];
            match self.ask_surely(method.name(), &cleanup).await {
                Asked::Answer(_) => {}
                hindered => return hindered,
            }
        }
        let Message { method, arguments } =
            message::message(&*self.desk.blobs, &self.deed.agent, self.request);
        self.ask_surely(method, &arguments).await
    }

    /// Asks once, and waits for as long as the agent may still have the question before it. It takes one after the other: who
    /// has answered a later one, and not this one, will not answer this one.
    async fn ask_surely(&self, method: &str, arguments: &[Value]) -> Asked {
        let (desk, agent) = (self.desk, &self.deed.agent);
        let Some(mut question) = desk.bus.send(agent, method, arguments).await else {
            return Asked::NotSent(Hindrance::NobodyListens);
        };
        loop {
            let patience = self.deadline.min(Instant::now() + desk.options.answer_within);
            if let Some(asked) = question.answer(patience).await {
                return asked;
            }
            if self.is_over() {
                return Asked::Silence;
            }
            let patience = self.deadline.min(Instant::now() + desk.options.answer_within);
            if let Asked::Answer(_) = desk.bus.ask(agent, Method::Ping.name(), &[], patience).await {
                return question.answer(Instant::now()).await.unwrap_or(Asked::Silence);
            }
        }
    }

    /// Writes down what an agent has said to a request.
    async fn taken(&self, answer: Answer) -> Submitted {
        let ending = match answer {
            Answer::Running { agent_task } => {
                let stage = Stage::Running { agent_task: agent_task.clone() };
                return match self.put(Some(stage)).await {
                    Ok(()) => Submitted::Running { agent_task },
                    Err(error) => error.into(),
                };
            }
            Answer::Ended(ending) => ending,
            Answer::NoSuchTask => Ending::Failed("the agent speaks of a task that nobody asked for".into()),
            Answer::LongWords { words, blob } => {
                self.desk.ending_of_long_words(&self.deed.agent, words, &blob).await
            }
        };
        match self.put(Some(Stage::Ended(ending.clone()))).await {
            Ok(()) => Submitted::Ended(ending),
            Err(error) => error.into(),
        }
    }

    /// Strikes out what was never asked; what may have been asked before stays.
    async fn not_sent(&self, before: Before, hindrance: Hindrance) -> Submitted {
        match before {
            Before::Perhaps => Submitted::Silence,
            Before::Never => match self.put(None).await {
                Ok(()) => Submitted::NotSent(hindrance),
                Err(error) => error.into(),
            },
        }
    }

    /// Writes a stage down, and goes on trying for as long as the caller has time.
    async fn put(&self, stage: Option<Stage>) -> Result<(), DeedError> {
        let mut pauses = Pauses::until(self.deadline);
        loop {
            let put = self.desk.deeds.put(self.deed, self.request.epoch, &Stage::Asked, stage.clone()).await;
            let unavailable = matches!(put, Err(DeedError::Unavailable { .. }));
            if !unavailable || !pauses.next().await {
                return put;
            }
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// Whether the agent may have got the request before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Never,
    Perhaps,
}
