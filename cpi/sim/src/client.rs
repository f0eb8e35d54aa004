//! A replica's side of the simulated cloud.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind};
use model::VmCid;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::cloud::Statistics;
use crate::knobs::Knobs;
use crate::record::Record;
use crate::wire::{self, Answer, Question};

/// How long a question that is no call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cloud behind a socket that `sim-cloud` serves.
#[derive(Clone, Debug)]
pub struct SimCpi {
    socket: PathBuf,
}

impl SimCpi {
    /// Returns the cloud behind `socket`. Nothing is dialled yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Sets the cloud's knobs.
    pub async fn set_knobs(&self, knobs: Knobs) -> Result<(), CpiError> {
        self.ask("set_knobs", &Question::SetKnobs(Box::new(knobs)), PATIENCE).await.map(drop)
    }

    /// Ends what runs in a VM; see [`crate::SimCloud::crash_vm`].
    pub async fn crash_vm(&self, vm: VmCid) -> Result<(), CpiError> {
        self.ask("crash_vm", &Question::CrashVm(vm), PATIENCE).await.map(drop)
    }

    /// Returns what the cloud has seen.
    pub async fn statistics(&self) -> Result<Statistics, CpiError> {
        match self.ask("statistics", &Question::Statistics, PATIENCE).await? {
            Answer::Statistics(statistics) => Ok(*statistics),
            _ => Err(of_another_kind("statistics")),
        }
    }

    /// Returns every call that has arrived at the cloud, and what is there.
    pub async fn record(&self) -> Result<Record, CpiError> {
        match self.ask("record", &Question::Record, PATIENCE).await? {
            Answer::Record(record) => Ok(*record),
            _ => Err(of_another_kind("record")),
        }
    }

    async fn ask(
        &self,
        method: &'static str,
        question: &Question,
        timeout: Duration,
    ) -> Result<Answer, CpiError> {
        let unreachable = |error: std::io::Error| {
            let message = format!("no simulated cloud at {}: {error}", self.socket.display());
            CpiError::new(CpiErrorKind::Other, method, message).retryable()
        };
        // Once the question may have arrived, silence says nothing about the deed.
        let lost = |error: std::io::Error| {
            CpiError::new(CpiErrorKind::TimedOut, method, format!("answer lost: {error}"))
        };
        let conversation = async {
            let mut stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
            wire::write(&mut stream, question).await.map_err(lost)?;
            wire::read(&mut stream).await.map_err(lost)
        };
        match tokio::time::timeout(timeout, conversation).await {
            Ok(answer) => answer,
            Err(_) => Err(CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time")),
        }
    }
}

#[async_trait]
impl CallPort for SimCpi {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let (method, timeout) = (call.method(), context.map_or(PATIENCE, |c| c.timeout));
        let question = Question::Call { context: context.cloned().map(Box::new), call: Box::new(call) };
        let answer = match self.ask(method, &question, timeout).await {
            Ok(Answer::Result(value)) => Ok(value),
            Ok(Answer::Error { kind, type_name, message, ok_to_retry }) => {
                let error = CpiError::new(kind, method, message);
                Err(CpiError { type_name, ok_to_retry, ..error })
            }
            Ok(_) => Err(of_another_kind(method)),
            Err(error) => Err(error),
        };
        answer.map_err(|error| context.map_or(error.clone(), |c| error.for_request(&c.request_id)))
    }
}

fn of_another_kind(method: &'static str) -> CpiError {
    CpiError::new(CpiErrorKind::InvalidResponse, method, "the answer is of another kind")
}
