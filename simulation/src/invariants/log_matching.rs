//! Where two logs have an entry of the same position and term, they have the same entries up to there.

use std::collections::BTreeMap;

use bytes_of::digest;
use raft::LogRow;

use super::{Event, Invariant, LogChange};

/// An entry, and the term of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    content: u64,
    before: Option<u64>,
}

#[derive(Default)]
pub struct LogMatching {
    /// By position and term: the first that anybody wrote there.
    seen: BTreeMap<(u64, u64), Seen>,
    /// The terms in each log.
    logs: BTreeMap<u64, BTreeMap<u64, u64>>,
}

impl LogMatching {
    fn put(&mut self, replica: u64, row: &LogRow) -> Result<(), String> {
        let log = self.logs.entry(replica).or_default();
        log.insert(row.index, row.term);
        let before = row.index.checked_sub(1).and_then(|before| log.get(&before)).copied();
        let now = Seen { content: digest(row.content.as_deref()), before };
        let known = self.seen.entry((row.index, row.term)).or_insert(now);
        // What was cut off behind a snapshot is not known to differ.
        let same_before = known.before.is_none() || before.is_none() || known.before == before;
        known.before = known.before.or(before);
        if known.content != now.content || !same_before {
            let (index, term) = (row.index, row.term);
            return Err(format!(
                "replica {replica} has another entry {index} of term {term}: {known:?}, {now:?}"
            ));
        }
        Ok(())
    }
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::LogWritten { replica, rows } => rows.iter().try_for_each(|change| match change {
                LogChange::Put(row) => self.put(*replica, row),
                LogChange::Remove(from, to) => {
                    let log = self.logs.entry(*replica).or_default();
                    log.retain(|index, _| index < from || index >= to);
                    Ok(())
                }
            }),
            Event::LogFound { replica, rows } => {
                self.logs.insert(*replica, BTreeMap::new());
                rows.iter().try_for_each(|row| self.put(*replica, row))
            }
            _ => Ok(()),
        }
    }
}

/// Digests that are the same in every run.
pub mod bytes_of {
    /// Returns a number for some bytes; another one for none.
    pub fn digest(bytes: Option<&[u8]>) -> u64 {
        let Some(bytes) = bytes else { return 1 };
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}
