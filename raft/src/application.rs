//! The seam to the owner: what is replicated, as bytes.

use crate::StateBatch;

/// The replicated state machine that the owner supplies.
///
/// Implementers promise that [`apply`](Application::apply) is deterministic (the same entries in the same order give
/// the same state on every replica: no clock, no randomness, no I/O) and total (a refusal is an answer, not a panic).
/// It runs on a blocking thread, one entry after the other.
pub trait Application: Send + Sync + 'static {
    /// Applies one committed entry to the store and returns the answer for whoever proposed it.
    ///
    /// `term` is the term in which the entry was proposed, `index` its position in the log. The same entry may be
    /// committed twice when a proposer retried after an unknown outcome; telling them apart (by a request id within
    /// `entry`) is the application's business.
    fn apply(&self, store: &mut StateBatch<'_>, index: u64, term: u64, entry: &[u8]) -> Vec<u8>;

    /// Called after a batch was written, and after a snapshot was installed, with the last applied index.
    ///
    /// Meant for waking watchers; it must not block.
    fn applied(&self, _last_index: u64) {}
}
