//! Reading every copy of a blob from time to time, so that damage is found while other replicas still have sound ones. The
//! store removes what is damaged, and the healer fetches what is missing.

use std::time::Duration;

use model::BlobDigest;
use release::{Blobstore as _, LocalBlobs};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Bytes read a second, over the long run: nobody else's reading may suffer.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// Pause after each blob at least.
const PAUSE: Duration = Duration::from_millis(100);

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
