//! What the leader tidies up from time to time: disks that were given up days ago.

use std::time::Duration;

use model::DiskId;
use model::task::TaskKind;
use raft::Node;
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use state::records::OrphanedDisk;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::log::{RaftLog, now};

/// How often the leader looks, as in BOSH.
const LOOK_EVERY: Duration = Duration::from_secs(30 * 60);

/// How long an orphaned disk is kept, as in BOSH.
const KEEP_ORPHANS_MS: i64 = 5 * 24 * 3600 * 1000;

/// Runs for the life of the process; acts only while this replica leads.
pub async fn run(node: Node, log: RaftLog, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
        if node.leadership().is_some_and(|l| l.holds()) {
            delete_old_orphans(&log).await;
        }
    }
}

async fn delete_old_orphans(log: &RaftLog) {
    let disks = {
        let view = log.view();
        too_old(State::new(&*view).orphaned_disks(), now().0)
    };
    // A task without work is not filed: the list would fill with them.
    if disks.is_empty() {
        return;
    }
    info!(disks = disks.len(), "orphaned disks have been kept long enough");
    let kind = TaskKind::DeleteOrphanedDisks { disks };
    let queue = Command::TaskQueue { kind, deployment: None, context_id: String::new(), locks: Vec::new() };
    if let Err(error) = log.propose(Proposal::own(queue)).await {
        warn!(error = %error, "the clean-up of orphaned disks could not be filed");
    }
}

fn too_old(orphans: Vec<OrphanedDisk>, now_ms: i64) -> Vec<DiskId> {
    let old = |orphan: &OrphanedDisk| now_ms - orphan.orphaned_at.0 > KEEP_ORPHANS_MS;
    orphans.into_iter().filter(old).map(|orphan| orphan.disk.id).collect()
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use model::instance::{Disk, DiskSpec};

    use super::*;

    fn orphan(id: &str, orphaned_at: i64) -> OrphanedDisk {
        let spec = DiskSpec { size_mib: 1, disk_type: None, cloud_properties: serde_json::Value::Null };
        let disk =
            Disk { id: id.into(), cid: None, instance: "i".into(), cpi: "".into(), spec, active: false };
        OrphanedDisk {
            disk,
            deployment: "d".into(),
            slug: "g/i".into(),
            az: None,
            orphaned_at: Timestamp(orphaned_at),
        }
    }

    #[test]
    fn orphans_are_kept_for_five_days() {
        let day = 24 * 3600 * 1000;
        let orphans = vec![orphan("old", 0), orphan("young", day)];
        assert_eq!(too_old(orphans, 5 * day + 1), [DiskId::new("old")]);
    }
}
