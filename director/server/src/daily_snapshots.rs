//! The snapshots that are taken of every disk once a day, at the time that the configuration names.
//!
//! Once, whoever leads: the tasks are filed under ids that name the day, so that a second leader's are the first one's.

use std::time::Duration;

use model::{RequestId, Timestamp};
use raft::Node;
use service::ops::snapshots_of_all;
use state::State;
use state::log::{CommandLog as _, Proposal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::log::RaftLog;

/// How often the leader looks at the clock.
const LOOK: Duration = Duration::from_secs(20);

/// How long after the time they are still begun: an election at that moment must not cost a day's snapshots, and a fleet that
/// is started at noon must not stop to take those of the night.
const STILL_BEGUN_MS: i64 = 10 * 60 * 1000;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Runs for the life of the process; acts only while this replica leads.
pub async fn run(node: Node, log: RaftLog, at: Duration, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut filed = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let due = due(log.clock(), at).filter(|day| filed != Some(*day));
        let Some(day) = due.filter(|_| node.leadership().is_some_and(|l| l.holds())) else { continue };
        if file(&log, day).await {
            filed = Some(day);
        }
    }
}

/// Returns the day, counted from 1970, whose snapshots are to be taken now, if it is their time.
fn due(now: Timestamp, at: Duration) -> Option<i64> {
    let at = i64::try_from(at.as_millis()).ok()?;
    let since = now.0.checked_sub(at)?;
    (since.rem_euclid(DAY_MS) < STILL_BEGUN_MS).then(|| since.div_euclid(DAY_MS))
}

/// Files the day's tasks; returns whether all are filed.
async fn file(log: &RaftLog, day: i64) -> bool {
    let tasks = {
        let view = log.view();
        snapshots_of_all(&State::new(&*view))
    };
    info!(deployments = tasks.len(), "the daily snapshots are taken");
    let mut all = true;
    for (deployment, command) in tasks {
        let request_id = Some(RequestId::new(format!("daily-snapshots-{day}-{deployment}")));
        if let Err(error) = log.propose(Proposal { request_id, ..Proposal::own(command) }).await {
            warn!(%deployment, error = %error, "a daily snapshot could not be filed");
            all = false;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_s_snapshots_are_begun_at_their_time_and_not_much_later() {
        let at = |hours: u64, minutes: u64| Duration::from_secs((hours * 60 + minutes) * 60);
        let now =
            |day: i64, hours: i64, minutes: i64| Timestamp(day * DAY_MS + (hours * 60 + minutes) * 60 * 1000);
        let table = [
            (now(7, 3, 29), at(3, 30), None),
            (now(7, 3, 30), at(3, 30), Some(7)),
            (now(7, 3, 39), at(3, 30), Some(7)),
            (now(7, 3, 40), at(3, 30), None),
            // Past midnight it is still the day before's.
            (now(8, 0, 3), at(23, 55), Some(7)),
            (now(8, 0, 5), at(23, 55), None),
            (now(8, 0, 0), at(0, 0), Some(8)),
        ];
        for (now, at, expected) in table {
            assert_eq!(due(now, at), expected, "{now:?} {at:?}");
        }
    }
}
