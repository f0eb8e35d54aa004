//! What the leader tidies up from time to time: disks and networks that were given up days ago, VMs whose deletion nobody wanted
//! to wait for, what tasks left to be fetched, and old DNS records.

use std::time::Duration;

use model::Timestamp;
use model::task::TaskKind;
use raft::Node;
use service::ops::{
    blobs_to_forget, bundles_to_forget, dns_blobs_to_forget, networks_lock, networks_to_delete,
    orphaned_vms_to_delete, orphans_lock, orphans_to_delete,
};
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::log::RaftLog;

/// How often the leader looks.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// For disks.
    pub disks: Duration,
    /// For networks.
    pub networks: Duration,
    /// For VMs.
    pub vms: Duration,
    /// For VMs, while some may still appear that nobody waits for: those have addresses that are needed.
    pub late_vms: Duration,
    /// For what tasks left to be fetched.
    pub bundles: Duration,
    /// For old documents of DNS records.
    pub dns_blobs: Duration,
    /// For blobs that deletions left.
    pub blobs: Duration,
}

impl Default for Rounds {
    /// As in BOSH, which does not look for what comes late.
    fn default() -> Self {
        Self {
            disks: Duration::from_secs(30 * 60),
            networks: Duration::from_secs(30 * 60),
            vms: Duration::from_secs(5 * 60),
            late_vms: Duration::from_secs(10),
            bundles: Duration::from_secs(3600),
            dns_blobs: Duration::from_secs(30 * 60),
            blobs: Duration::from_secs(60),
        }
    }
}

/// Runs for the life of the process; acts only while this replica leads.
pub async fn run(node: Node, log: RaftLog, rounds: Rounds, stop: CancellationToken) {
    let every = |period| {
        let mut interval = interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    };
    let (mut disks, mut vms, mut late_vms) = (every(rounds.disks), every(rounds.vms), every(rounds.late_vms));
    let (mut bundles, mut dns_blobs) = (every(rounds.bundles), every(rounds.dns_blobs));
    let (mut blobs, mut networks) = (every(rounds.blobs), every(rounds.networks));
    loop {
        let due = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = disks.tick() => old_disks as Due,
            _ = networks.tick() => old_networks,
            _ = vms.tick() => vms_left_behind,
            _ = late_vms.tick() => late_vms_left_behind,
            _ = bundles.tick() => bundles_to_forget,
            _ = dns_blobs.tick() => dns_blobs_to_forget,
            _ = blobs.tick() => blobs_to_forget,
        };
        if node.leadership().is_some_and(|l| l.holds()) {
            tidy(&log, due).await;
        }
    }
}

/// Returns what there is to do now. Nothing is filed without work: the list of tasks would fill with it.
type Due = fn(&State<'_>, Timestamp) -> Option<Command>;

fn task(kind: TaskKind) -> Command {
    let locks = match kind {
        TaskKind::DeleteOrphanedDisks { .. } => vec![orphans_lock()],
        TaskKind::DeleteOrphanedNetworks { .. } => vec![networks_lock()],
        _ => Vec::new(),
    };
    Command::TaskQueue { kind, deployment: None, context_id: String::new(), locks }
}

fn old_disks(state: &State<'_>, now: Timestamp) -> Option<Command> {
    let disks = orphans_to_delete(&state.orphaned_disks(), now);
    (!disks.is_empty()).then(|| task(TaskKind::DeleteOrphanedDisks { disks }))
}

fn old_networks(state: &State<'_>, now: Timestamp) -> Option<Command> {
    let networks = networks_to_delete(state, now);
    (!networks.is_empty()).then(|| task(TaskKind::DeleteOrphanedNetworks { networks }))
}

fn vms_left_behind(state: &State<'_>, _now: Timestamp) -> Option<Command> {
    let agents = orphaned_vms_to_delete(state);
    (!agents.is_empty()).then(|| task(TaskKind::DeleteOrphanedVms { agents }))
}

fn late_vms_left_behind(state: &State<'_>, now: Timestamp) -> Option<Command> {
    if state.latecomers().is_empty() { None } else { vms_left_behind(state, now) }
}

/// Proposes what there is to do.
async fn tidy(log: &RaftLog, due: Due) {
    let command = {
        let view = log.view();
        due(&State::new(&*view), log.clock())
    };
    let Some(command) = command else { return };
    let what = match &command {
        Command::TaskQueue { kind, .. } => kind.description(),
        Command::DnsForget { .. } => "forget old DNS records".to_owned(),
        Command::BlobsForget { .. } => "forget blobs that deletions left".to_owned(),
        _ => "forget what tasks left".to_owned(),
    };
    info!(task = what, "the leader tidies up");
    if let Err(error) = log.propose(Proposal::own(command)).await {
        warn!(error = %error, task = what, "a clean-up could not be filed");
    }
}
