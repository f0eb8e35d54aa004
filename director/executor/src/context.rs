//! What one task's work has at hand.

use model::plan::{OnFailure, Target};
use model::task::{OutputKind, Task, TaskState};
use model::{BlobDigest, EventId, InstanceId, RequestId, StepNo, TaskId, Timestamp};
use state::State;
use state::command::{Command, Outcome, Refusal, SECOND_LEVEL, THIRD_LEVEL};
use state::log::{LogError, Proposal, View};
use state::records::Leak;
use tokio_util::sync::CancellationToken;

use crate::error::{Interrupted, StepError};
use crate::journal::Journal;
use crate::lease::{Fence, Lost};
use crate::ports::Ports;

/// One task being worked on, under one epoch. Cheap to clone.
#[derive(Clone)]
pub struct TaskContext {
    /// The outside.
    pub ports: Ports,
    /// The task as it was taken up.
    pub task: std::sync::Arc<Task>,
    /// The right to act.
    pub fence: Fence,
    /// Where intents and outcomes go.
    pub journal: Journal,
    /// Fires when somebody asks for the task to be cancelled.
    pub cancelled: CancellationToken,
}

impl TaskContext {
    /// Returns the task's number.
    pub fn id(&self) -> TaskId {
        self.task.id
    }

    /// Returns the state as it is now.
    pub fn view(&self) -> View {
        self.ports.log.view()
    }

    /// Returns the plan's target for an instance.
    pub fn target(&self, instance: &InstanceId) -> Result<Target, StepError> {
        let view = self.view();
        State::new(&*view).target(self.id(), instance).ok_or_else(|| {
            StepError::plain(format!("the plan of task {} has no instance {instance}", self.id()))
        })
    }

    /// Returns whether every member knows the second feature level.
    pub fn knows_second_level(&self) -> bool {
        self.knows(SECOND_LEVEL)
    }

    /// Returns whether every member knows the third feature level.
    pub fn knows_third_level(&self) -> bool {
        self.knows(THIRD_LEVEL)
    }

    fn knows(&self, wanted: u32) -> bool {
        let view = self.view();
        State::new(&*view).feature_level().is_none_or(|level| level >= wanted)
    }

    /// Returns whether somebody has asked for the task to be cancelled, as the state has it now.
    pub fn is_cancelling(&self) -> bool {
        let view = self.view();
        let task = State::new(&*view).task(self.id());
        self.cancelled.is_cancelled() || task.is_some_and(|t| t.state == TaskState::Cancelling)
    }

    /// Has a command of this task committed, for as long as the right to act lasts. It must be one that may come twice, or
    /// carry an id by which the state knows it again. The inner error is the state's refusal.
    pub async fn propose(&self, proposal: Proposal) -> Result<Result<Outcome, Refusal>, Interrupted> {
        loop {
            self.fence.check()?;
            match self.ports.log.propose(proposal.clone()).await {
                Ok(committed) => match committed.outcome.accepted() {
                    Err(Refusal::StaleEpoch { given, .. }) => return Err(Lost { epoch: given }.into()),
                    answer => return Ok(answer),
                },
                Err(LogError::NoLeader(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// Has it remembered that something may exist which nobody knows by id. The same `id` is reported once.
    pub async fn leaked(&self, id: &str, what: String) -> Result<(), Interrupted> {
        let leak = Leak { id: EventId::default(), what, task: Some(self.id()), at: Timestamp::default() };
        let request_id = Some(RequestId::new(format!("t{}-leak-{id}", self.id())));
        self.propose(Proposal { request_id, ..Proposal::own(Command::LeakPut { leak }) }).await??;
        Ok(())
    }

    /// Has it remembered that the task leaves a blob to be fetched for some days, and then to be deleted.
    pub async fn leaves(&self, digest: &BlobDigest) -> Result<(), Interrupted> {
        if self.knows_second_level() {
            let (task, epoch) = (self.id(), self.fence.epoch());
            let put = Command::BundlePut { task, epoch, digest: digest.clone() };
            self.propose(Proposal::own(put)).await??;
        }
        Ok(())
    }

    /// Has it remembered that the task has stored blobs which nothing may name in the end.
    pub async fn may_leave(&self, digests: Vec<BlobDigest>) -> Result<(), Interrupted> {
        if self.knows_second_level() && !digests.is_empty() {
            let (task, epoch) = (self.id(), self.fence.epoch());
            self.propose(Proposal::own(Command::BlobsLeave { task, epoch, digests })).await??;
        }
        Ok(())
    }

    /// Adds a line to the task's debug output: when, on which replica, under which epoch, what.
    pub fn debug(&self, line: &str) {
        let format = time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let at = time::OffsetDateTime::now_utc().format(&format).unwrap_or_default();
        let (node, epoch) = (self.ports.options.node, self.fence.epoch());
        let text = format!("{at} replica {node} epoch {epoch}: {line}\n");
        self.ports.output.write(self.id(), OutputKind::Debug, &text);
    }

    /// Fails if the task was asked to stop: call it where stopping leaves nothing half done.
    pub fn checkpoint(&self) -> Result<(), StepError> {
        if self.cancelled.is_cancelled() { Err(StepError::Cancelled) } else { Ok(()) }
    }
}

/// How a step is gone about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// For the first time.
    Fresh,
    /// Again, after an earlier leader left it open.
    Again,
}

/// One step being done.
#[derive(Clone)]
pub struct StepContext {
    /// The task.
    pub task: TaskContext,
    /// Which step.
    pub step: StepNo,
    /// Which attempt.
    pub attempt: u32,
    /// For the first time, or again.
    pub how: How,
    /// Whether it belongs to a cleanup unit, which is not cancelled.
    pub cleanup: bool,
    /// Whether its unit goes on without it.
    pub on_failure: OnFailure,
}

impl StepContext {
    /// Returns the id under which an agent or cloud is asked, the same for every leader that asks for this attempt.
    pub fn request_id(&self, part: &str) -> model::RequestId {
        model::RequestId::new(format!("t{}-{}-{}-{part}", self.task.id(), self.step, self.attempt))
    }

    /// Fails if the task was asked to stop, unless the step cleans up.
    pub fn checkpoint(&self) -> Result<(), StepError> {
        if self.cleanup { Ok(()) } else { self.task.checkpoint() }
    }
}
