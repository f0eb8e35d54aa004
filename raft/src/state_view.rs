//! Reading the state as it was at one moment.

use std::sync::Arc;

use crate::state_db::{PinnedState, StateDb};

/// The order in which a scan returns keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Reverse,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The pairs of a scan; lazy.
pub type Scan<'a> = Box<dyn Iterator<Item = Pair> + 'a>;

/// A consistent view of the state: what was applied up to [`applied_index`](StateView::applied_index), and nothing later.
///
/// Clones share it. It stays valid while snapshots are installed, and holds disk space while it lives: take one
/// for each request, do not keep it. Reading touches the disk only for what is not cached; still, long scans belong on
/// a blocking thread. A database that cannot be read stops the replica (see [`Options::on_fatal`](crate::Options::on_fatal)),
/// which is why reads return no error.
#[derive(Clone)]
pub struct StateView {
    pinned: Arc<PinnedState>,
}

impl StateView {
    /// Takes a view of `db` now.
    pub(crate) fn take(db: &Arc<StateDb>) -> Self {
        Self { pinned: Arc::new(PinnedState::take(db.clone())) }
    }

    /// Returns the index of the last entry that this view contains; 0 if there is none.
    pub fn applied_index(&self) -> u64 {
        // From the snapshot, not from memory: data and position were written together and are seen together.
        self.pinned.applied().map_or(0, |id| id.index)
    }

    /// Returns the term in which that entry was proposed; 0 if there is none.
    pub fn applied_term(&self) -> u64 {
        self.pinned.applied().map_or(0, |id| **id.committed_leader_id())
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.pinned.get(key)
    }

    /// Returns the pairs with `start <= key < end` in `direction`; no `end` means all keys from `start`.
    pub fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Scan<'_> {
        self.pinned.scan(start, end, direction)
    }
}
