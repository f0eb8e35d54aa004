//! Making what is found again by our own id: once, whatever becomes of the answers.
//!
//! A search that finds nothing does not say that nothing will come: a cloud may carry a call out after its caller was told
//! nothing. So before another call is made, or the step given up, the state remembers what may still appear, and the leader
//! goes on looking for it (`latecomers`). Who is found after more than one call may be any of theirs, with a token that is
//! void by now: nobody is adopted then, all are deleted, and another is made.

use std::future::Future;
use std::time::Duration;

use cpi_api::{CpiError, CpiErrorKind, Found};
use model::CpiName;
use model::task::TaskError;
use state::State;
use state::command::Command;
use state::log::{LogError, Proposal};
use state::records::Sought;

use super::witness;
use crate::context::StepContext;
use crate::error::{Interrupted, StepError, leaves_open};
use crate::sought;

/// How long a VM's agent has to dial in after its CPI has ended without an answer: a container's is there by then.
const AFTER_GARBAGE: Duration = Duration::from_secs(20);

/// How to look for what a lost call may have made.
pub(super) struct Search<'a> {
    /// The cloud to ask.
    pub cpi: &'a CpiName,
    /// By what it is found.
    pub sought: Sought,
    /// What it is, for whoever has to look by hand: `a VM for 'web/1' with agent id a1`.
    pub what: String,
}

/// Makes it, unless an earlier leader's call has, or ours has and only the answer was lost. Returns the cloud's id.
pub(super) async fn make<T: std::fmt::Display>(
    cx: &StepContext,
    search: Search<'_>,
    make: impl Future<Output = Result<Result<T, CpiError>, StepError>>,
) -> Result<String, StepError> {
    if cx.is_repeat()
        && let Some(found) = search.made_before(cx).await?
    {
        return Ok(found);
    }
    let error = match make.await? {
        Ok(made) => return Ok(made.to_string()),
        Err(error) => error,
    };
    if !leaves_open(&error) {
        return Err(StepError::from_cpi(error, cx.task.fence.epoch()));
    }
    let Some(mut found) = search.look(cx, patience_after(&error, cx)).await? else {
        return Err(StepError::from_cpi(error, cx.task.fence.epoch()));
    };
    match found.pop() {
        None => {
            may_appear(cx, &search.sought).await?;
            Err(StepError::from_cpi(error, cx.task.fence.epoch()))
        }
        Some(one) if found.is_empty() && !search.is_expected(cx) => {
            cx.task.debug(&format!("{one} was created although the call failed: {error}"));
            Ok(one)
        }
        Some(_) => Err(StepError::Unclear(TaskError::plain(format!(
            "{} was created, but not certainly by the last call, which failed: {error}",
            search.what
        )))),
    }
}

/// Returns how long an agent is waited for whose VM a call may have made. Whoever ended without an answer that can be read
/// has most likely done nothing, and whoever set it up so waits for word of it.
fn patience_after(error: &CpiError, cx: &StepContext) -> Duration {
    let patience = cx.task.ports.options.agent_wait;
    if error.kind == CpiErrorKind::InvalidResponse { patience.min(AFTER_GARBAGE) } else { patience }
}

/// Has it remembered that this may still appear in the cloud.
pub(super) async fn may_appear(cx: &StepContext, sought: &Sought) -> Result<(), StepError> {
    let look_for_ms = cx.task.ports.options.late_calls.as_millis().try_into().unwrap_or(u64::MAX);
    let (task, epoch) = (cx.task.id(), cx.task.fence.epoch());
    let put = Command::LatecomerPut { task, epoch, sought: sought.clone(), look_for_ms };
    match cx.task.propose(Proposal::own(put)).await {
        Ok(answer) => Ok(answer.map(drop)?),
        // A member of the fleet would not know it yet: then nobody looks but the operator.
        Err(Interrupted::Log(LogError::TooOld { .. })) => {
            let what =
                format!("{sought}: the call that was to create it was not answered, it may still appear");
            cx.leaked(what).await;
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}

impl Search<'_> {
    /// Returns what an earlier call has made, if it is certain that there was only one.
    async fn made_before(&self, cx: &StepContext) -> Result<Option<String>, StepError> {
        let patience = cx.task.ports.options.agent_wait;
        let Some(mut found) = self.look(cx, patience).await? else { return Ok(None) };
        if found.len() == 1 && !self.is_expected(cx) {
            return Ok(found.pop());
        }
        // Before anything is deleted or made: whoever goes on after us must know that there were several.
        may_appear(cx, &self.sought).await?;
        for cid in found {
            self.delete(cx, &cid).await?;
        }
        Ok(None)
    }

    /// Returns whether more than one call may have made it.
    fn is_expected(&self, cx: &StepContext) -> bool {
        let view = cx.task.view();
        State::new(&*view).latecomer(&self.sought).is_some()
    }

    async fn delete(&self, cx: &StepContext, cid: &str) -> Result<(), StepError> {
        let part = format!("delete-{cid}");
        let answer = cx
            .cloud_raw(self.cpi, &part, None, |cpi, call| async move {
                sought::delete(&*cpi, &call, &self.sought, cid).await
            })
            .await?;
        match answer {
            Ok(()) => Ok(()),
            Err(error) if error.kind == CpiErrorKind::Fenced => {
                Err(StepError::from_cpi(error, cx.task.fence.epoch()))
            }
            Err(error) => Err(StepError::Unclear(TaskError::plain(format!(
                "{} was created by a call whose answer was lost, and could not be deleted: {error}",
                self.what
            )))),
        }
    }

    /// Looks for it. Where nobody can ever tell, it is remembered as a possible leak; where nobody answers just now, that
    /// is tried again, and what may exist keeps its row.
    async fn look(&self, cx: &StepContext, patience: Duration) -> Result<Option<Vec<String>>, StepError> {
        let may_exist = format!("{} may have been created by a call whose answer was lost", self.what);
        let part = match self.sought {
            Sought::Vm(_) => "find-vm",
            Sought::Disk(_) => "find-disk",
            Sought::Snapshot(_) => "find-snapshot",
        };
        let answer = cx
            .cloud_raw(self.cpi, part, None, |cpi, call| async move {
                sought::find(&*cpi, &call, &self.sought).await
            })
            .await?;
        match answer {
            Ok(Found::These(found)) => Ok(Some(found)),
            Ok(Found::CannotTell) => self.look_without_search(cx, patience, may_exist).await,
            Err(error) if error.kind == CpiErrorKind::Fenced => {
                Err(StepError::from_cpi(error, cx.task.fence.epoch()))
            }
            Err(error) => Err(StepError::Unclear(TaskError::plain(format!(
                "{may_exist}, and its cloud did not answer when it was searched for: {error}. The next command that \
                 works on it looks for it again"
            )))),
        }
    }

    /// A VM's agent tells of it. Without, there may be one that has the address, so no other is made. A disk or a
    /// snapshot that nobody knows is in nobody's way.
    async fn look_without_search(
        &self,
        cx: &StepContext,
        patience: Duration,
        may_exist: String,
    ) -> Result<Option<Vec<String>>, StepError> {
        let what = format!("{may_exist}, and its cloud can't search for it");
        match &self.sought {
            Sought::Vm(agent) => match witness::vm_of(cx, self.cpi, agent, patience).await? {
                Some(cid) => Ok(Some(vec![cid.to_string()])),
                None => {
                    let what = format!("{what}: look for it by that id, then run the command again");
                    Err(cx.leaked(what).await)
                }
            },
            Sought::Disk(_) | Sought::Snapshot(_) => {
                let told = cx.leaked(format!("{what}: look for it by that id")).await;
                cx.task.debug(&told.to_string());
                Ok(None)
            }
        }
    }
}
