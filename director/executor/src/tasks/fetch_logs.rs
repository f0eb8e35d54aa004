//! `logs`: agents pack what they have, one archive each, and archives of several are packed together. A new leader asks again
//! under the same ids, so agents answer with what they have packed already.

use std::time::Duration;

use agent_api::Method;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::task::TaskError;
use model::{BlobDigest, ErrorCode, InstanceId, Timestamp};
use serde_json::Value;
use state::command::TaskEnd;

use super::asking::{ASKED_AT_ONCE, Member, NoAnswer};
use super::bundle::{self, Entry};
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

/// How long an agent may take to pack and upload.
const PACK: Duration = Duration::from_secs(30 * 60);

/// What the agents' requests are called.
const LOGS: &str = "logs";

/// The stage in which what several have packed is packed together.
const GROUP: &str = "Fetching group of logs";
const TOGETHER: &str = "Packing log files together";

/// Which logs.
#[derive(Clone, Copy)]
pub struct LogWish<'a> {
    /// Of these, as far as they have a VM.
    pub instances: &'a [InstanceId],
    /// Of these types.
    pub logs: &'a str,
    /// Files that match.
    pub filters: &'a [String],
}

/// What came of one instance.
type Packed = Result<Result<BlobDigest, NoAnswer>, Interrupted>;

/// Has the instances' logs packed; the task's result is the blob's id, and nothing else.
pub async fn fetch_logs(context: &TaskContext, wish: LogWish<'_>) -> Result<TaskEnd, Interrupted> {
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    let members = Member::all(context, wish.instances);
    if members.is_empty() {
        let text = "none of the instances has a VM any more";
        return Ok(TaskEnd::Error(TaskError::new(ErrorCode::InstanceVmMissing, text)));
    }
    let asking: Vec<BoxFuture<'_, Packed>> =
        members.iter().map(|member| pack(context, member, wish).boxed()).collect();
    let all = futures::stream::iter(asking).buffered(ASKED_AT_ONCE).collect::<Vec<Packed>>();
    let packed = tokio::select! {
        packed = all => packed,
        () = context.cancelled.cancelled() => {
            futures::future::join_all(members.iter().map(|member| member.give_up(context, LOGS))).await;
            return Ok(TaskEnd::Cancelled);
        }
    };
    // An answer that was cut short by the end of the lease says nothing about the agent.
    context.fence.check()?;
    let mut parts = Vec::new();
    for (member, packed) in members.iter().zip(packed) {
        match packed? {
            Ok(digest) => parts.push((file_name(member, started_at(context)), digest)),
            Err(NoAnswer::Failed(error)) => return Ok(TaskEnd::Error(error)),
            Err(NoAnswer::Cancelled) => return Ok(TaskEnd::Cancelled),
        }
    }
    let digest = match parts.as_slice() {
        [(_, only)] => only.clone(),
        several => match pack_together(context, several).await? {
            Ok(digest) => digest,
            Err(error) => return Ok(TaskEnd::Error(error)),
        },
    };
    context.leaves(&digest).await?;
    Ok(TaskEnd::Done(Some(digest.to_string())))
}

fn started_at(context: &TaskContext) -> Timestamp {
    context.task.started_at.unwrap_or(context.task.queued_at)
}

/// Returns the name of an instance's archive among others. The time is the task's, the same for every leader.
fn file_name(member: &Member, at: Timestamp) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]-[hour]-[minute]-[second]");
    let at =
        time::OffsetDateTime::from_unix_timestamp(at.seconds()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{}.{}.{}.tgz", member.spec.group, member.spec.id, at.format(&format).unwrap_or_default())
}

/// Has one agent pack its logs.
async fn pack(context: &TaskContext, member: &Member, wish: LogWish<'_>) -> Packed {
    let stage = format!("Fetching logs for {} ({})", member.slug(), member.spec.index);
    let part = "Finding and packing log files";
    let lines = Lines::new(context);
    lines.started(&stage, part, 1).await?;
    let filters = (!wish.filters.is_empty()).then(|| wish.filters.to_vec());
    let method = Method::FetchLogs { kind: wish.logs.to_owned(), filters };
    let packed = match member.ask(context, LOGS, method, PACK).await? {
        Ok(answer) => blob_in(context, member, &answer).await.map_err(NoAnswer::Failed),
        Err(no) => Err(no),
    };
    match &packed {
        Ok(digest) => {
            context.leaves(digest).await?;
            lines.finished(&stage, part, 1).await?;
        }
        Err(NoAnswer::Failed(error)) => lines.ended_badly(&stage, part, 1, error).await?,
        Err(NoAnswer::Cancelled) => {}
    }
    Ok(packed)
}

/// Returns the blob that an agent names, if the fleet holds it.
async fn blob_in(context: &TaskContext, member: &Member, answer: &Value) -> Result<BlobDigest, TaskError> {
    let wrong = |text: &str| {
        let text = format!("{}: {text}", member.slug());
        TaskError::new(ErrorCode::AgentInvalidTaskResult, text)
    };
    let Some(id) = answer.get("blobstore_id").and_then(Value::as_str) else {
        return Err(wrong("the agent says that it has packed its logs, and not where they are"));
    };
    let digest = BlobDigest::new(id);
    match context.ports.blobs.stat(&digest).await {
        Ok(Some(_)) => Ok(digest),
        Ok(None) => Err(wrong("the agent says that it has uploaded its logs, but nobody holds them")),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

async fn pack_together(
    context: &TaskContext,
    parts: &[(String, BlobDigest)],
) -> Result<Result<BlobDigest, TaskError>, Interrupted> {
    let lines = Lines::new(context);
    lines.started(GROUP, TOGETHER, 1).await?;
    let entries: Vec<Entry> =
        parts.iter().map(|(name, digest)| Entry::Blob(name.clone(), digest.clone())).collect();
    match bundle::together(&*context.ports.blobs, &entries, started_at(context)).await {
        Ok(digest) => {
            lines.finished(GROUP, TOGETHER, 1).await?;
            Ok(Ok(digest))
        }
        Err(error) => {
            let text = format!("the logs can't be packed together: {}", bundle::told(&error));
            let error = TaskError::plain(text);
            lines.ended_badly(GROUP, TOGETHER, 1, &error).await?;
            Ok(Err(error))
        }
    }
}
