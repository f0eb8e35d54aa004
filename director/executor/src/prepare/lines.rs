//! Lines of progress that come before there is a plan.

use model::task::TaskError;
use state::State;
use state::command::{Command, PrepareLine};
use state::log::Proposal;
use state::records::LineState;

use super::Prepared;
use crate::context::TaskContext;
use crate::error::{Interrupted, recordable};

/// Writes lines; the state drops those that an earlier leader has already written.
pub struct Lines<'a> {
    context: &'a TaskContext,
    /// Parts of each stage.
    total: u32,
}

impl<'a> Lines<'a> {
    /// Returns the writer for a task whose stages have one part each.
    pub fn new(context: &'a TaskContext) -> Self {
        Self::of(context, 1)
    }

    /// Returns the writer for a task, for stages of so many parts.
    pub fn of(context: &'a TaskContext, total: u32) -> Self {
        Self { context, total }
    }

    /// Tells of a part that took no time, or whose time nobody knows.
    pub async fn done(&self, stage: &str, task: &str, index: u32) -> Result<(), Interrupted> {
        self.started(stage, task, index).await?;
        self.finished(stage, task, index).await
    }

    /// Returns how far this task, under whichever leader, was seen to get with a part.
    pub fn seen(&self, stage: &str, task: &str) -> Option<LineState> {
        let view = self.context.view();
        let state = State::new(&*view);
        let has = |line| state.has_line(self.context.id(), stage, task, line);
        [LineState::Finished, LineState::Failed, LineState::Started].into_iter().find(|line| has(*line))
    }

    /// A part of the preparation begins.
    pub async fn started(&self, stage: &str, task: &str, index: u32) -> Result<(), Interrupted> {
        self.write(stage, task, index, LineState::Started, None).await
    }

    /// It has ended well.
    pub async fn finished(&self, stage: &str, task: &str, index: u32) -> Result<(), Interrupted> {
        self.write(stage, task, index, LineState::Finished, None).await
    }

    /// It has failed; passes the error on.
    pub async fn failed(
        &self,
        stage: &str,
        task: &str,
        index: u32,
        error: TaskError,
    ) -> Result<Result<Prepared, TaskError>, Interrupted> {
        self.ended_badly(stage, task, index, &error).await?;
        Ok(Err(error))
    }

    /// It has failed.
    pub async fn ended_badly(
        &self,
        stage: &str,
        task: &str,
        index: u32,
        error: &TaskError,
    ) -> Result<(), Interrupted> {
        let error = recordable(error.clone()).message;
        self.write(stage, task, index, LineState::Failed, Some(error)).await
    }

    async fn write(
        &self,
        stage: &str,
        task: &str,
        index: u32,
        state: LineState,
        error: Option<String>,
    ) -> Result<(), Interrupted> {
        let line =
            PrepareLine { stage: stage.into(), task: task.into(), total: self.total, index, state, error };
        let (task, epoch) = (self.context.id(), self.context.fence.epoch());
        let proposal = Proposal::own(Command::TaskLine { task, epoch, line });
        self.context.propose(proposal).await??;
        Ok(())
    }
}
