//! An in-memory cloud for tests of callers, with knobs for what clouds do to callers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use model::*;
use serde_json::Value;

use crate::memory::MemoryCloud;
use crate::{Call, CallContext, CallPort, CpiError, CpiErrorKind};

/// What happens to a call instead of a prompt answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails before anything is done.
    Fail(CpiErrorKind),
    /// It fails before anything is done, and the cloud says that another try may help.
    FailRetryable(CpiErrorKind),
    /// The deed is done, then the answer is lost: the caller sees [`CpiErrorKind::TimedOut`].
    LoseAnswer,
    /// Nothing is done, and no answer comes before the caller's timeout.
    Hang,
    /// The deed is done this much later.
    Delay(Duration),
    /// The caller sees [`CpiErrorKind::TimedOut`] at once; the deed is done when the test says so
    /// ([`FakeCpi::carry_out_late_calls`]), however many have looked for it by then.
    Late,
    /// What is late is done just before it.
    AfterLateCalls,
}

/// A call as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedCall {
    /// The calling leader's epoch; none for `info`.
    pub epoch: Option<Epoch>,
    /// The caller's request id; none for `info`.
    pub request_id: Option<RequestId>,
    /// The call itself.
    pub call: Call,
}

/// The fake cloud. Clones are the same cloud, as replicas see it.
#[derive(Clone, Default)]
pub struct FakeCpi {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    cloud: MemoryCloud,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    calls: Vec<RecordedCall>,
    late: Vec<Call>,
}

impl FakeCpi {
    /// Returns an empty cloud without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `fault` happen to the next call of `method` that has no fault yet; repeat it for more calls.
    pub fn inject(&self, method: &'static str, fault: Fault) {
        self.lock().faults.entry(method).or_default().push_back(fault);
    }

    /// Returns every call so far, in order of arrival.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.lock().calls.clone()
    }

    /// Returns how often `method` was called.
    pub fn count(&self, method: &str) -> usize {
        self.lock().calls.iter().filter(|c| c.call.method() == method).count()
    }

    /// Returns a copy of the cloud as it is now.
    pub fn cloud(&self) -> MemoryCloud {
        self.lock().cloud.clone()
    }

    /// Changes the cloud behind everybody's back, as people with a console do.
    pub fn tamper(&self, change: impl FnOnce(&mut MemoryCloud)) {
        change(&mut self.lock().cloud);
    }

    /// Carries out what is late, and returns how much that was.
    pub fn carry_out_late_calls(&self) -> usize {
        let mut inner = self.lock();
        let late = std::mem::take(&mut inner.late);
        let done = late.into_iter().filter_map(|call| inner.cloud.perform_late(call).ok());
        done.count()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock means that a test has panicked while it tampered; its own report is the one that matters.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn arrive(&self, context: Option<&CallContext>, call: &Call) -> Option<Fault> {
        let mut inner = self.lock();
        inner.calls.push(RecordedCall {
            epoch: context.map(|c| c.epoch),
            request_id: context.map(|c| c.request_id.clone()),
            call: call.clone(),
        });
        inner.faults.get_mut(call.method()).and_then(VecDeque::pop_front)
    }
}

#[async_trait]
impl CallPort for FakeCpi {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        let timeout = context.map_or(Duration::MAX, |c| c.timeout);
        let timed_out = || CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time");
        let fault = self.arrive(context, &call);
        let perform = |call| self.lock().cloud.perform(context, call);
        let answer = match fault {
            None => perform(call),
            Some(Fault::Fail(kind)) => Err(CpiError::new(kind, method, "injected failure")),
            Some(Fault::FailRetryable(kind)) => {
                Err(CpiError::new(kind, method, "injected failure").retryable())
            }
            Some(Fault::Late) => {
                self.lock().late.push(call);
                Err(timed_out())
            }
            Some(Fault::AfterLateCalls) => {
                self.carry_out_late_calls();
                perform(call)
            }
            Some(Fault::LoseAnswer) => perform(call).and_then(|_| Err(timed_out())),
            Some(Fault::Hang) => {
                tokio::time::sleep(timeout).await;
                Err(timed_out())
            }
            // A slow cloud does the deed even when the caller has given up: only the answer is too late.
            Some(Fault::Delay(delay)) if delay > timeout => {
                tokio::time::sleep(timeout).await;
                perform(call).and_then(|_| Err(timed_out()))
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                perform(call)
            }
        };
        answer.map_err(|error| context.map_or(error.clone(), |c| error.for_request(&c.request_id)))
    }
}
