//! Running an errand: once, whatever happens to the director meanwhile.

use agent_api::{Method, Mode};
use model::step::StepOutcome;
use model::{AgentId, ErrorCode, InstanceId, JobName};
use serde_json::{Value, json};

use super::calls::SCRIPT;
use crate::context::StepContext;
use crate::error::StepError;

/// Runs the errand. An earlier leader's run is attached to, never begun again: errands need not be idempotent.
pub async fn run(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    errand: &JobName,
) -> Result<StepOutcome, StepError> {
    cx.checkpoint()?;
    let target = cx.task.target(instance)?;
    // The record may say "begun" although the request never reached the agent: then it does not know it, and the
    // operator, not we, decides whether to run it again.
    let mode = if cx.is_repeat() { Mode::Attach } else { Mode::Submit };
    let method = Method::RunErrand { errand: errand.clone() };
    let reply = cx.agent_cancellable(agent, instance, "errand", method, SCRIPT, mode).await?;
    let exit_code = reply.0.get("exit_code").and_then(Value::as_i64).ok_or_else(|| {
        StepError::coded(
            ErrorCode::AgentInvalidTaskResult,
            format!("agent {agent} gave no exit code of errand '{errand}'"),
        )
    })?;
    let text = |key: &str| reply.0.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let line = json!({
        "instance": { "group": target.spec.group, "id": instance },
        "errand_name": errand,
        "exit_code": exit_code,
        "stdout": text("stdout"),
        "stderr": text("stderr"),
        "logs": { "blobstore_id": null, "sha1": null },
    });
    Ok(StepOutcome::ErrandRan { exit_code: exit_code as i32, result_line: line.to_string() })
}
