//! What is known to have changed, by revision.

use std::collections::BTreeSet;

use super::{Change, Seen, Watcher};

/// All changes that anybody knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    changes: BTreeSet<Change>,
}

impl Reference {
    /// Returns the union of what these watchers saw.
    pub fn union_of(watchers: &[Watcher]) -> Self {
        let mut reference = Self::default();
        for seen in watchers.iter().flat_map(|watcher| &watcher.seen) {
            if let Seen::Message { changes, .. } = seen {
                reference.add(changes.iter().cloned());
            }
        }
        reference
    }

    /// Adds what is known from elsewhere, as from a full reading.
    pub fn add(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.changes.extend(changes);
    }

    /// Returns how many changes are known.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether none is known.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the changes after a revision, up to and with another.
    pub(super) fn between(&self, after: u64, to: u64) -> impl Iterator<Item = &Change> {
        let first = |revision: u64| Change { revision, what: String::new() };
        // A range that ends before it begins is a panic; a message that goes back is told elsewhere.
        let from = after.saturating_add(1);
        self.changes.range(first(from)..).take_while(move |change| change.revision <= to)
    }
}
