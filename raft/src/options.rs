//! How a replica is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Disk, LocalDisk};

/// How often a leader is heard, and how long its silence is borne.
///
/// A dead leader is replaced after about `2 × election_max` in the worst case (see [`Node::leadership`](crate::Node::leadership)
/// for what the lease built on these guarantees).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest wait of a follower before it stands for election.
    pub election_min: Duration,
    /// Longest such wait; also the length of the leader's lease.
    pub election_max: Duration,
}

impl Timing {
    /// Fails over in under a second; for ordinary local disks.
    pub const DEFAULT: Self = Self::millis(75, 300, 450);
    /// Bears stalls of a second; fails over within four.
    pub const SLOW_DISKS: Self = Self::millis(250, 1000, 2000);
    /// For tests on a busy machine.
    pub const TESTS: Self = Self::millis(100, 400, 800);

    /// Returns a timing in milliseconds.
    pub const fn millis(heartbeat: u64, election_min: u64, election_max: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// When the log is cut behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// A snapshot is taken once this many entries came after the last one.
    pub every_entries: u64,
    /// So many entries stay in the log behind a snapshot, so that a replica that was away briefly catches up from them.
    pub keep_entries: u64,
    /// A replica further behind than this is sent a snapshot; larger than `every_entries`, or a snapshot would not cure it.
    pub lag_entries: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { every_entries: 10_000, keep_entries: 20_000, lag_entries: 15_000 }
    }
}

/// What a failure that makes this replica untrustworthy does. See [`Options::on_fatal`].
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How a replica is set up.
#[derive(Clone)]
pub struct Options {
    /// This replica's id; never used again for another one, nor for the same one after its disk was wiped.
    pub node_id: u64,
    /// Where the two databases and the snapshots live; created when absent.
    pub data_dir: PathBuf,
    /// On which disk.
    pub disk: Arc<dyn Disk>,
    /// Whether this replica has run before: then data that is not there is lost, and it does not start. Without it, a
    /// log that is not there is begun.
    pub has_run: bool,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Snapshots and the length of the log.
    pub snapshots: SnapshotPolicy,
    /// Called with a message when a write, an fsync or a read of a database failed. The replica's promises cannot be
    /// kept after that, so it must end the process; the default aborts it. If it returns (tests), the replica
    /// stops acknowledging anything.
    pub on_fatal: OnFatal,
}

impl Options {
    /// Returns the defaults for replica `node_id` with its data in `data_dir`.
    pub fn new(node_id: u64, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_id,
            data_dir: data_dir.into(),
            has_run: false,
            disk: Arc::new(LocalDisk),
            timing: Timing::default(),
            snapshots: SnapshotPolicy::default(),
            on_fatal: Arc::new(abort),
        }
    }
}

/// Ends the process. Not a panic: a panic ends one thread, and another could still acknowledge what was not written.
fn abort(message: &str) {
    tracing::error!(error = message, "the replica cannot go on and ends the process");
    eprintln!("fatal: {message}");
    std::process::abort();
}
