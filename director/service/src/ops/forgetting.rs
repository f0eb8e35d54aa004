//! Blobs that the leader has forgotten from time to time: what tasks left to be fetched, and what deletions left.
//!
//! The entries decide again ([decision 23](../../../../docs/decisions/0023-blobs-of-what-is-deleted-wait.md)). Old documents of DNS
//! records are [`clean_up`](super::clean_up)'s, which a person may have deleted, too.

use model::{BlobDigest, Timestamp};
use state::State;
use state::command::Command;

/// How long what tasks leave is kept to be fetched, as in BOSH: ten days.
const BUNDLES_KEPT_MS: i64 = 10 * 24 * 3600 * 1000;

/// As many are forgotten at once; those that are left over wait for the next time.
const FORGOTTEN_AT_A_TIME: usize = 1000;

/// How long blobs that deletions left are kept: whoever has seen by then that one is here, and does not upload it for that,
/// has filed what names it.
const BLOBS_KEPT_MS: i64 = 10 * 60 * 1000;

/// Returns the command that forgets what tasks left long ago, if there is any.
pub fn bundles_to_forget(state: &State<'_>, now: Timestamp) -> Option<Command> {
    let before = Timestamp(now.0 - BUNDLES_KEPT_MS);
    let old = state.bundles().filter(|(_, left_at)| *left_at <= before).map(|(digest, _)| digest);
    let digests: Vec<BlobDigest> = old.take(FORGOTTEN_AT_A_TIME).collect();
    (!digests.is_empty()).then_some(Command::BundlesForget { digests, before })
}

/// Returns the command that forgets the blobs that deletions left, if there are any that nobody can be about to name.
pub fn blobs_to_forget(state: &State<'_>, now: Timestamp) -> Option<Command> {
    let before = Timestamp(now.0 - BLOBS_KEPT_MS);
    let left = state.forgettable_blobs(before).into_iter();
    let digests: Vec<BlobDigest> = left.take(FORGOTTEN_AT_A_TIME).collect();
    (!digests.is_empty()).then_some(Command::BlobsForget { digests, before })
}
