//! What an agent answers, read with the distrust that is due to whatever comes in over a network.

use agent_api::{AgentError, Reply, Request};
use async_trait::async_trait;
use model::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest answer that is read. BOSH's servers pass on no larger one.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Longest words of an agent that are kept of a failure; their end says most.
const WORDS_CHARS_MAX: usize = 64 << 10;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// With this result, JSON.
    Done(String),
    /// The agent tried and failed, in its words.
    Failed(String),
    /// The agent has no such method.
    UnknownMethod,
}

/// An answer of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is at it.
    Running { agent_task: String },
    /// It knows no such task.
    NoSuchTask,
    /// It is the end.
    Ended(Ending),
    /// It failed, and its words are a blob.
    LongWords { words: String, blob: String },
}

/// Where long texts of agents are.
#[async_trait]
pub trait LongTexts: Send + Sync + 'static {
    /// Returns the text that an agent has left under this id. Nobody asks for it again.
    async fn take(&self, agent: &AgentId, blob: &str) -> Option<String>;
}

#[derive(Deserialize)]
struct Wire {
    value: Option<Value>,
    exception: Option<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    message: String,
    #[serde(default)]
    blobstore_id: Option<String>,
}

/// Reads an answer. What is none is a failure that says so: whoever asked must not wait for another one.
pub(crate) fn read(payload: &[u8]) -> Answer {
    let failed = |words: &str| Answer::Ended(Ending::Failed(words.to_owned()));
    if payload.len() > ANSWER_BYTES_MAX {
        return failed("the answer is too long");
    }
    let wire: Wire = match serde_json::from_slice(payload) {
        Ok(wire) => wire,
        Err(error) => return failed(&format!("the answer can't be read: {error}")),
    };
    if let Some(exception) = wire.exception {
        return exception_of(exception);
    }
    let value = wire.value.unwrap_or_default();
    // A result may be an object too: only both fields together say that there is none yet.
    if let (Some(task), Some(_)) = (value.get("agent_task_id").and_then(Value::as_str), value.get("state")) {
        return Answer::Running { agent_task: task.to_owned() };
    }
    Answer::Ended(Ending::Done(value.to_string()))
}

fn exception_of(exception: Exception) -> Answer {
    let Exception { message, blobstore_id } = exception;
    if let Some(blob) = blobstore_id.filter(|blob| !blob.is_empty()) {
        return Answer::LongWords { words: message, blob };
    }
    if message.starts_with("unknown message") {
        return Answer::Ended(Ending::UnknownMethod);
    }
    if message.contains("Task with id ") && message.ends_with(" could not be found") {
        return Answer::NoSuchTask;
    }
    Answer::Ended(Ending::Failed(words(&message)))
}

/// Returns an agent's words without what only says how we came to hear them: callers put the method in front again.
pub(crate) fn words(message: &str) -> String {
    let mut rest = message;
    if let Some((_method, after)) = rest.strip_prefix("Action Failed ").and_then(|rest| rest.split_once(": "))
    {
        rest = after;
    }
    if let Some((_task, after)) = rest.strip_prefix("Task ").and_then(|rest| rest.split_once(" result: ")) {
        rest = after;
    }
    // First: what is cut off must not be the part that tells a signature.
    let told = without_signatures(rest);
    match told.char_indices().nth_back(WORDS_CHARS_MAX) {
        Some((cut, _)) => format!("…{}", &told[cut..]),
        None => told,
    }
}

/// What stands before a signature in a URL that an agent was given.
const SIGNATURE: &str = "signature=";

/// Hides the signatures of URLs: an agent that can't fetch from one says from which.
fn without_signatures(words: &str) -> String {
    let mut parts = words.split(SIGNATURE);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let signs = |c: char| c.is_ascii_alphanumeric() || "-_%=.~".contains(c);
        told.push_str(SIGNATURE);
        told.push('…');
        told.push_str(part.trim_start_matches(signs));
    }
    told
}

impl Ending {
    /// Returns what callers of [`agent_api::Agents`] get.
    pub(crate) fn into_result(self, request: &Request) -> Result<Reply, AgentError> {
        let method = request.method.name();
        match self {
            Self::Done(json) => match serde_json::from_str(&json) {
                Ok(value) => Ok(Reply(value)),
                Err(error) => {
                    Err(AgentError::Failed { method, message: format!("the answer is not JSON: {error}") })
                }
            },
            Self::Failed(message) => Err(AgentError::Failed { method, message }),
            Self::UnknownMethod => Err(AgentError::UnknownMethod { method: method.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(ending: Ending) -> Answer {
        Answer::Ended(ending)
    }

    fn done(json: &str) -> Answer {
        ended(Ending::Done(json.to_owned()))
    }

    fn failed(words: &str) -> Answer {
        ended(Ending::Failed(words.to_owned()))
    }

    #[test]
    fn answers_as_bosh_s_agent_gave_them() {
        let task = "f08ff9d4-d23f-499b-7577-c9eed32d0424";
        let running = format!(r#"{{"value":{{"agent_task_id":"{task}","state":"running"}}}}"#);
        assert_eq!(read(running.as_bytes()), Answer::Running { agent_task: task.into() });
        assert_eq!(read(br#"{"value":"pong"}"#), done(r#""pong""#));
        assert_eq!(read(br#"{"value":{"state":"running"}}"#), done(r#"{"state":"running"}"#));
        assert_eq!(read(br#"{"value":null}"#), done("null"));
        let unknown = br#"{"exception":{"message":"unknown message no_such_method"}}"#;
        assert_eq!(read(unknown), ended(Ending::UnknownMethod));
        let lost =
            br#"{"exception":{"message":"Action Failed get_task: Task with id nope could not be found"}}"#;
        assert_eq!(read(lost), Answer::NoSuchTask);
        let scripts = format!(
            r#"{{"exception":{{"message":"Action Failed get_task: Task {task} result: 1 of 1 pre-start scripts failed."}}}}"#
        );
        assert_eq!(read(scripts.as_bytes()), failed("1 of 1 pre-start scripts failed."));
        let long = br#"{"exception":{"message":"short","blobstore_id":"b-1"}}"#;
        assert_eq!(read(long), Answer::LongWords { words: "short".into(), blob: "b-1".into() });
    }

    #[test]
    fn garbage_is_a_failure() {
        for garbage in [&b""[..], b"\xff\xfe", b"[]", b"7", br#"{"exception":7}"#, br#"{"value":"#] {
            assert!(matches!(read(garbage), Answer::Ended(Ending::Failed(_))), "{garbage:?}");
        }
        let deep = format!(r#"{{"value":{}"#, "[".repeat(100_000));
        assert!(matches!(read(deep.as_bytes()), Answer::Ended(Ending::Failed(_))));
        assert_eq!(read(&vec![b' '; ANSWER_BYTES_MAX + 1]), failed("the answer is too long"));
    }

    #[test]
    fn an_agent_that_repeats_a_url_repeats_no_signature() {
        let said = r#"Action Failed apply: Get "https://d/b?until=9&signature=aB-_9%3D": EOF; signature="#;
        assert_eq!(words(said), r#"Get "https://d/b?until=9&signature=…": EOF; signature=…"#);
    }

    #[test]
    fn of_very_long_words_the_end_is_kept() {
        let said = words(&format!("Action Failed apply: {}end", "é".repeat(WORDS_CHARS_MAX)));
        assert!(
            said.starts_with("…é") && said.ends_with("end") && said.chars().count() == WORDS_CHARS_MAX + 2
        );
    }
}
