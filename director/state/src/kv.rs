//! The ordered key-value store that the tables live in: a `BTreeMap` in tests, RocksDB in `directord`.
//!
//! Reads are infallible here on purpose: a store that can't read its own pages has no answer that `apply` could turn
//! into an outcome that all replicas share. Such an implementation stops its process instead.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Which end a scan starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Reverse,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Keys from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// First key.
    pub start: Vec<u8>,
    /// First key after it; `None` reaches to the end of the store.
    pub end: Option<Vec<u8>>,
}

impl Span {
    /// Returns the span of all keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: successor(prefix) }
    }
}

/// Returns the first key after all that begin with `prefix`.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Reading.
pub trait KvRead {
    /// Returns the value of `key`.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Returns the pairs of `span` in order. Lazy: a caller that stops early pays for what it took.
    fn scan(&self, span: Span, direction: Direction) -> Box<dyn Iterator<Item = Pair> + '_>;
}

/// Reading and writing. A write is seen by the reads after it.
pub trait Kv: KvRead {
    /// Sets `key` to `value`.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);
    /// Removes `key`; an absent one is fine.
    fn delete(&mut self, key: &[u8]);
}

/// A store in memory, for tests and for looking into backups. A clone costs nothing before one of the two is written to: that
/// is what a view of a state is, of which a test takes thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryKv {
    pairs: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryKv {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl KvRead for MemoryKv {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.pairs.get(key).cloned()
    }

    fn scan(&self, span: Span, direction: Direction) -> Box<dyn Iterator<Item = Pair> + '_> {
        if span.end.as_ref().is_some_and(|end| *end <= span.start) {
            return Box::new(std::iter::empty());
        }
        let end = span.end.map_or(Bound::Unbounded, Bound::Excluded);
        let pairs = self.pairs.range((Bound::Included(span.start), end)).map(|(k, v)| (k.clone(), v.clone()));
        match direction {
            Direction::Forward => Box::new(pairs),
            Direction::Reverse => Box::new(pairs.rev()),
        }
    }
}

impl Kv for MemoryKv {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        Arc::make_mut(&mut self.pairs).insert(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        Arc::make_mut(&mut self.pairs).remove(key);
    }
}
