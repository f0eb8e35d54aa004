//! Each deed in the cloud is one step's, is announced before it is done, and is never asked for under an epoch that is over.
//! What may be there already is looked for before it is asked for again.

use std::collections::{BTreeMap, BTreeSet};

use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CallContext};
use model::{Epoch, RequestId, StepNo, TaskId, UnitNo};
use state::command::{Command, Entry, StepEvent};

use super::{Event, Invariant};

#[derive(Default)]
pub struct EachDeedOnce {
    /// Steps whose beginning was committed.
    begun: BTreeSet<(TaskId, StepNo)>,
    /// The newest epoch that did anything.
    newest: Epoch,
    /// What the last search found under each id that something was asked for under, if there was one since then.
    asked: BTreeMap<String, Option<Seen>>,
}

/// What a search saw.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Something,
}

/// Reads task and step out of a request's id (`t7-3.2-1-create-vm`).
fn place(request: &RequestId) -> Option<(TaskId, StepNo)> {
    let mut parts = request.as_str().split('-');
    let task = parts.next()?.strip_prefix('t')?.parse().ok()?;
    let (unit, index) = parts.next()?.split_once('.')?;
    Some((TaskId(task), StepNo { unit: UnitNo(unit.parse().ok()?), index: index.parse().ok()? }))
}

impl EachDeedOnce {
    /// Somebody is about to ask the cloud for something.
    fn asks(&mut self, what: &str) -> Result<(), String> {
        if !what.starts_with("create_vm ") && !what.starts_with("create_disk ") {
            return Ok(());
        }
        match self.asked.insert(what.to_owned(), None) {
            None | Some(Some(Seen::Nothing)) => Ok(()),
            Some(None) => Err(format!("{what} is asked for again without a look whether it is there")),
            Some(Some(Seen::Something)) => Err(format!("{what} is asked for though it is there")),
        }
    }

    /// A search is carried out, or something that was found is deleted.
    fn looked(&mut self, cloud: &MemoryCloud, context: &CallContext, call: &Call) {
        if context.epoch < cloud.epoch {
            return;
        }
        let (what, is_there) = match call {
            Call::FindVm(agent) => {
                let is_there = cloud.vms.values().any(|vm| vm.request.agent_id == *agent);
                (format!("create_vm {agent}"), is_there)
            }
            Call::FindDisk(id) => {
                let is_there = cloud.disks.values().any(|disk| disk.request.disk_id == *id);
                (format!("create_disk {id}"), is_there)
            }
            // Whoever finds several, and can't tell which is whose, deletes them and begins anew.
            Call::DeleteVm(cid) => match cloud.vms.get(cid) {
                Some(vm) => (format!("create_vm {}", vm.request.agent_id), false),
                None => return,
            },
            Call::DeleteDisk(cid) => match cloud.disks.get(cid) {
                Some(disk) => (format!("create_disk {}", disk.request.disk_id), false),
                None => return,
            },
            _ => return,
        };
        if let Some(seen) = self.asked.get_mut(&what) {
            *seen = Some(if is_there { Seen::Something } else { Seen::Nothing });
        }
    }

    /// Whoever was told that nothing was done need not look.
    fn refused(&mut self, call: &Call) {
        let what = format!("{} {}", call.method(), call.object());
        if let Some(seen) = self.asked.get_mut(&what) {
            seen.get_or_insert(Seen::Nothing);
        }
    }

    /// Something is about to be done in the cloud.
    fn does(&mut self, context: &CallContext, call: &Call) -> Result<(), String> {
        let is_judged = matches!(
            call,
            Call::CreateVm(_)
                | Call::CreateDisk(_)
                | Call::DeleteVm(_)
                | Call::DeleteDisk(_)
                | Call::AttachDisk(..)
                | Call::DetachDisk(..)
                | Call::SnapshotDisk(_)
                | Call::DeleteSnapshot(_)
        );
        // The cloud refuses what is of an older epoch; a cloud that can't compare would not.
        if !is_judged || context.epoch < self.newest {
            return Ok(());
        }
        self.newest = context.epoch;
        match place(&context.request_id) {
            Some(step) if !self.begun.contains(&step) => Err(format!(
                "{} {} is asked for by {} before its beginning is committed",
                call.method(),
                call.object(),
                context.request_id
            )),
            _ => Ok(()),
        }
    }
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
            Event::Asked { what, .. } => self.asks(what),
            Event::Deed { cloud, context: Some(context), call } => {
                self.looked(cloud, context, call);
                self.does(context, call)
            }
            Event::Refused { call } => {
                self.refused(call);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
