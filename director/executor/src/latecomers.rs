//! The leader's search for what may still appear: VMs and disks whose creation was not answered, and was looked for in vain.
//!
//! The state knows what is looked for and for how long ([`state::records::Latecomer`]); here is when. Time counts by the
//! leader's own clock from look to look, and only while the cloud answers: a clock that jumps, or a cloud that is away, must
//! not end a search. Not here: what becomes of what is found, which the state decides, and whoever deletes orphans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpi_api::{CallContext, CpiError, CpiErrorKind, Found};
use futures::stream::{self, StreamExt as _};
use model::RequestId;
use state::State;
use state::command::{Command, Refusal};
use state::log::Proposal;
use state::records::{Latecomer, Sought};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::Interrupted;
use crate::lease::Fence;
use crate::ports::Ports;
use crate::sought;

/// Pause before the first look of a leader; each further one is twice as long, up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause: what appears is there for so long, beside what the cloud takes for the search.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How long one search may take. It is made again.
const SEARCH: Duration = Duration::from_secs(60);

/// Searches at once: clouds throttle.
const SEARCHES_MAX: usize = 8;

/// When something is looked for next, and since when its time has been counting.
struct Pace {
    next: Instant,
    pause: Duration,
    counted: Instant,
}

/// Looks for latecomers for as long as this replica leads under `fence`; `changed` tells that the state may have new ones.
pub async fn run(ports: Ports, fence: Fence, changed: Arc<Notify>) {
    let mut paces: BTreeMap<Sought, Pace> = BTreeMap::new();
    while fence.check().is_ok() {
        let sought = expected(&ports);
        let now = Instant::now();
        paces.retain(|known, _| sought.iter().any(|row| row.sought == *known));
        for row in &sought {
            let pause = first_pause(row);
            let begin = || Pace { next: now + pause, pause, counted: now };
            paces.entry(row.sought.clone()).or_insert_with(begin);
        }
        let due: Vec<(Latecomer, Instant)> = sought
            .into_iter()
            .filter_map(|row| {
                let pace = paces.get(&row.sought).filter(|pace| pace.next <= now)?;
                Some((row, pace.counted))
            })
            .collect();
        let looks = due.into_iter().map(|(row, counted)| look(&ports, &fence, row, counted));
        let looked: Vec<(Sought, Looked)> =
            stream::iter(looks).buffer_unordered(SEARCHES_MAX).collect().await;
        for (sought, looked) in looked {
            if let Some(pace) = paces.get_mut(&sought) {
                pace.after(&looked);
            }
        }
        let next = paces.values().map(|pace| pace.next).min();
        let wake = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // No chance decides here: worlds of chance in which nothing comes late stay what they are.
        tokio::select! {
            biased;
            _ = fence.lost() => return,
            () = changed.notified() => {}
            () = wake => {}
        }
    }
}

/// How a look ended.
struct Looked {
    /// When it was, if it counts.
    counted: Option<Instant>,
    /// For how long it is still looked for.
    left: Duration,
}

impl Pace {
    fn after(&mut self, looked: &Looked) {
        let now = Instant::now();
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.next = now + self.pause.min(looked.left);
        self.counted = looked.counted.unwrap_or(now);
    }
}

fn first_pause(row: &Latecomer) -> Duration {
    PAUSE_MIN.min(Duration::from_millis(row.left_ms))
}

fn expected(ports: &Ports) -> Vec<Latecomer> {
    let view = ports.log.view();
    State::new(&*view).latecomers()
}

/// Looks for one of them and has it remembered what came of it.
async fn look(ports: &Ports, fence: &Fence, row: Latecomer, counted: Instant) -> (Sought, Looked) {
    let left = Duration::from_millis(row.left_ms);
    let not_counted = Looked { counted: None, left: PAUSE_MAX };
    let sought = row.sought.clone();
    // What is somebody's is known before the search: what it finds may be gone, and nobody's any more, when it ends.
    let Some(known) = known(ports, &sought) else { return (sought, not_counted) };
    let at = Instant::now();
    let found = match search(ports, fence, &row).await {
        Ok(found) => found,
        Err(error) => {
            debug!(sought = %sought, error = %error, "a latecomer could not be looked for");
            return (sought, not_counted);
        }
    };
    let late: Vec<String> = found.into_iter().filter(|cid| !known.contains(cid)).collect();
    for cid in &late {
        warn!(cid, sought = %sought, "it appeared after its call was not answered: it becomes an orphan");
    }
    let after = left.saturating_sub(at.duration_since(counted));
    match tell(ports, fence, row, late, after).await {
        Ok(()) => (sought, Looked { counted: Some(at), left: after }),
        Err(error) => {
            debug!(sought = %sought, error = %error, "a look for a latecomer could not be recorded");
            (sought, not_counted)
        }
    }
}

/// Returns the cloud's ids of what is known; nothing while a step is about to learn the one of this id of ours.
fn known(ports: &Ports, sought: &Sought) -> Option<Vec<String>> {
    let view = ports.log.view();
    let state = State::new(&*view);
    let (own, orphans): (_, Vec<String>) = match sought {
        Sought::Vm(agent) => {
            let orphans = state.orphaned_vms().into_iter().filter_map(|orphan| orphan.vm.cid);
            let own = state.vm(agent).map(|vm| vm.cid.map(|cid| cid.to_string()));
            (own, orphans.map(|cid| cid.to_string()).collect())
        }
        Sought::Disk(id) => {
            let orphans = state.orphaned_disks().into_iter().filter_map(|orphan| orphan.disk.cid);
            let own = state.disk(id).map(|disk| disk.cid.map(|cid| cid.to_string()));
            (own, orphans.map(|cid| cid.to_string()).collect())
        }
        Sought::Snapshot(id) => {
            let own = state.snapshot(id).map(|snapshot| snapshot.cid.map(|cid| cid.to_string()));
            (own, Vec::new())
        }
    };
    match own {
        Some(None) => None,
        Some(Some(own)) => Some(orphans.into_iter().chain([own]).collect()),
        None => Some(orphans),
    }
}

async fn search(ports: &Ports, fence: &Fence, row: &Latecomer) -> Result<Vec<String>, CpiError> {
    let failed = |kind, why: String| CpiError::new(kind, "find", why);
    let cloud = ports.cpis.get(row.cpi()).map_err(|none| failed(CpiErrorKind::Other, none.to_string()))?;
    let director_uuid = {
        let view = ports.log.view();
        State::new(&*view).cluster().map(|c| c.director_uuid).unwrap_or_default()
    };
    let call = CallContext {
        director_uuid,
        request_id: RequestId::new(format!("late-{}-find", row.id)),
        epoch: fence.epoch(),
        stemcell_api_version: None,
        timeout: SEARCH,
        log: Default::default(),
    };
    fence.check().map_err(|lost| failed(CpiErrorKind::Fenced, lost.to_string()))?;
    let answer = tokio::select! {
        answer = tokio::time::timeout(SEARCH, sought::find(&*cloud, &call, &row.sought)) => answer,
        lost = fence.lost() => return Err(failed(CpiErrorKind::Fenced, lost.to_string())),
    };
    match answer {
        Ok(Ok(Found::These(found))) => Ok(found),
        Ok(Ok(Found::CannotTell)) => {
            Err(failed(CpiErrorKind::NotSupported, "this cloud can't search".to_owned()))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(failed(CpiErrorKind::TimedOut, "no answer in time".to_owned())),
    }
}

async fn tell(
    ports: &Ports,
    fence: &Fence,
    row: Latecomer,
    found: Vec<String>,
    left: Duration,
) -> Result<(), Interrupted> {
    fence.check()?;
    let left_ms = (row.left_ms, left.as_millis().try_into().unwrap_or(u64::MAX));
    let looked = Command::LatecomerLooked { epoch: fence.epoch(), sought: row.sought, found, left_ms };
    match ports.log.propose(Proposal::own(looked)).await?.outcome.accepted() {
        // An operator has struck it off the list.
        Ok(_) | Err(Refusal::NotFound { .. }) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}
