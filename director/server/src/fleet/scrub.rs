//! Reading every copy of a blob, and every row of the state, from time to time, so that damage is found while other replicas still have sound ones. The
//! store removes what is damaged, and the healer fetches what is missing.

use std::time::Duration;

use model::BlobDigest;
use release::{Blobstore as _, LocalBlobs};
use state::kv::{Direction, Span};
use state::log::CommandLog as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::log::RaftLog;

/// Bytes read a second, over the long run: nobody else's reading may suffer.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// Pause after each blob at least.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause before the state is read for the first time: a replica that starts has other things to do.
const FIRST: Duration = Duration::from_secs(60);

/// Pause between two rounds.
const REST: Duration = Duration::from_secs(6 * 3600);

/// Reads for the life of the process.
pub async fn scrub(local: std::sync::Arc<LocalBlobs>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            damaged = round(&local) => info!(damaged, "every copy of a blob was read"),
            () = stop.cancelled() => return,
        }
    }
}

/// Reads every row of the state for the life of the process, first soon after the start. A damaged one ends the process, as
/// it does whoever reads it; but while the others are still sound.
pub async fn scrub_state(log: RaftLog, stop: CancellationToken) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let (view, stopping) = (log.view(), stop.clone());
        let rows = tokio::task::spawn_blocking(move || {
            let all = Span { start: Vec::new(), end: None };
            view.scan(all, Direction::Forward).take_while(|_| !stopping.is_cancelled()).count()
        });
        if let Ok(rows) = rows.await {
            debug!(rows, "every row of the state was read");
        }
        pause = REST;
    }
}

/// Reads every copy once; returns how many were damaged.
async fn round(local: &LocalBlobs) -> usize {
    let blobs = match local.list().await {
        Ok(blobs) => blobs,
        Err(error) => {
            warn!(error = %error, "the blobs' folder could not be listed");
            return 0;
        }
    };
    let mut damaged = 0;
    for blob in blobs {
        if !is_sound(local, &blob.digest).await {
            damaged += 1;
        }
        tokio::time::sleep(PAUSE.max(Duration::from_secs(blob.bytes / BYTES_PER_SECOND))).await;
    }
    damaged
}

async fn is_sound(local: &LocalBlobs, digest: &BlobDigest) -> bool {
    // One that is gone is no damage: the healer's.
    let Ok(mut reader) = local.get(digest).await else { return true };
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn damage_is_found_and_removed_before_anybody_asks() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalBlobs::open(folder.path()).unwrap();
        let sound = local.put(&mut &b"sound"[..]).await.unwrap().digest;
        let bad = local.put(&mut &b"to be damaged"[..]).await.unwrap().digest;
        std::fs::write(local.path(&bad).unwrap(), b"damaged").unwrap();
        assert_eq!(round(&local).await, 1);
        assert!(local.has(&sound).await.unwrap() && !local.has(&bad).await.unwrap());
        assert_eq!(round(&local).await, 0);
    }
}
