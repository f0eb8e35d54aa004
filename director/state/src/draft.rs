//! Cuts a plan into commands that each stay well under the limit of a log entry, and puts it together again.

use model::plan::Plan;
use model::{Epoch, TaskId};
use serde::Serialize;

use crate::codec::{self, DecodeError};
use crate::command::{Command, DraftPart, DraftUnit};

/// Aim for a part. Half of the log's limit for an entry, since one piece may go over it.
pub const PART_BYTES: usize = 512 * 1024;

/// Returns the commands that, proposed in order, commit `plan`: any number of `PlanDraft`, then one `PlanCommit`.
/// `draft` tells parts of different attempts apart; a new number for each.
pub fn cut(task: TaskId, epoch: Epoch, draft: u64, mut plan: Plan) -> Vec<Command> {
    let mut parts = Parts::default();
    if codec::encode(&plan).len() > PART_BYTES {
        for target in std::mem::take(&mut plan.targets) {
            parts.room_for(&target).targets.push(target);
        }
        for reservation in std::mem::take(&mut plan.reservations) {
            parts.room_for(&reservation).reservations.push(reservation);
        }
        for unit in take_units(&mut plan) {
            parts.room_for(&unit).units.push(unit);
        }
        // The manifest is in it twice, and the links of the whole deployment. It is cut anywhere.
        let record = plan.record.take().map(|record| codec::encode(&record)).unwrap_or_default();
        for piece in record.chunks(PART_BYTES) {
            parts.room_of(piece.len()).record.extend_from_slice(piece);
        }
    }
    let count = number(parts.done.len());
    let drafts = parts.done.into_iter().enumerate().map(|(part, content)| Command::PlanDraft {
        task,
        epoch,
        draft,
        part: number(part),
        content: Box::new(content),
    });
    drafts.chain([Command::PlanCommit { task, epoch, draft, parts: count, plan: Box::new(plan) }]).collect()
}

/// Why the parts of a draft give no plan.
#[derive(Debug)]
pub(crate) enum Misfit {
    /// A unit whose place does not exist.
    Unit(Box<DraftUnit>),
    /// The pieces of the deployment's record are not one.
    Record(DecodeError),
}

/// Puts the pieces of all parts, in their order, back into `plan`.
pub(crate) fn merge(mut plan: Plan, parts: Vec<DraftPart>) -> Result<Plan, Misfit> {
    let mut record = Vec::new();
    for part in parts {
        plan.targets.extend(part.targets);
        plan.reservations.extend(part.reservations);
        for piece in part.units {
            let phase = plan.phases.get_mut(piece.phase as usize);
            let stage = phase.and_then(|phase| phase.stages.get_mut(piece.stage as usize));
            match stage.and_then(|stage| stage.waves.get_mut(piece.wave as usize)) {
                Some(wave) => wave.units.push(piece.unit),
                None => return Err(Misfit::Unit(Box::new(piece))),
            }
        }
        record.extend(part.record);
    }
    if !record.is_empty() {
        plan.record = Some(codec::decode_piece("the record of a plan", &record).map_err(Misfit::Record)?);
    }
    Ok(plan)
}

#[derive(Default)]
struct Parts {
    done: Vec<DraftPart>,
    bytes: usize,
}

impl Parts {
    /// Returns the part that `piece` goes into: the last one, or a new one if that is full.
    fn room_for<T: Serialize>(&mut self, piece: &T) -> &mut DraftPart {
        self.room_of(codec::encode(piece).len())
    }

    fn room_of(&mut self, bytes: usize) -> &mut DraftPart {
        if self.done.is_empty() || self.bytes + bytes > PART_BYTES {
            self.done.push(DraftPart::default());
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.done.last_mut().expect("pushed above if there was none")
    }
}

fn take_units(plan: &mut Plan) -> Vec<DraftUnit> {
    let mut units = Vec::new();
    for (p, phase) in plan.phases.iter_mut().enumerate() {
        for (s, stage) in phase.stages.iter_mut().enumerate() {
            for (w, wave) in stage.waves.iter_mut().enumerate() {
                let (phase, stage, wave_no) = (number(p), number(s), number(w));
                let taken = std::mem::take(&mut wave.units).into_iter();
                units.extend(taken.map(|unit| DraftUnit { phase, stage, wave: wave_no, unit }));
            }
        }
    }
    units
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
