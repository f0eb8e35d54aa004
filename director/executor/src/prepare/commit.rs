//! Committing a plan: whole if it fits into an entry, else in parts that one small entry makes count.

use model::plan::Plan;
use model::step::Action;
use model::task::TaskError;
use rand::Rng as _;
use state::command::Refusal;
use state::log::{LogError, Proposal};

use crate::context::TaskContext;
use crate::error::Interrupted;

/// Why a plan does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotCommitted {
    /// The world moved on: plan again.
    Overtaken(Refusal),
    /// A piece of it is larger than an entry may be, and would be the next time.
    TooLarge(TaskError),
}

/// Commits the plan.
pub async fn commit(context: &TaskContext, mut plan: Plan) -> Result<Result<(), NotCommitted>, Interrupted> {
    if !context.knows_second_level() {
        forgo_second_level(&mut plan);
    }
    let draft: u64 = rand::rng().random();
    for command in state::draft::cut(context.id(), context.fence.epoch(), draft, plan) {
        context.fence.check()?;
        let committed = match context.ports.log.propose(Proposal::own(command)).await {
            Err(LogError::TooLarge { bytes, max }) => {
                let text = format!(
                    "the plan can't be recorded: a single piece of it, such as the description of one instance with its \
                     properties and links, has {bytes} bytes, and {max} are allowed"
                );
                return Ok(Err(NotCommitted::TooLarge(TaskError::plain(text))));
            }
            answer => answer?,
        };
        match committed.outcome.accepted() {
            Ok(_) => {}
            Err(refusal @ (Refusal::GenerationMoved { .. } | Refusal::AddressTaken { .. })) => {
                return Ok(Err(NotCommitted::Overtaken(refusal)));
            }
            // Asked to stop while it was being planned: the planner sees it before it begins anew.
            Err(refusal @ Refusal::TaskState { .. }) if context.is_cancelling() => {
                return Ok(Err(NotCommitted::Overtaken(refusal)));
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(Ok(()))
}

/// Takes out what a plan can do without until the last member knows it: numbers in DNS names and of links, and that
/// errands are remembered.
fn forgo_second_level(plan: &mut Plan) {
    plan.dns_subjects.clear();
    if let Some(record) = &mut plan.record {
        record.planned_links = None;
    }
    for unit in plan.units_mut() {
        unit.steps.retain(|step| !matches!(step.action, Action::SaveErrand { .. }));
    }
}
