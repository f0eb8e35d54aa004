//! Each deed in the cloud is one step's, is announced before it is done, and is never asked for under an epoch that is over.

use std::collections::BTreeSet;

use cpi_api::Call;
use model::{Epoch, RequestId, StepNo, TaskId, UnitNo};
use state::command::{Command, Entry, StepEvent};

use super::{Event, Invariant};

#[derive(Default)]
pub struct EachDeedOnce {
    /// Steps whose beginning was committed.
    begun: BTreeSet<(TaskId, StepNo)>,
    /// The newest epoch that did anything.
    newest: Epoch,
}

/// Reads task and step out of a request's id (`t7-3.2-1-create-vm`).
fn place(request: &RequestId) -> Option<(TaskId, StepNo)> {
    let mut parts = request.as_str().split('-');
    let task = parts.next()?.strip_prefix('t')?.parse().ok()?;
    let (unit, index) = parts.next()?.split_once('.')?;
    Some((TaskId(task), StepNo { unit: UnitNo(unit.parse().ok()?), index: index.parse().ok()? }))
}

impl Invariant for EachDeedOnce {
    fn name(&self) -> &'static str {
        "each deed once"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Applied { entry, .. } => {
                let Ok(Entry { command: Command::StepRecords { task, records, .. }, .. }) =
                    Entry::decode(entry)
                else {
                    return Ok(());
                };
                let begun = records.iter().filter(|record| matches!(record.event, StepEvent::Started));
                self.begun.extend(begun.map(|record| (task, record.step)));
                Ok(())
            }
            Event::Deed { cloud, context: Some(context), call } => {
                let what = format!("{} {}", call.method(), call.object());
                let exists = match call {
                    Call::CreateVm(request) => {
                        cloud.vms.values().any(|vm| vm.request.agent_id == request.agent_id)
                    }
                    Call::CreateDisk(request) => {
                        cloud.disks.values().any(|disk| disk.request.disk_id == request.disk_id)
                    }
                    Call::DeleteVm(_) | Call::DeleteDisk(_) | Call::AttachDisk(..) | Call::DetachDisk(..) => {
                        false
                    }
                    _ => return Ok(()),
                };
                // The cloud refuses these; a cloud that can't compare would not.
                if context.epoch < self.newest {
                    return Ok(());
                }
                self.newest = context.epoch;
                if exists {
                    return Err(format!(
                        "{what} is asked for though it is there: a cloud could make a second one"
                    ));
                }
                if let Some(step) = place(&context.request_id)
                    && !self.begun.contains(&step)
                {
                    return Err(format!(
                        "{what} is asked for by {} before its beginning is committed",
                        context.request_id
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
