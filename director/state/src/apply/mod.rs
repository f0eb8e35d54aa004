//! Applying entries (being built).
use model::Revision;

use crate::command::{Entry, Outcome, Refusal};
use crate::kv::Kv;
use crate::records::Change;

/// What an entry did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// What watchers see.
    pub changes: Vec<Change>,
}

/// Applies an entry.
pub fn apply<K: Kv>(_kv: &mut K, _revision: Revision, _entry: &Entry) -> Applied {
    Applied { outcome: Outcome::Refused(Refusal::UnknownCommand), changes: Vec::new() }
}

/// Applies an entry's bytes.
pub fn apply_bytes<K: Kv>(kv: &mut K, revision: Revision, bytes: &[u8]) -> (Vec<u8>, Vec<Change>) {
    match Entry::decode(bytes) {
        Ok(entry) => {
            let applied = apply(kv, revision, &entry);
            (applied.outcome.encode(), applied.changes)
        }
        Err(_) => (Outcome::Refused(Refusal::UnknownCommand).encode(), Vec::new()),
    }
}
