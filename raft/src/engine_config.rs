//! openraft's settings, and why.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use crate::{Options, StartError};

/// A whole snapshot may take this long to be sent and installed. The default, 200 ms, is for toys.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// Calls that wait for the engine; a full queue makes the callers wait.
const QUEUE_MAX: u64 = 8192;
/// Entries in one replication message; the log cuts it by bytes too.
const MESSAGE_ENTRIES: u64 = 1024;
/// The log is cut in steps of this many entries, so that it costs one range deletion now and then.
const PURGE_ENTRIES: u64 = 256;

/// Returns openraft's settings for `options`.
pub(crate) fn engine_config(options: &Options) -> Result<Arc<Config>, StartError> {
    let refused = |message: String| StartError::Options(message.into());
    let (timing, snapshots) = (options.timing, options.snapshots);
    if snapshots.lag_entries <= snapshots.every_entries || snapshots.keep_entries <= snapshots.lag_entries {
        return Err(refused(format!(
            "the log must keep more entries ({}) than a replica may lag behind ({}), and that must be more than \
             the entries between two snapshots ({})",
            snapshots.keep_entries, snapshots.lag_entries, snapshots.every_entries
        )));
    }
    if timing.heartbeat * 2 >= timing.election_min {
        return Err(refused(format!(
            "an election after {:?} of silence leaves no room for one lost heartbeat every {:?}",
            timing.election_min, timing.heartbeat
        )));
    }
    let config = Config {
        cluster_name: "directorate".into(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: MESSAGE_ENTRIES,
        replication_lag_threshold: snapshots.lag_entries,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshots.every_entries),
        max_in_snapshot_log_to_keep: snapshots.keep_entries,
        purge_batch_size: PURGE_ENTRIES.min(snapshots.every_entries),
        api_channel_size: Some(QUEUE_MAX),
        notification_channel_size: Some(QUEUE_MAX),
        // A replica that was away must not depose a healthy leader when it returns.
        enable_pre_vote: Some(true),
        // A restarted process must not go on under the term of the dead one: whatever that one still had under way in the
        // world would be taken for the new one's.
        enable_leader_restore: Some(false),
        removed_leader_step_down: StepDownPolicy::After(150),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(|error| StartError::Options(error.into()))?))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
