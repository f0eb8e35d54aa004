//! What agents said of themselves that have no stream: those on a message bus.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::AgentId;
use tokio::time::Instant;

use crate::registry::Report;

/// How long a report is kept that is followed by no other: its agent is gone, or heard by another replica.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Old reports are looked for when there are twice as many as were left the last time, and at least so many.
const SWEEP_MIN: usize = 128;

/// See the module's header.
#[derive(Default)]
pub(crate) struct Told(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    reports: HashMap<AgentId, Report>,
    left: usize,
}

impl Told {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single map operation: a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a report; the one before is forgotten.
    pub fn keep(&self, agent: AgentId, report: Report) {
        let mut inner = self.inner();
        if inner.reports.len() >= SWEEP_MIN.max(2 * inner.left) {
            let now = Instant::now();
            inner.reports.retain(|_, report| now - report.at < KEPT_FOR);
            inner.left = inner.reports.len();
        }
        inner.reports.insert(agent, report);
    }

    /// Returns an agent's last report.
    pub fn report(&self, agent: &AgentId) -> Option<Report> {
        self.inner().reports.get(agent).filter(|report| report.at.elapsed() < KEPT_FOR).cloned()
    }
}

#[cfg(test)]
mod tests {
    use agent_api::JobState;

    use super::*;

    fn report() -> Report {
        Report {
            job_state: JobState::Running,
            processes: 1,
            vitals_json: Default::default(),
            at: Instant::now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_report_is_kept_for_a_while_and_those_of_who_is_gone_are_forgotten() {
        let told = Told::default();
        for number in 0..2 * SWEEP_MIN {
            told.keep(format!("gone-{number}").as_str().into(), report());
        }
        tokio::time::advance(KEPT_FOR).await;
        assert!(told.report(&"gone-1".into()).is_none());
        for number in 0..2 * SWEEP_MIN {
            told.keep(format!("here-{number}").as_str().into(), report());
        }
        assert!(told.report(&"here-1".into()).is_some());
        assert!(told.inner().reports.len() <= 2 * SWEEP_MIN, "{}", told.inner().reports.len());
    }
}
