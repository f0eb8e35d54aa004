//! Committing a plan: whole if it fits into an entry, else in parts that one small entry makes count.

use model::plan::Plan;
use rand::Rng as _;
use state::command::Refusal;
use state::log::Proposal;

use crate::context::TaskContext;
use crate::error::Interrupted;

/// Commits the plan. The inner error says that the world moved on: plan again.
pub async fn commit(context: &TaskContext, plan: Plan) -> Result<Result<(), Refusal>, Interrupted> {
    let draft: u64 = rand::rng().random();
    for command in state::draft::cut(context.id(), context.fence.epoch(), draft, plan) {
        context.fence.check()?;
        match context.ports.log.propose(Proposal::own(command)).await?.outcome.accepted() {
            Ok(_) => {}
            Err(refusal @ (Refusal::GenerationMoved { .. } | Refusal::AddressTaken { .. })) => {
                return Ok(Err(refusal));
            }
            // Asked to stop while it was being planned: the planner sees it before it begins anew.
            Err(refusal @ Refusal::TaskState { .. }) if context.is_cancelling() => return Ok(Err(refusal)),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(Ok(()))
}
