//! Running an errand: once, whatever happens to the director meanwhile.

use agent_api::{Method, Mode};
use model::step::StepOutcome;
use model::{AgentId, ErrorCode, InstanceId, JobName};
use serde_json::{Value, json};

use super::calls::SCRIPT;
use crate::context::StepContext;
use crate::error::StepError;

/// What of each of an errand's outputs stands in its result: results are kept in the state, on every replica.
const OUTPUT_BYTES_MAX: usize = 32 << 10;

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
    let mut line = json!({
        "instance": { "group": target.spec.group, "id": instance },
        "errand_name": errand,
        "exit_code": exit_code,
        "logs": { "blobstore_id": null, "sha1": null },
    });
    for stream in ["stdout", "stderr"] {
        put_output(cx, &mut line, stream, reply.0.get(stream).and_then(Value::as_str).unwrap_or_default())
            .await;
    }
    Ok(StepOutcome::ErrandRan { exit_code: exit_code as i32, result_line: line.to_string() })
}

/// Puts what the errand wrote into its result: all of it, or its end and where the whole is.
async fn put_output(cx: &StepContext, line: &mut Value, stream: &str, text: &str) {
    let shown = end_of(text);
    if shown.len() == text.len() {
        line[stream] = json!(text);
        return;
    }
    line[stream] = json!(format!("[truncated]\n{shown}"));
    match cx.task.ports.blobs.put(&mut text.as_bytes()).await {
        Ok(stored) => {
            line[format!("{stream}_blob")] = json!({ "blobstore_id": stored.digest, "size": stored.bytes });
        }
        // The errand has run; what it printed last is still told.
        Err(error) => cx.task.debug(&format!("the whole {stream} of the errand can't be stored: {error}")),
    }
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
