//! Certificates of BOSH's agents for their bus: which one an agent is given stands in the state before it is given, so that
//! whoever takes the step over offers none that ends at another time.

use model::AgentId;
use serde_json::Value;
use state::State;
use state::command::Command;
use state::log::Proposal;

use crate::context::StepContext;
use crate::error::StepError;

/// Whether a step gives an agent a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// The one that the state names.
    Made,
    /// What the agent has will do, or it is none of BOSH's.
    None,
}

/// Has it written down which certificate an agent is about to be given, if it is to be given one.
pub(super) async fn offer(cx: &StepContext, agent: &AgentId) -> Result<Offer, StepError> {
    if is_offered(cx, agent) {
        return Ok(Offer::Made);
    }
    // Members that are too old to know what is meant: the agent keeps what it has, or gets what nobody remembers.
    let due = cx.task.ports.enrollment.due(agent).filter(|_| cx.task.knows_third_level());
    let Some(certificate) = due else { return Ok(Offer::None) };
    let (task, epoch, step) = (cx.task.id(), cx.task.fence.epoch(), cx.step);
    let offer = Command::CertificateOffer { task, epoch, step, agent: agent.clone(), certificate };
    cx.propose(Proposal::own(offer)).await?;
    Ok(Offer::Made)
}

/// Returns whether this step has made an offer, under this leader or an earlier one.
fn is_offered(cx: &StepContext, agent: &AgentId) -> bool {
    let view = cx.task.view();
    let offered = State::new(&*view).agent(agent).and_then(|record| record.offered);
    offered.is_some_and(|offered| (offered.task, offered.step) == (cx.task.id(), cx.step))
}

/// Returns what settings tell an agent of its bus, if it is given a certificate; whatever it is told is all that it knows then.
pub(super) async fn settings(cx: &StepContext, agent: &AgentId) -> Result<Option<Value>, StepError> {
    if offer(cx, agent).await? == Offer::None {
        return Ok(None);
    }
    match cx.task.ports.enrollment.mbus(agent) {
        Some(mbus) => Ok(Some(mbus.to_settings())),
        // The offer stands: to go on would be to say that the agent has it.
        None => {
            Err(StepError::plain(format!("agent '{agent}' gets no certificate for NATS: the log says why")))
        }
    }
}
