//! The state machine under Raft: bytes in, the state's answer out. `apply` itself is silent; outcomes are logged here.

use std::time::Instant;

use model::Revision;
use raft::{Application, StateBatch, StateView};
use state::command::Outcome;
use state::kv::{Direction, Kv, KvRead, Pair, Span};
use tracing::{debug, trace};

use crate::metrics;

/// The application that the log drives.
pub struct Fsm {
    /// Revisions whose changes are kept for watchers: the same on every replica.
    pub changes_kept: u64,
}

impl Default for Fsm {
    fn default() -> Self {
        Self { changes_kept: state::CHANGES_KEPT }
    }
}

impl Application for Fsm {
    fn apply(&self, store: &mut StateBatch<'_>, index: u64, term: u64, entry: &[u8]) -> Vec<u8> {
        let begun = Instant::now();
        let (answer, changes) =
            state::apply_bytes(&mut Batch(store), Revision(index), entry, self.changes_kept);
        metrics::applied(begun.elapsed());
        if tracing::enabled!(tracing::Level::DEBUG) {
            match Outcome::decode(&answer) {
                Ok(Outcome::Refused(refusal)) => debug!(index, term, %refusal, "refused"),
                _ => trace!(index, term, changes = changes.len(), "applied"),
            }
        }
        answer
    }
}

fn direction(direction: Direction) -> raft::Direction {
    match direction {
        Direction::Forward => raft::Direction::Forward,
        Direction::Reverse => raft::Direction::Reverse,
    }
}

struct Batch<'a, 'b>(&'a mut StateBatch<'b>);

impl KvRead for Batch<'_, '_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn scan(&self, span: Span, order: Direction) -> Box<dyn Iterator<Item = Pair> + '_> {
        self.0.scan(&span.start, span.end.as_deref(), direction(order))
    }
}

impl Kv for Batch<'_, '_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }
}

/// A consistent look at a replica's state.
pub struct Look(pub StateView);

impl KvRead for Look {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn scan(&self, span: Span, order: Direction) -> Box<dyn Iterator<Item = Pair> + '_> {
        self.0.scan(&span.start, span.end.as_deref(), direction(order))
    }
}
