//! Deleting this replica's copies of blobs that the state does not know: of what was forgotten, and of what a director that
//! failed had stored and not told anybody of.
//!
//! Invariant: no copy is deleted that the state knows of. A blob is stored before it is known, so only old copies are looked
//! at, and only after a read that has seen everything that was told until then.

use std::collections::BTreeSet;
use std::time::Duration;

use model::BlobDigest;
use release::Blobstore as _;
use state::State;
use state::log::CommandLog as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::blobs::FleetBlobs;

/// Pause between two rounds. What was forgotten is in nobody's way but for its room.
const REST: Duration = Duration::from_secs(3600);

/// A copy that is younger may be about to be told of: uploads that take longer than this are none.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// Looks for the life of the process.
pub async fn forget(blobs: FleetBlobs, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            deleted = round(&blobs, OLD) => if deleted > 0 {
                info!(deleted, "copies of blobs that nobody knows any more were deleted");
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Deletes what is `old` and not known; returns how many there were.
async fn round(blobs: &FleetBlobs, old: Duration) -> usize {
    let local = blobs.local();
    let found = match local.older_than(old).await {
        Ok(found) => found,
        Err(error) => {
            warn!(error = %error, "the blobs' folder could not be listed");
            return 0;
        }
    };
    // Whoever can't learn what there is deletes nothing.
    let Some(unknown) = unknown(blobs, found).await else { return 0 };
    let mut deleted = 0;
    for digest in unknown {
        // It may have been stored again since.
        if !local.is_older_than(&digest, old).await.unwrap_or_default() {
            continue;
        }
        match local.delete(&digest).await {
            Ok(()) => deleted += 1,
            Err(error) => warn!(blob = %digest, error = %error, "a copy could not be deleted"),
        }
    }
    deleted
}

async fn unknown(blobs: &FleetBlobs, found: Vec<BlobDigest>) -> Option<BTreeSet<BlobDigest>> {
    if found.is_empty() {
        return None;
    }
    blobs.log().read_barrier().await.ok()?;
    let (id, view) = (blobs.id(), blobs.log().view());
    let read = move || {
        let state = State::new(&*view);
        // One that was removed has no say in what there is.
        state.member(id)?;
        Some(found.into_iter().filter(|digest| state.blob(digest).is_none()).collect())
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

#[cfg(test)]
mod tests {
    use state::command::Command;

    use super::*;
    use crate::test_support::replica::Replica;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_nobody_knows_any_more_is_deleted_once_it_is_old() {
        let replica = Replica::start().await;
        let blobs = &replica.door.blobs;
        let kept = blobs.put(&mut &b"known"[..]).await.unwrap().digest;
        let forgotten = blobs.put(&mut &b"forgotten"[..]).await.unwrap().digest;
        // As a director leaves it that fails before it tells.
        let untold = blobs.local().put(&mut &b"untold"[..]).await.unwrap().digest;
        replica.must(Command::BlobForget { digest: forgotten.clone() }).await;
        assert_eq!(round(blobs, OLD).await, 0, "they are new");
        assert_eq!(round(blobs, Duration::ZERO).await, 2);
        let local = blobs.local();
        assert!(local.has(&kept).await.unwrap());
        assert!(!local.has(&forgotten).await.unwrap() && !local.has(&untold).await.unwrap());
        let member = crate::test_support::state::member(2);
        let member = state::records::Member { peer_address: "127.0.0.1:1".into(), ..member };
        replica.must(Command::MemberPut { member }).await;
        replica.must(Command::MemberRemove { node: blobs.id() }).await;
        replica.must(Command::BlobForget { digest: kept.clone() }).await;
        assert_eq!(round(blobs, Duration::ZERO).await, 0, "it is no member");
        assert!(local.has(&kept).await.unwrap());
        replica.stop().await;
    }
}
