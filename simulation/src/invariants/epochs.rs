//! An epoch is one leader's, epochs only grow, and nothing is taken from an earlier one.

use std::collections::BTreeMap;

use model::{Epoch, NodeId, RequestId};
use state::command::{Command, Entry, Outcome};

use super::{Event, Invariant};

#[derive(Default)]
pub struct OneEpochPerLeader {
    leaders: BTreeMap<Epoch, NodeId>,
    /// What was answered before is answered so again, whatever the epoch.
    known: BTreeMap<RequestId, u64>,
    /// The epoch at each position, so that what is applied again is judged as it was then.
    at: BTreeMap<u64, Epoch>,
}

impl OneEpochPerLeader {
    fn current(&self, index: u64) -> Epoch {
        self.at.range(..index).next_back().map(|(_, epoch)| *epoch).unwrap_or_default()
    }
}

impl Invariant for OneEpochPerLeader {
    fn name(&self) -> &'static str {
        "one epoch per leader"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Applied { index, entry, answer, .. } = event else { return Ok(()) };
        let (Ok(entry), Ok(outcome)) = (Entry::decode(entry), Outcome::decode(answer)) else { return Ok(()) };
        if matches!(outcome, Outcome::Refused(_)) {
            return Ok(());
        }
        if let Some(id) = entry.request_id
            && *self.known.entry(id).or_insert(*index) < *index
        {
            return Ok(());
        }
        let current = self.current(*index);
        match entry.command {
            Command::LeaderBegin { node, epoch } => {
                if epoch < current {
                    return Err(format!("epoch {epoch} begins after epoch {current}"));
                }
                self.at.insert(*index, epoch);
                match self.leaders.insert(epoch, node) {
                    Some(other) if other != node => {
                        Err(format!("epoch {epoch} is of replica {other} and of replica {node}"))
                    }
                    _ => Ok(()),
                }
            }
            Command::StepRecords { epoch, task, .. } | Command::TaskFinish { epoch, task, .. }
                if epoch < current =>
            {
                Err(format!(
                    "at {index} a record of task {task} under epoch {epoch} was taken in epoch {current}"
                ))
            }
            _ => Ok(()),
        }
    }
}
