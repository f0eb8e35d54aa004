//! The book of deeds in the replicated state. Only leaders write in it, each under its own epoch: what its predecessors have
//! written is in its state before it begins, so that it reads there.

use agent_client_nats::{Deed, DeedError, Deeds, Ending, Stage};
use async_trait::async_trait;
use model::Epoch;
use state::State;
use state::command::{Command, Refusal};
use state::log::{CommandLog as _, Proposal};
use state::records::AskedStage;

use crate::fleet::log::RaftLog;

/// Longest text of an ending that is kept; BOSH's agents have short results, but for what an errand prints. Of what is longer,
/// the number stays written that the agent has given it: it is asked again, as long as the agent knows.
pub(super) const ENDING_BYTES_MAX: usize = 16 << 10;

/// The book.
pub struct Book(pub RaftLog);

impl Book {
    fn known(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError> {
        let view = self.0.view();
        let state = State::new(&*view);
        let current = state.epoch();
        if epoch < current {
            return Err(DeedError::Stale { current });
        }
        if epoch > current {
            return Err(DeedError::Unavailable { reason: format!("epoch {epoch} has not come here yet") });
        }
        Ok(state.asked_of_agent(&deed.agent, &deed.request).map(|asked| stage_of(asked.stage)))
    }

    async fn write(
        &self,
        deed: &Deed,
        epoch: Epoch,
        from: Option<&Stage>,
        to: Option<Stage>,
    ) -> Result<(), DeedError> {
        let command = Command::AgentAsked {
            epoch,
            agent: deed.agent.clone(),
            request: deed.request.clone(),
            from: from.cloned().map(asked_of),
            to: to.map(asked_of),
        };
        let unavailable = |reason: String| DeedError::Unavailable { reason };
        let committed = self.0.propose(Proposal::own(command)).await;
        match committed.map_err(|error| unavailable(error.to_string()))?.outcome.accepted() {
            Ok(_) => Ok(()),
            Err(Refusal::StaleEpoch { current, .. }) => Err(DeedError::Stale { current }),
            Err(refusal) => Err(unavailable(refusal.to_string())),
        }
    }
}

#[async_trait]
impl Deeds for Book {
    async fn admit(&self, epoch: Epoch) -> Result<(), DeedError> {
        let view = self.0.view();
        let current = State::new(&*view).epoch();
        if epoch < current { Err(DeedError::Stale { current }) } else { Ok(()) }
    }

    async fn begin(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError> {
        let known = self.known(deed, epoch)?;
        if known.is_none() {
            self.write(deed, epoch, None, Some(Stage::Asked)).await?;
        }
        Ok(known)
    }

    async fn find(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError> {
        self.known(deed, epoch)
    }

    async fn put(&self, deed: &Deed, epoch: Epoch, from: &Stage, to: Option<Stage>) -> Result<(), DeedError> {
        let is_long = match &to {
            Some(Stage::Ended(Ending::Done(text) | Ending::Failed(text))) => text.len() > ENDING_BYTES_MAX,
            _ => false,
        };
        if is_long && matches!(from, Stage::Running { .. }) {
            return Ok(());
        }
        self.write(deed, epoch, Some(from), to).await
    }
}

fn stage_of(asked: AskedStage) -> Stage {
    match asked {
        AskedStage::Asked => Stage::Asked,
        AskedStage::Running { agent_task } => Stage::Running { agent_task },
        AskedStage::Done { json } => Stage::Ended(Ending::Done(json)),
        AskedStage::Failed { words } => Stage::Ended(Ending::Failed(words)),
        AskedStage::UnknownMethod => Stage::Ended(Ending::UnknownMethod),
        AskedStage::Lost => Stage::Lost,
    }
}

fn asked_of(stage: Stage) -> AskedStage {
    match stage {
        Stage::Asked => AskedStage::Asked,
        Stage::Running { agent_task } => AskedStage::Running { agent_task },
        Stage::Ended(Ending::Done(json)) => AskedStage::Done { json },
        Stage::Ended(Ending::Failed(words)) => AskedStage::Failed { words },
        Stage::Ended(Ending::UnknownMethod) => AskedStage::UnknownMethod,
        Stage::Lost => AskedStage::Lost,
    }
}
