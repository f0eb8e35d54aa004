//! Names of this crate's metrics, with what they mean.

use std::time::Duration;

use metrics::{describe_histogram, histogram};

/// Writing and syncing the log.
pub const FSYNC: &str = "directorate_fsync_seconds";

/// Tells the recorder what each name means.
pub fn describe() {
    describe_histogram!(FSYNC, "Time to write a batch of entries and votes to the log, and to sync it");
}

/// Tells how long a synced write took.
pub(crate) fn synced(took: Duration) {
    histogram!(FSYNC).record(took);
}
