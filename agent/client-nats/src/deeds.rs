//! What was asked of agents that do not remember it themselves.

use async_trait::async_trait;
use model::{AgentId, Epoch, RequestId};
use serde::{Deserialize, Serialize};

use crate::answer::Ending;

/// Which request, of which agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deed {
    /// The agent.
    pub agent: AgentId,
    /// The request.
    pub request: RequestId,
}

/// How far a request has come, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It was about to be asked. The agent may have got it or not.
    Asked,
    /// The agent has it, as this task of its own.
    Running {
        /// The agent's number for it, good until the agent restarts.
        agent_task: String,
    },
    /// It ended.
    Ended(Ending),
    /// The agent had it, was restarted, and knows nothing of it any more.
    Lost,
}

/// Why a deed can't be written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeedError {
    /// There is a later leader.
    #[error("the epoch is {current} by now")]
    Stale {
        /// Its epoch.
        current: Epoch,
    },
    /// No answer now; another try may help.
    #[error("what is asked of agents can't be written down now: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
}

/// The book of deeds: what the agents of BOSH would have to remember to keep the promises of [`agent_api::Agents`].
///
/// What it answers is agreed on by a majority of the directors, and stands before the answer comes; the next leader reads the
/// same. A call with an older epoch than it knows changes nothing. Rows may go when nobody can ask for them any more: with the
/// agent, or with the task that they are of.
#[async_trait]
pub trait Deeds: Send + Sync + 'static {
    /// Fails for a leader that is none any more. Asked before every look; may answer from memory.
    async fn admit(&self, epoch: Epoch) -> Result<(), DeedError>;

    /// Writes down that this is about to be asked, unless something is written about it; returns what was.
    async fn begin(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError>;

    /// Returns what is written about it.
    async fn find(&self, deed: &Deed, epoch: Epoch) -> Result<Option<Stage>, DeedError>;

    /// Writes down how far it has come; `None` strikes it out: it was certainly never asked. Changes nothing if it stands
    /// elsewhere than at `from` by now.
    async fn put(&self, deed: &Deed, epoch: Epoch, from: &Stage, to: Option<Stage>) -> Result<(), DeedError>;
}
