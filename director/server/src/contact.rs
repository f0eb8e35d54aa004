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
use crate::metrics;

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
    let mut teller = Teller { node: node.status().node_id, last: None, elected: None, leaderless: 0 };
    loop {
        let (now, term) = (readiness(&node, &log), node.status().term);
        if teller.last.is_none_or(|last| last != now) {
            let serving = match now {
                Readiness::Ready { .. } => ServingStatus::Serving,
                _ => ServingStatus::NotServing,
            };
            // The empty name stands for the server as a whole.
            health.set_service_status("", serving).await;
        }
        teller.tell(now, term);
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Tells what has changed, and only that.
struct Teller {
    node: u64,
    last: Option<Readiness>,
    /// The leader and the term that were told last.
    elected: Option<(NodeId, u64)>,
    /// Looks in a row that saw no leader.
    leaderless: u32,
}

/// After so many looks without a leader it is told that there is none: the second, or, while none was seen since the
/// start, after some seconds.
const LEADERLESS: [u32; 2] = [2, 20];

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Elected,
    Again,
    NoLeader,
    NoState,
}

impl Teller {
    fn tell(&mut self, now: Readiness, term: u64) {
        let node = self.node;
        match (self.judge(now, term), now) {
            (Some(Told::Elected), Readiness::Ready { leader }) => {
                metrics::leader_changed();
                info!(node, %leader, term, "leader elected");
            }
            (Some(Told::Again), Readiness::Ready { leader }) => {
                info!(node, %leader, term, "in touch with the leader again")
            }
            (Some(Told::NoLeader), _) => warn!(node, term, "there is no leader"),
            (Some(Told::NoState), _) => info!(node, "waiting for the fleet's state"),
            _ => {}
        }
    }

    fn judge(&mut self, now: Readiness, term: u64) -> Option<Told> {
        let before = self.last.replace(now);
        let leaderless = std::mem::take(&mut self.leaderless);
        match now {
            Readiness::Ready { leader } if self.elected != Some((leader, term)) => {
                self.elected = Some((leader, term));
                Some(Told::Elected)
            }
            Readiness::Ready { .. } => (leaderless >= self.patience()).then_some(Told::Again),
            Readiness::NoState => (before != Some(now)).then_some(Told::NoState),
            Readiness::NoLeader => {
                self.leaderless = leaderless.saturating_add(1);
                (self.leaderless == self.patience()).then_some(Told::NoLeader)
            }
        }
    }

    fn patience(&self) -> u32 {
        LEADERLESS[usize::from(self.elected.is_none())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_election_is_told_once_and_silence_is_told() {
        let mut teller = Teller { node: 1, last: None, elected: None, leaderless: 0 };
        let ready = |leader| Readiness::Ready { leader: NodeId(leader) };
        // A replica that starts has seen no leader yet; that is no news for a while.
        for _ in 1..LEADERLESS[1] {
            assert_eq!(teller.judge(Readiness::NoLeader, 0), None);
        }
        assert_eq!(teller.judge(Readiness::NoLeader, 0), Some(Told::NoLeader));
        let seen = [
            (Readiness::NoState, 0, Some(Told::NoState)),
            (Readiness::NoState, 0, None),
            (ready(2), 1, Some(Told::Elected)),
            (ready(2), 1, None),
            // A hand-over, or a heartbeat that was late.
            (Readiness::NoLeader, 1, None),
            (ready(2), 1, None),
            (Readiness::NoLeader, 1, None),
            (Readiness::NoLeader, 1, Some(Told::NoLeader)),
            (Readiness::NoLeader, 1, None),
            (ready(2), 1, Some(Told::Again)),
            (ready(2), 2, Some(Told::Elected)),
            (ready(3), 3, Some(Told::Elected)),
        ];
        for (now, term, expected) in seen {
            assert_eq!(teller.judge(now, term), expected, "{now:?} in term {term}");
        }
    }
}
