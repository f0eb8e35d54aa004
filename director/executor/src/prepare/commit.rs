//! Committing a plan: whole if it fits into an entry, else in parts that one small entry makes count.

use model::plan::{Plan, Target};
use rand::Rng as _;
use state::command::{Command, Refusal};
use state::log::Proposal;

use crate::context::TaskContext;
use crate::error::Interrupted;

/// Bytes of targets in one entry. Entries stay under 1 MiB; the rest of a plan needs room too.
const PART_BYTES_MAX: usize = 512 * 1024;

/// Commits the plan. The inner error says that the world moved on: plan again.
pub async fn commit(context: &TaskContext, mut plan: Plan) -> Result<Result<(), Refusal>, Interrupted> {
    let (task, epoch) = (context.id(), context.fence.epoch());
    let draft: u64 = rand::rng().random();
    let mut parts = 0;
    for targets in cut(std::mem::take(&mut plan.targets)) {
        context.fence.check()?;
        let part = Command::PlanDraft { task, epoch, draft, part: parts, targets };
        context.ports.log.propose(Proposal::own(part)).await?.outcome.accepted()?;
        parts += 1;
    }
    context.fence.check()?;
    let commit = Command::PlanCommit { task, epoch, draft, parts, plan: Box::new(plan) };
    match context.ports.log.propose(Proposal::own(commit)).await?.outcome.accepted() {
        Ok(_) => Ok(Ok(())),
        Err(refusal @ (Refusal::GenerationMoved { .. } | Refusal::AddressTaken { .. })) => Ok(Err(refusal)),
        Err(other) => Err(other.into()),
    }
}

/// Cuts targets into parts by their size.
fn cut(targets: Vec<Target>) -> Vec<Vec<Target>> {
    let mut parts: Vec<Vec<Target>> = Vec::new();
    let mut size = PART_BYTES_MAX;
    for target in targets {
        // JSON is a little larger than what the log writes: an upper bound is all that is needed.
        let bytes = serde_json::to_vec(&target).map_or(0, |text| text.len());
        if size + bytes > PART_BYTES_MAX {
            parts.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(target);
        }
    }
    parts
}
