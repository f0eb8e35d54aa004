//! What the leader tidies up from time to time: disks that were given up days ago.

use std::time::Duration;

use model::task::TaskKind;
use raft::Node;
use service::ops::orphans_to_delete;
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::log::{RaftLog, now};

/// How often the leader looks, as in BOSH.
const LOOK_EVERY: Duration = Duration::from_secs(30 * 60);

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
        orphans_to_delete(&State::new(&*view).orphaned_disks(), now())
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
