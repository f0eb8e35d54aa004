//! What was committed is in the log of every later leader, unless that leader has it in its snapshot already.

use std::collections::BTreeMap;

use super::{Event, Invariant, LogChange};

#[derive(Default)]
pub struct CommittedIsKept {
    /// Terms by position, of what anybody applied: that was committed.
    committed: BTreeMap<u64, u64>,
    /// The terms in each log.
    logs: BTreeMap<u64, BTreeMap<u64, u64>>,
    /// What each leader was found to have.
    checked: BTreeMap<u64, u64>,
}

impl CommittedIsKept {
    fn check(&self, replica: u64, term: u64) -> Result<(), String> {
        let Some(log) = self.logs.get(&replica) else { return Ok(()) };
        // What is before the first entry was purged, and is in the state.
        let Some(first) = log.keys().next() else { return Ok(()) };
        let missing = self.committed.range(first..).find(|(index, of)| log.get(index) != Some(of));
        match missing {
            // It may have been committed under a later leader than this one.
            Some((index, of)) if *of < term => Err(format!(
                "replica {replica} leads term {term} without the committed entry {index} of term {of}"
            )),
            _ => Ok(()),
        }
    }
}

impl Invariant for CommittedIsKept {
    fn name(&self) -> &'static str {
        "committed is kept"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Applied { index, term, .. } => {
                self.committed.insert(*index, *term);
            }
            Event::LogWritten { replica, rows } => {
                let log = self.logs.entry(*replica).or_default();
                for change in *rows {
                    match change {
                        LogChange::Put(row) => drop(log.insert(row.index, row.term)),
                        LogChange::Remove(from, to) => log.retain(|index, _| index < from || index >= to),
                    }
                }
            }
            Event::LogFound { replica, rows } => {
                self.logs.insert(*replica, rows.iter().map(|row| (row.index, row.term)).collect());
            }
            Event::Leads { replica, term } => {
                let is_new = self.checked.insert(*term, *replica).is_none();
                // One that was replaced before it knew that it had been elected can do nothing any more.
                let is_latest = self.checked.range(term + 1..).next().is_none();
                if is_new && is_latest {
                    return self.check(*replica, *term);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
