//! The newest part of the log, in memory.

use std::collections::BTreeMap;

use openraft::EntryPayload;

use crate::type_config::{Entry, LogId};

/// Entries are kept up to this many bytes...
const MAX_BYTES: usize = 32 << 20;
/// ... and this many of them.
const MAX_ENTRIES: usize = 16 << 10;
/// What an entry costs beside its content, roughly.
const OVERHEAD_BYTES: usize = 128;

/// The tail of the log: everything from [`first`](LogCache::first) on.
///
/// It makes an entry readable as soon as it was accepted, before the writer thread has stored it, and spares
/// replication and the state machine a read of what was just written. An entry leaves only after it was stored.
#[derive(Default)]
pub(crate) struct LogCache {
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    /// Entries up to this one are in the database.
    stored: Option<u64>,
}

impl LogCache {
    /// Returns the index from which on everything in the log is here.
    pub(crate) fn first(&self) -> u64 {
        self.entries.keys().next().copied().unwrap_or(u64::MAX)
    }

    /// Returns the id of the last entry, if it is here.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.log_id)
    }

    /// Adds `entries` to the end of the log.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.bytes += size(entry);
            if let Some(replaced) = self.entries.insert(entry.log_id.index, entry.clone()) {
                self.bytes -= size(&replaced);
            }
        }
        self.evict();
    }

    /// Returns the entries from `start` up to, without, `end`; at least one if there is one, and not more once
    /// `max_bytes` are reached.
    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        if start >= end {
            return entries;
        }
        let mut bytes = 0;
        for entry in self.entries.range(start..end).map(|(_, entry)| entry) {
            bytes += size(entry);
            entries.push(entry.clone());
            if bytes >= max_bytes {
                break;
            }
        }
        entries
    }

    /// Notes that the database has everything up to `index`.
    pub(crate) fn stored(&mut self, index: u64) {
        self.stored = Some(index);
        self.evict();
    }

    /// Forgets everything from `first` on.
    pub(crate) fn truncate(&mut self, first: u64) {
        let dropped = self.entries.split_off(&first);
        self.bytes -= dropped.values().map(size).sum::<usize>();
        self.stored = self.stored.filter(|stored| *stored < first).or(first.checked_sub(1));
    }

    /// Forgets everything up to `last`.
    pub(crate) fn purge(&mut self, last: u64) {
        let kept = self.entries.split_off(&(last + 1));
        self.bytes -= self.entries.values().map(size).sum::<usize>();
        self.entries = kept;
    }

    fn evict(&mut self) {
        while self.bytes > MAX_BYTES || self.entries.len() > MAX_ENTRIES {
            match self.entries.first_entry() {
                Some(oldest) if self.stored.is_some_and(|stored| *oldest.key() <= stored) => {
                    self.bytes -= size(&oldest.remove());
                }
                _ => return,
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(bytes) => bytes.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}
