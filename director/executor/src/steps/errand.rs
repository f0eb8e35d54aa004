//! Running an errand: once, whatever happens to the director meanwhile.

use std::time::Duration;

use agent_api::{Method, Mode};
use model::step::StepOutcome;
use model::task::TaskKind;
use model::{AgentId, BlobDigest, ErrorCode, InstanceId, JobName};
use serde_json::{Value, json};

use super::calls::{INSTALL, SCRIPT};
use crate::context::StepContext;
use crate::error::{Interrupted, StepError};
use crate::prepare::Lines;

/// What of each of an errand's outputs stands in its result: results are kept in the state, on every replica.
const OUTPUT_BYTES_MAX: usize = 32 << 10;

/// How long packing the logs may take once the task is being cancelled.
const LOGS_OF_CANCELLED: Duration = Duration::from_secs(30);

/// What is done in the stage of an instance's logs, as BOSH calls it.
const PACKING: &str = "Finding and packing log files";

/// Exit codes above it are signals.
const SIGNALLED: i64 = 128;

/// The exit code of an errand that was ended because the task is being cancelled (SIGTERM).
const TERMINATED: i64 = SIGNALLED + 15;

/// Runs the errand. An earlier leader's run is attached to, never begun again: errands need not be idempotent.
pub async fn run(
    cx: &StepContext,
    instance: &InstanceId,
    agent: &AgentId,
    errand: &JobName,
) -> Result<StepOutcome, StepError> {
    cx.checkpoint()?;
    // The record may say "begun" although the request never reached the agent: then it does not know it, and the
    // operator, not we, decides whether to run it again.
    let mode = if cx.is_repeat() { Mode::Attach } else { Mode::Submit };
    let method = Method::RunErrand { errand: errand.clone() };
    let result = match cx.agent_cancellable(agent, instance, "errand", method, SCRIPT, mode).await {
        Ok(reply) => reply.0,
        // The agent did not say in time what it printed until then.
        Err(StepError::Cancelled) => json!({ "exit_code": TERMINATED }),
        Err(other) => return Err(other),
    };
    let exit_code = result.get("exit_code").and_then(Value::as_i64).ok_or_else(|| {
        StepError::coded(
            ErrorCode::AgentInvalidTaskResult,
            format!("agent {agent} gave no exit code of errand '{errand}'"),
        )
    })?;
    let was_cancelled = exit_code > SIGNALLED && cx.task.cancelled.is_cancelled();
    let logs = tokio::select! {
        logs = logs(cx, instance, agent) => logs,
        () = hurry(cx) => Err(StepError::Cancelled),
    };
    let (logs, error) = match logs {
        Ok(logs) => (logs, None),
        Err(error @ (StepError::Lost(_) | StepError::Log(_))) => return Err(error),
        Err(error) => (json!({ "blobstore_id": null, "sha1": null }), Some(error)),
    };
    let mut line = json!({
        "instance": { "group": cx.task.target(instance)?.spec.group, "id": instance },
        "errand_name": asked_for(cx, errand),
        "exit_code": exit_code,
        "logs": logs,
    });
    for stream in ["stdout", "stderr"] {
        put_output(cx, &mut line, stream, result.get(stream).and_then(Value::as_str).unwrap_or_default())
            .await?;
    }
    let result_line = line.to_string();
    match error.filter(|_| !was_cancelled) {
        _ if was_cancelled => Err(StepError::Telling { result_line, why: Box::new(StepError::Cancelled) }),
        Some(why) => Err(StepError::Telling { result_line, why: Box::new(why) }),
        None => Ok(StepOutcome::ErrandRan { exit_code: exit_code as i32, result_line }),
    }
}

/// Returns the errand's name as it was asked for: that of a job, or of a group.
fn asked_for<'a>(cx: &'a StepContext, job: &'a JobName) -> &'a str {
    match &cx.task.task.kind {
        TaskKind::RunErrand { errand, .. } => errand,
        _ => job.as_str(),
    }
}

/// Has the agent pack the jobs' logs; returns where they are.
async fn logs(cx: &StepContext, instance: &InstanceId, agent: &AgentId) -> Result<Value, StepError> {
    let spec = &cx.task.target(instance)?.spec;
    let stage = format!("Fetching logs for {}/{instance} ({})", spec.group, spec.index);
    let lines = Lines::new(&cx.task);
    lines.started(&stage, PACKING, 1).await?;
    let method = Method::FetchLogs { kind: "job".into(), filters: None };
    let packed = match cx.agent(agent, instance, "errand-logs", method, INSTALL).await {
        Ok(reply) => reply.0,
        Err(error) => {
            if let StepError::Failed(why) | StepError::Again(why) = &error {
                lines.ended_badly(&stage, PACKING, 1, why).await?;
            }
            return Err(error);
        }
    };
    let text = |key: &str| packed.get(key).cloned().unwrap_or_default();
    if let Some(digest) = packed.get("blobstore_id").and_then(Value::as_str) {
        cx.task.leaves(&BlobDigest::new(digest)).await?;
    }
    lines.finished(&stage, PACKING, 1).await?;
    Ok(json!({ "blobstore_id": text("blobstore_id"), "sha1": text("sha1") }))
}

/// Returns when nobody wants to wait for logs any longer: some time after the task was cancelled.
async fn hurry(cx: &StepContext) {
    cx.task.cancelled.cancelled().await;
    tokio::time::sleep(LOGS_OF_CANCELLED).await;
}

/// Puts what the errand wrote into its result: all of it, or its end and where the whole is.
async fn put_output(cx: &StepContext, line: &mut Value, stream: &str, text: &str) -> Result<(), Interrupted> {
    let shown = end_of(text);
    if shown.len() == text.len() {
        line[stream] = json!(text);
        return Ok(());
    }
    line[stream] = json!(format!("[truncated]\n{shown}"));
    match cx.task.ports.blobs.put(&mut text.as_bytes()).await {
        Ok(stored) => {
            cx.task.leaves(&stored.digest).await?;
            line[format!("{stream}_blob")] = json!({ "blobstore_id": stored.digest, "size": stored.bytes });
        }
        // The errand has run; what it printed last is still told.
        Err(error) => cx.task.debug(&format!("the whole {stream} of the errand can't be stored: {error}")),
    }
    Ok(())
}

/// Returns the end of a text that is short enough for a result. What counts is its length as JSON: a script may print
/// bytes that become six times as long there.
fn end_of(text: &str) -> &str {
    let mut left = OUTPUT_BYTES_MAX;
    for (at, char) in text.char_indices().rev() {
        let bytes = match char {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            '\0'..='\x1f' => 6,
            _ => char.len_utf8(),
        };
        if bytes > left {
            return &text[at + char.len_utf8()..];
        }
        left -= bytes;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_as_long_as_its_json_may_be() {
        for unit in ["a", "\0", "\n", "\u{fffd}", "\"", "\\", "\u{7f}"] {
            let text = unit.repeat(OUTPUT_BYTES_MAX);
            let shown = end_of(&text);
            let json = json!(shown).to_string().len() - 2;
            assert!(shown.len() < text.len() || unit == "a" || unit == "\u{7f}", "{unit:?}");
            assert!(json <= OUTPUT_BYTES_MAX && json > OUTPUT_BYTES_MAX - 6, "{unit:?}: {json}");
        }
        assert_eq!(end_of(&format!("x{}", "y".repeat(OUTPUT_BYTES_MAX))).len(), OUTPUT_BYTES_MAX);
        assert_eq!(end_of("short"), "short");
    }
}
