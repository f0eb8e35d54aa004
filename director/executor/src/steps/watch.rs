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

/// Returns the pauses between looks: the minimum first, then as many even steps as fit.
pub fn pauses(window: WatchTime) -> Vec<Duration> {
    let span = window.max_ms.saturating_sub(window.min_ms);
    let step = (span / 9).clamp(1_000, 15_000);
    let more = (span / step) as usize;
    std::iter::once(window.min_ms).chain(std::iter::repeat_n(step, more)).map(Duration::from_millis).collect()
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

    #[test]
    fn looks_are_spread_as_in_bosh() {
        let check = |min_ms, max_ms, first_ms: u64, step_ms: u64, more: usize| {
            let got = pauses(WatchTime { min_ms, max_ms });
            assert_eq!(got[0], Duration::from_millis(first_ms));
            assert_eq!(got.len() - 1, more);
            assert!(got[1..].iter().all(|p| *p == Duration::from_millis(step_ms)));
        };
        check(1_000, 10_000, 1_000, 1_000, 9);
        check(30_000, 600_000, 30_000, 15_000, 38);
        check(30_000, 30_000, 30_000, 1_000, 0);
    }
}
