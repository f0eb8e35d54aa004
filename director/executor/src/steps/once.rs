//! Making what is found again by our own id: once, whatever becomes of the answers.

use std::future::Future;
use std::sync::Arc;

use cpi_api::{CallContext, Cpi, CpiError, CpiErrorKind, Found};
use model::CpiName;
use model::task::TaskError;

use crate::context::StepContext;
use crate::error::{StepError, leaves_open};

/// How to look for what a lost call may have made.
pub(super) struct Search<'a, F> {
    /// The cloud to ask.
    pub cpi: &'a CpiName,
    /// The call's part of the request id.
    pub part: &'a str,
    /// The call.
    pub find: F,
    /// What it is, for whoever has to look by hand: `a VM for 'web/1' with agent id a1`.
    pub what: String,
}

/// Makes it, unless an earlier leader's call has, or ours has and only the answer was lost.
pub(super) async fn make<T, F, Finding, Making>(
    cx: &StepContext,
    search: Search<'_, F>,
    make: Making,
) -> Result<T, StepError>
where
    T: std::fmt::Display,
    F: Fn(Arc<dyn Cpi>, CallContext) -> Finding,
    Finding: Future<Output = Result<Found<T>, CpiError>>,
    Making: Future<Output = Result<Result<T, CpiError>, StepError>>,
{
    if cx.is_repeat()
        && let Some(found) = search.look(cx).await?
    {
        return Ok(found);
    }
    let error = match make.await? {
        Ok(made) => return Ok(made),
        Err(error) => error,
    };
    if leaves_open(&error)
        && let Some(found) = search.look(cx).await?
    {
        cx.task.debug(&format!("{found} was created although the call failed: {error}"));
        return Ok(found);
    }
    Err(StepError::from_cpi(error, cx.task.fence.epoch()))
}

impl<F> Search<'_, F> {
    /// Looks for it. Where nobody can ever tell, it is remembered as a possible leak; where nobody answers just now, that
    /// is tried again, and what may exist keeps its row.
    async fn look<T, Finding>(&self, cx: &StepContext) -> Result<Option<T>, StepError>
    where
        F: Fn(Arc<dyn Cpi>, CallContext) -> Finding,
        Finding: Future<Output = Result<Found<T>, CpiError>>,
    {
        let may_exist = format!("{} may have been created by a call whose answer was lost", self.what);
        match cx.cloud_raw(self.cpi, self.part, None, &self.find).await? {
            Ok(Found::Yes(found)) => Ok(Some(found)),
            Ok(Found::No) => Ok(None),
            Ok(Found::CannotTell) => {
                let what = format!(
                    "{may_exist}, and its cloud can't search for it: look for it by that id, then run the command again"
                );
                Err(cx.leaked(what).await)
            }
            Err(error) if error.kind == CpiErrorKind::Fenced => {
                Err(StepError::from_cpi(error, cx.task.fence.epoch()))
            }
            Err(error) => Err(StepError::Unclear(TaskError::plain(format!(
                "{may_exist}, and its cloud did not answer when it was searched for: {error}. The next command that \
                 works on it looks for it again"
            )))),
        }
    }
}
