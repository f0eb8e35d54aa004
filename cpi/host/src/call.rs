//! The frame of one call: off the runtime's threads, bounded in time, its error in the words of the CPI contract.

use std::time::Duration;

use cpi_api::{Call, CallContext, CpiError, CpiErrorKind};
use serde_json::Value;

use crate::scope::Scope;

/// An error that callers of a CPI can be told.
pub trait CallError {
    /// Turns into what callers of `method` get; `otherwise` is the kind of errors that have none of their own.
    fn into_cpi(self, method: &'static str, otherwise: CpiErrorKind) -> CpiError;
}

/// How long calls wait for an object that another one works on, maybe in another replica. A replica that was stopped in
/// the middle (and not killed) never comes to an end: then the call fails and says whom it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockWaits {
    /// Calls that only ask whether something is there: a new leader asks so first, and can ask again.
    pub to_look: Duration,
    /// All others.
    pub to_act: Duration,
}

impl Default for LockWaits {
    /// To look: longer than a VM takes to be made on a busy machine. To act: longer than a stemcell takes to unpack, the
    /// longest that anybody works on an object.
    fn default() -> Self {
        Self { to_look: Duration::from_secs(20), to_act: Duration::from_secs(300) }
    }
}

impl LockWaits {
    fn of(self, call: &Call) -> Duration {
        match call {
            Call::FindVm(_)
            | Call::HasVm(_)
            | Call::FindDisk(_)
            | Call::HasDisk(_)
            | Call::FindSnapshot(_)
            | Call::FindNetwork(_) => self.to_look,
            _ => self.to_act,
        }
    }
}

/// Carries out a call by `perform`, on a thread that may block. What has begun when the caller's time is over goes on to its
/// end, with its locks.
pub async fn carry_out<E: CallError + Send + 'static>(
    context: &CallContext,
    call: Call,
    waits: LockWaits,
    perform: impl FnOnce(&Scope, Call) -> Result<Value, E> + Send + 'static,
) -> Result<Value, CpiError> {
    let method = call.method();
    let otherwise = match call {
        Call::CreateVm(_) => CpiErrorKind::VmCreationFailed,
        _ => CpiErrorKind::Other,
    };
    // `_waiter` ends with this future: a caller that goes away takes its call with it, unless it has begun.
    let (scope, _waiter) = Scope::new(context, waits.of(&call));
    let work = tokio::task::spawn_blocking(move || perform(&scope, call));
    let answer = match tokio::time::timeout(context.timeout, work).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.into_cpi(method, otherwise)),
        Ok(Err(panic)) => Err(CpiError::new(CpiErrorKind::Other, method, panic.to_string())),
        Err(_) => Err(CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time")),
    };
    answer.map_err(|error| error.for_request(&context.request_id))
}
