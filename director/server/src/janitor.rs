//! What the leader tidies up from time to time: disks that were given up days ago, and VMs whose deletion nobody wanted
//! to wait for.

use std::time::Duration;

use model::task::TaskKind;
use raft::Node;
use service::ops::{orphaned_vms_to_delete, orphans_to_delete};
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::log::{RaftLog, now};

/// How often the leader looks for disks, as in BOSH.
const DISKS_EVERY: Duration = Duration::from_secs(30 * 60);

/// How often the leader looks for VMs, as in BOSH.
const VMS_EVERY: Duration = Duration::from_secs(5 * 60);

/// Runs for the life of the process; acts only while this replica leads.
pub async fn run(node: Node, log: RaftLog, stop: CancellationToken) {
    let every = |period| {
        let mut interval = interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    };
    let (mut disks, mut vms) = (every(DISKS_EVERY), every(VMS_EVERY));
    loop {
        let due = tokio::select! {
            _ = disks.tick() => old_disks as fn(&State<'_>) -> Option<TaskKind>,
            _ = vms.tick() => vms_left_behind,
            () = stop.cancelled() => return,
        };
        if node.leadership().is_some_and(|l| l.holds()) {
            file(&log, due).await;
        }
    }
}

fn old_disks(state: &State<'_>) -> Option<TaskKind> {
    let disks = orphans_to_delete(&state.orphaned_disks(), now());
    (!disks.is_empty()).then_some(TaskKind::DeleteOrphanedDisks { disks })
}

fn vms_left_behind(state: &State<'_>) -> Option<TaskKind> {
    let agents = orphaned_vms_to_delete(state);
    (!agents.is_empty()).then_some(TaskKind::DeleteOrphanedVms { agents })
}

/// Files a task for what there is to do. A task without work is not filed: the list would fill with them.
async fn file(log: &RaftLog, due: fn(&State<'_>) -> Option<TaskKind>) {
    let kind = {
        let view = log.view();
        due(&State::new(&*view))
    };
    let Some(kind) = kind else { return };
    let what = kind.description();
    info!(task = what, "the leader tidies up");
    let queue = Command::TaskQueue { kind, deployment: None, context_id: String::new(), locks: Vec::new() };
    if let Err(error) = log.propose(Proposal::own(queue)).await {
        warn!(error = %error, task = what, "a clean-up could not be filed");
    }
}
