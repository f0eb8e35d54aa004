//! Clouds through the executables that are made for BOSH's director: one process for each call, a line of JSON in, a
//! document of JSON out, contracts 2 and 3.
//!
//! What such an executable cannot do, we do not pretend: it has no way to look for what a lost answer left behind, so
//! [`Cpi::find_vm`](cpi_api::Cpi::find_vm) and `find_disk` cannot tell. Not here: which cloud serves which zone, retries of
//! what failed, and intents, which are the director's; only who was asked too often is asked again ([`pace`]).
//!
//! Invariants: an executable never outlives the call that it was started for, nor the director if there is a [`guard`], nor
//! do its children in the same process group; nothing that it says takes more memory than [`Limits`] allow; what is secret in a request is not in a log.
//!
//! Read next: [`request`] (what is sent), [`response`] (what may come back), [`process`].

pub mod guard;
pub mod pace;
mod process;
mod redact;
pub mod request;
pub mod response;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind, CpiInfo, Found};
use serde_json::{Map, Value};

use pace::Gate;
pub use pace::Pace;
pub use process::Limits;
use process::{Fingerprint, Said};
use redact::Secrets;
use request::Envelope;

/// The newest contract that we speak.
pub const VERSION_MAX: u32 = 3;

/// The oldest: before it, VMs found their settings in a registry that is no more.
pub const VERSION_MIN: u32 = 2;

/// How long an executable may take to say which contract it speaks.
const INFO_WITHIN: Duration = Duration::from_secs(60);

/// An executable, and what it is told with every call.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The wrapper that a CPI's job installs.
    pub path: PathBuf,
    /// What runs it, and ends it when we are gone ([`guard`]): a program and its arguments, to which the path is added.
    pub guard: Vec<OsString>,
    /// The fleet's uuid.
    pub director_uuid: String,
    /// Properties of the CPI config, resolved: they are secret.
    pub properties: Map<String, Value>,
}

/// A cloud behind an executable. Clones share what was learned of it.
#[derive(Clone)]
pub struct ExternalCpi {
    inner: Arc<Inner>,
}

struct Inner {
    program: Program,
    limits: Limits,
    pace: Pace,
    gate: Gate,
    learned: Mutex<Learned>,
    /// Held while an executable is asked what it speaks: calls that come together ask once.
    asking: tokio::sync::Mutex<()>,
}

/// What was learned of an executable, for as long as it is the same file.
#[derive(Default)]
struct Learned {
    of: Option<Fingerprint>,
    info: Option<CpiInfo>,
    /// Methods that have worked. Some CPIs call everything unknown when they cannot read their configuration: that is
    /// not believed of these.
    worked: BTreeSet<&'static str>,
}

impl ExternalCpi {
    /// Prepares for an executable; nothing is started yet.
    pub fn new(program: Program, limits: Limits, pace: Pace) -> Self {
        let (gate, learned, asking) = (Gate::new(&pace), Mutex::default(), Default::default());
        Self { inner: Arc::new(Inner { program, limits, pace, gate, learned, asking }) }
    }

    /// Returns how fast it is asked.
    pub fn pace(&self) -> &Pace {
        &self.inner.pace
    }

    /// Returns what it was made for.
    pub fn program(&self) -> &Program {
        &self.inner.program
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, Learned> {
        self.inner.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns which contract is spoken: asked once of each executable, and again when its file is another.
    async fn negotiate(&self, context: Option<&CallContext>) -> Result<CpiInfo, CpiError> {
        let _asking = self.inner.asking.lock().await;
        let fingerprint = process::fingerprint(&self.inner.program.path);
        {
            let mut learned = self.learned();
            if learned.of != fingerprint {
                *learned = Learned { of: fingerprint, ..Learned::default() };
            }
            if let Some(info) = &learned.info {
                return Ok(info.clone());
            }
        }
        let answer = self.ask(context, &Call::Info, None, INFO_WITHIN).await?;
        let info = response::info(&answer)?;
        self.learned().info = Some(info.clone());
        Ok(info)
    }

    async fn ask(
        &self,
        context: Option<&CallContext>,
        call: &Call,
        version: Option<u32>,
        within: Duration,
    ) -> Result<Value, CpiError> {
        let program = &self.inner.program;
        let envelope = Envelope::new(program, context, call, version);
        let secrets = Secrets::of(program, call);
        let log = context.map(|context| context.log.clone()).unwrap_or_default();
        log.write(&secrets.hide(&envelope.shown()));
        let told = |line: &str| log.write(&secrets.hide(line));
        let outcome = self.converse(&envelope, call.method(), within, &told).await;
        outcome.map_err(|error| CpiError {
            request_id: envelope.request_id.clone(),
            // It goes into tasks, events and terminals.
            message: secrets.hide_named(&error.message),
            ..error
        })
    }

    /// Runs the executable once, when it is our turn. What it says beside its answer is `told`.
    async fn converse(
        &self,
        envelope: &Envelope,
        method: &'static str,
        within: Duration,
        told: &(dyn Fn(&str) + Sync),
    ) -> Result<Value, CpiError> {
        let invalid = |why: String| {
            CpiError::new(CpiErrorKind::InvalidResponse, method, format!("Invalid CPI response - {why}"))
        };
        let _turn = self.inner.gate.enter().await;
        let line = envelope.line();
        let running = process::run(&self.inner.program, &line, self.inner.limits, told);
        let said = match tokio::time::timeout(within, running).await {
            Ok(said) => said.map_err(|why| CpiError::new(CpiErrorKind::Other, method, why))?,
            Err(_) => {
                let why = format!("no answer within {} s; the process was ended", within.as_secs());
                return Err(CpiError::new(CpiErrorKind::TimedOut, method, why));
            }
        };
        let answer = match said {
            Said::All(stdout) => response::parse(&stdout, method)?,
            Said::TooMuch => {
                return Err(invalid(format!("more than {} bytes", self.inner.limits.answer_bytes_max)));
            }
            Said::Unreadable(why) => return Err(invalid(format!("it can't be read: {why}"))),
        };
        if !answer.log.is_empty() {
            told(&answer.log);
        }
        told(&format!("{}: {}", envelope.request_id, answer.summary()));
        answer.outcome
    }

    /// Asks, and asks again whenever the cloud says that it is asked too often. Everybody else waits as well then.
    async fn ask_patiently(
        &self,
        context: Option<&CallContext>,
        call: &Call,
        version: u32,
    ) -> Result<Value, CpiError> {
        let within = context.map_or(INFO_WITHIN, |context| context.timeout);
        let mut waits = self.inner.pace.again.waits();
        loop {
            let error = match self.ask(context, call, Some(version), within).await {
                Err(error) if pace::is_too_often(&error) => error,
                outcome => return outcome,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            if let Some(context) = context {
                let seconds = wait.as_secs_f32();
                context.log.write(&format!(
                    "{}: the cloud says that it is asked too often: again in {seconds:.1} s",
                    error.request_id
                ));
            }
            self.inner.gate.hush(wait);
        }
    }

    /// A method that has worked is not unknown: its CPI has lost its configuration, or its mind.
    fn doubted(&self, error: CpiError) -> CpiError {
        let is_known = self.learned().worked.contains(error.method);
        match error.kind {
            CpiErrorKind::NotImplemented if is_known => CpiError { kind: CpiErrorKind::Other, ..error },
            _ => error,
        }
    }
}

#[async_trait]
impl CallPort for ExternalCpi {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let cannot_tell = serde_json::to_value(Found::<String>::CannotTell).unwrap_or_default();
        match &call {
            Call::FindVm(_) | Call::FindDisk(_) | Call::FindSnapshot(_) | Call::FindNetwork(_) => {
                return Ok(cannot_tell);
            }
            Call::Info => {
                let info = self.negotiate(context).await?;
                return Ok(serde_json::to_value(info).unwrap_or_default());
            }
            _ => {}
        }
        let version = self.negotiate(context).await?.api_version;
        let answer = match self.ask_patiently(context, &call, version).await {
            Ok(answer) => answer,
            Err(error) if response::is_gone(&call, &error) => Value::Null,
            Err(error) => return Err(self.doubted(error)),
        };
        let named = |error: CpiError| match context {
            Some(context) => error.for_request(&context.request_id),
            None => error,
        };
        let result = response::result(&call, answer).map_err(named)?;
        self.learned().worked.insert(call.method());
        Ok(result)
    }
}
