//! Waiting for an instance to run.
//!
//! The window counts looks, not wall-clock time of one node: a new leader starts the window again, so a failover can
//! only make it longer, never fail an instance that was about to come up.

use std::time::Duration;

use agent_api::{AgentState, JobState, Method};
use model::instance::WatchTime;
use model::step::{StepOutcome, WatchKind};
use model::{AgentId, ErrorCode, InstanceId};

use super::calls::QUICK;
use crate::context::StepContext;
use crate::error::StepError;

/// The pause after the first look that finds an instance not running yet; each further one doubles it.
const FIRST_PAUSE_MS: u64 = 100;

/// Returns the pauses between looks: the minimum first, the last look at the maximum.
///
/// BOSH's director looks in even steps, nine in the window. Most jobs come up a moment after the minimum, and each instance
/// of a rolling update would wait a whole step for it: so the pauses grow up to that step.
pub fn pauses(window: WatchTime) -> impl Iterator<Item = Duration> {
    let mut left = window.max_ms.saturating_sub(window.min_ms);
    let step = (left / 9).clamp(1_000, 15_000);
    let mut next = FIRST_PAUSE_MS;
    let more = std::iter::from_fn(move || {
        let pause = next.min(left);
        left -= pause;
        next = (next * 2).min(step);
        (pause > 0).then_some(pause)
    });
    std::iter::once(window.min_ms).chain(more).map(Duration::from_millis)
}

/// Looks at the agent's state until it says `running` or the window is over.
pub async fn watch(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    kind: WatchKind,
) -> Result<StepOutcome, StepError> {
    let target = cx.task.target(instance)?;
    let window = match kind {
        WatchKind::Canary => target.spec.canary_watch_time,
        WatchKind::Update => target.spec.update_watch_time,
    };
    let mut last = None;
    for pause in pauses(window) {
        cx.checkpoint()?;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cx.task.cancelled.cancelled(), if !cx.cleanup => return Err(StepError::Cancelled),
        }
        let reply = cx.agent(agent, instance, "state", Method::GetState { full: false }, QUICK).await?;
        let state: AgentState = serde_json::from_value(reply.0).map_err(|e| {
            StepError::coded(
                ErrorCode::AgentInvalidStateFormat,
                format!("agent {agent} gave no valid state: {e}"),
            )
        })?;
        if state.job_state == JobState::Running {
            return Ok(StepOutcome::Done);
        }
        last = Some(state);
    }
    let failing: Vec<String> = last
        .map(|state| state.processes.into_iter().filter(|p| p.state != "running").map(|p| p.name).collect())
        .unwrap_or_default();
    let reason = match failing.is_empty() {
        true => String::new(),
        false => format!(" Review logs for failed jobs: {}", failing.join(", ")),
    };
    let name = format!("{}/{instance} ({})", target.spec.group, target.spec.index);
    Err(StepError::coded(
        ErrorCode::AgentJobNotRunning,
        format!("'{name}' is not running after update.{reason}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(min_ms: u64, max_ms: u64) -> Vec<u64> {
        let pauses = pauses(WatchTime { min_ms, max_ms });
        pauses.map(|pause| u64::try_from(pause.as_millis()).unwrap()).collect()
    }

    #[test]
    fn the_first_look_is_at_the_minimum_and_the_last_at_the_maximum() {
        let windows = [
            (1_000, 10_000),
            (30_000, 600_000),
            (30_000, 1_200_000),
            (0, 86_400_000),
            (500, 30_000),
            (0, 100),
            (0, 1),
        ];
        for (min_ms, max_ms) in windows {
            let looks = looks(min_ms, max_ms);
            assert_eq!((looks[0], looks.iter().sum()), (min_ms, max_ms), "{looks:?}");
        }
        assert_eq!(looks(30_000, 30_000), [30_000]);
    }

    #[test]
    fn pauses_grow_up_to_the_steps_of_bosh() {
        assert_eq!(looks(1_000, 10_000)[..7], [1_000, 100, 200, 400, 800, 1_000, 1_000]);
        let long = looks(30_000, 600_000);
        assert_eq!(long.iter().max(), Some(&30_000), "{long:?}");
        assert!(long[9..long.len() - 1].iter().all(|pause| *pause == 15_000), "{long:?}");
        assert!(long.len() < 39 + 9, "a long window is not asked about much more often: {}", long.len());
        let endless = pauses(WatchTime { min_ms: 0, max_ms: u64::MAX });
        assert!(endless.skip(9).take(1_000).all(|pause| pause == Duration::from_secs(15)));
    }
}
