//! The store as one batch of entries sees it while it is applied.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use crate::hot_rows::HotRows;
use crate::state_db::StateDb;
use crate::{Direction, Pair, Scan};

/// The store, with the writes of the entries applied so far laid over the database.
///
/// Everything in it is written at once, together with the position in the log, after the last entry of the batch.
pub struct StateBatch<'a> {
    db: &'a StateDb,
    hot: RefCell<&'a mut HotRows>,
    overlay: Writes,
}

/// Keys with their new value; `None` marks a deleted one.
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl<'a> StateBatch<'a> {
    pub(crate) fn new(db: &'a StateDb, hot: &'a mut HotRows) -> Self {
        Self { db, hot: RefCell::new(hot), overlay: BTreeMap::new() }
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.overlay.get(key) {
            Some(written) => written.clone(),
            None => self.hot.borrow_mut().get(key, || self.db.get(key)),
        }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.overlay.insert(key, Some(value));
    }

    /// Removes `key`; an absent one is fine.
    pub fn delete(&mut self, key: &[u8]) {
        self.overlay.insert(key.to_vec(), None);
    }

    /// Returns the pairs with `start <= key < end` in `direction`; no `end` means all keys from `start`.
    pub fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Scan<'_> {
        if end.is_some_and(|end| end <= start) {
            return Box::new(std::iter::empty());
        }
        let stored = self.db.scan(start, end, direction);
        let range = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let written = self.overlay.range::<[u8], _>(range);
        match direction {
            Direction::Forward => Box::new(Merge::new(written, stored, direction)),
            Direction::Reverse => Box::new(Merge::new(written.rev(), stored, direction)),
        }
    }

    /// Returns what was written, in key order.
    pub(crate) fn into_writes(self) -> Writes {
        self.overlay
    }
}

/// Two ordered sequences as one; what was written hides what is stored.
struct Merge<'o, W, S>
where
    W: Iterator<Item = (&'o Vec<u8>, &'o Option<Vec<u8>>)>,
    S: Iterator<Item = Pair>,
{
    written: Peekable<W>,
    stored: Peekable<S>,
    direction: Direction,
}

impl<'o, W, S> Merge<'o, W, S>
where
    W: Iterator<Item = (&'o Vec<u8>, &'o Option<Vec<u8>>)>,
    S: Iterator<Item = Pair>,
{
    fn new(written: W, stored: S, direction: Direction) -> Self {
        Self { written: written.peekable(), stored: stored.peekable(), direction }
    }
}

impl<'o, W, S> Iterator for Merge<'o, W, S>
where
    W: Iterator<Item = (&'o Vec<u8>, &'o Option<Vec<u8>>)>,
    S: Iterator<Item = Pair>,
{
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let order = match (self.written.peek(), self.stored.peek()) {
                (None, _) => return self.stored.next(),
                (Some(_), None) => Ordering::Less,
                (Some((written, _)), Some((stored, _))) => match self.direction {
                    Direction::Forward => written.as_slice().cmp(stored),
                    Direction::Reverse => stored.as_slice().cmp(written),
                },
            };
            if order == Ordering::Greater {
                return self.stored.next();
            }
            if order == Ordering::Equal {
                self.stored.next();
            }
            if let Some((key, Some(value))) = self.written.next() {
                return Some((key.clone(), value.clone()));
            }
        }
    }
}
