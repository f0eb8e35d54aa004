//! Contact with a leader: what probes, gRPC health and the log say of it.
//!
//! Who was elected last is not enough: a replica that is cut off knows that for ever. It is ready while it is in touch.

use std::time::Duration;

use model::NodeId;
use raft::Node;
use state::State;
use state::log::CommandLog as _;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::fleet::log::RaftLog;

/// How often the contact is looked at. Silence is no event that could wake anybody.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether this replica can answer what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It knows its fleet and is in touch with this leader.
    Ready {
        /// Who leads.
        leader: NodeId,
    },
    /// The fleet's state has not arrived here yet.
    NoState,
    /// Nobody leads, or the leader is out of reach.
    NoLeader,
}

/// Returns whether this replica can answer what it is asked.
pub fn readiness(node: &Node, log: &RaftLog) -> Readiness {
    let known = {
        let view = log.view();
        State::new(&*view).cluster().is_some()
    };
    match (known, node.leader_in_touch()) {
        (false, _) => Readiness::NoState,
        (true, None) => Readiness::NoLeader,
        (true, Some(leader)) => Readiness::Ready { leader: NodeId(leader) },
    }
}

/// Follows the contact for the life of the process: logs every change of leader, the one life event of consensus that an
/// operator looks for, and tells whoever asks the health service.
pub async fn follow(node: Node, log: RaftLog, health: HealthReporter, stop: CancellationToken) {
    let own = node.status().node_id;
    let mut last = None;
    loop {
        let (now, term) = (readiness(&node, &log), node.status().term);
        if last != Some((now, term)) {
            let serving = match now {
                Readiness::Ready { .. } => ServingStatus::Serving,
                _ => ServingStatus::NotServing,
            };
            // The empty name stands for the server as a whole.
            health.set_service_status("", serving).await;
            tell(own, last.map(|(before, _)| before), now, term);
        }
        last = Some((now, term));
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn tell(node: u64, before: Option<Readiness>, now: Readiness, term: u64) {
    match now {
        Readiness::Ready { leader } => info!(node, %leader, term, "leader elected"),
        Readiness::NoLeader if before != Some(now) => warn!(node, term, "there is no leader"),
        Readiness::NoState if before.is_none() => info!(node, term, "waiting for the fleet's state"),
        _ => {}
    }
}
