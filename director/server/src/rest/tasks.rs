//! Tasks, and their output as the CLI polls it.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use model::task::{OutputKind, Task, TaskState};
use model::{DeploymentName, ErrorCode, TaskId};
use serde::Deserialize;
use serde_json::{Value, json};
use service::Read;
use service::ops::{Output, TaskQuery};

use super::Rest;
use super::answer::{Answer, Failure, object, told};
use super::login::Login;

/// Bytes of output that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Tasks in a list, unless it is asked for the newest so many.
const LISTED_MAX: usize = 1000;

/// Returns a task as BOSH shows it.
fn task(task: &Task) -> Value {
    // Of a task that has not ended, BOSH tells no time.
    let ended = task.finished_at.filter(|_| task.state.is_final());
    let result = match &task.error {
        // What of a cancelled task is an error is told among its events.
        Some(error) if task.state != TaskState::Cancelled => Some(error.message.clone()),
        _ => task.result.clone(),
    };
    json!({
        "id": task.id.0,
        "state": task.state,
        "description": task.description(),
        "timestamp": ended.map(|at| at.seconds()),
        "started_at": task.started_at.map(|at| at.seconds()),
        "result": result,
        "user": task.user,
        "deployment": task.deployment,
        "context_id": task.context_id,
    })
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    state: Option<String>,
    deployment: Option<String>,
    context_id: Option<String>,
    limit: Option<String>,
    verbose: Option<String>,
}

/// `tasks`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let named = |name: &str| serde_json::from_value::<TaskState>(json!(name.trim()));
    let states = query.state.as_deref().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    // A state that there never is (`timeout`) has no tasks.
    let asked_for_states = query.state.is_some();
    let states: Vec<TaskState> = states.filter_map(|name| named(name).ok()).collect();
    if asked_for_states && states.is_empty() {
        return Ok(Json(json!([])).into_response());
    }
    // As in BOSH, what is no number counts as one.
    let limit = query.limit.map_or(LISTED_MAX, |text| text.parse().unwrap_or(1).max(1));
    let wanted = TaskQuery {
        states,
        deployment: query.deployment.map(DeploymentName::new),
        context_id: query.context_id,
        all_kinds: query.verbose.as_deref().is_some_and(|verbose| verbose != "1"),
        limit: limit.min(LISTED_MAX),
    };
    let tasks = rest.door.service.newest_tasks(&caller, wanted).await?;
    Ok(Json(tasks.iter().map(task).collect::<Vec<_>>()).into_response())
}

fn number(text: &str) -> Result<TaskId, Failure> {
    let unknown = |_| told(ErrorCode::TaskNotFound, format!("Task {text} not found"));
    text.parse().map(TaskId).map_err(unknown)
}

/// `task`
pub(super) async fn one(Login(caller): Login, State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let found = rest.door.service.task(&caller, number(&id)?).await?;
    Ok(Json(task(&found.task)).into_response())
}

#[derive(Deserialize)]
pub(super) struct OutputQuery {
    r#type: Option<String>,
}

/// A task's output, from a byte on. All that there is: the CLI asks once more after it has seen the task's end, and then
/// never again.
pub(super) async fn output(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
    Query(query): Query<OutputQuery>,
    headers: HeaderMap,
) -> Answer {
    let kind = match query.r#type.as_deref() {
        Some("event") => OutputKind::Event,
        Some("result") => OutputKind::Result,
        None | Some("debug") => OutputKind::Debug,
        Some("cpi") => OutputKind::Cpi,
        // Nothing of it, but only for those who might see something.
        Some("none") => OutputKind::Event,
        Some(other) => {
            let text = format!("Unknown type of task output '{other}'");
            return Err(told(ErrorCode::UnauthorizedError, text));
        }
    };
    let id = number(&id)?;
    // A client that saw a byte, or the end, at another replica must not be told here that there is none.
    rest.door.service.look(Read::Linearizable).await?;
    rest.door.service.may_follow(&caller, id, kind)?;
    if query.r#type.as_deref() == Some("none") {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let asked = headers.get(RANGE).and_then(|range| first_byte(range.to_str().ok()?));
    let offset = asked.unwrap_or_default();
    let mut content = Vec::new();
    loop {
        let (service, caller, from) =
            (rest.door.service.clone(), caller.clone(), offset + content.len() as u64);
        let read = move || service.task_output(&caller, id, kind, from, PIECE_BYTES);
        let read = tokio::task::spawn_blocking(read).await;
        let (_, output) = read.map_err(|_| told(ErrorCode::SystemError, "reading the output failed"))??;
        let piece = whole(&rest, output, from).await?;
        if piece.is_empty() {
            break;
        }
        content.extend(piece);
    }
    let end = offset + content.len() as u64;
    let text = [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned())];
    Ok(match (asked, content.is_empty()) {
        // Logs are files, and there may be none; the others are always there.
        (None, true) if matches!(kind, OutputKind::Debug | OutputKind::Cpi) => {
            StatusCode::NO_CONTENT.into_response()
        }
        (None, _) => (text, content).into_response(),
        (Some(_), true) => {
            let size = [(CONTENT_RANGE, format!("bytes */{offset}"))];
            (StatusCode::RANGE_NOT_SATISFIABLE, size, "Byte range unsatisfiable\n").into_response()
        }
        (Some(_), false) => {
            let range = [(CONTENT_RANGE, format!("bytes {offset}-{}/{end}", end - 1))];
            (StatusCode::PARTIAL_CONTENT, range, text, content).into_response()
        }
    })
}

/// Returns the bytes of a piece of output from an offset on.
async fn whole(rest: &Rest, output: Output, from: u64) -> Result<Vec<u8>, Failure> {
    let segments = match output {
        Output::Bytes(bytes) => return Ok(bytes),
        Output::Segments(segments) => segments,
    };
    let mut content = Vec::new();
    for segment in segments {
        let read = executor::blobs::read_whole(&*rest.door.blobs, &segment.blob).await;
        let piece =
            read.map_err(|error| Failure::Text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
        let skip = (from + content.len() as u64).saturating_sub(segment.offset) as usize;
        content.extend(piece.get(skip..).unwrap_or_default());
    }
    Ok(content)
}

/// Reads `bytes=N-`.
fn first_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok()
}

/// `cancel-task`
pub(super) async fn cancel(Login(caller): Login, State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    rest.door.service.may_cancel(&caller)?;
    // What is cancelled already is told so: a repeat of this needs no key.
    match rest.door.service.cancel_task(&caller, None, number(&id)?).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(service::ServiceError::Told(error)) if error.code == ErrorCode::TaskUnexpectedState.number() => {
            Err(Failure::Text(StatusCode::BAD_REQUEST, error.message))
        }
        Err(other) => Err(other.into()),
    }
}

#[derive(Deserialize)]
struct CancelWish {
    deployment: Option<String>,
    states: Option<Vec<String>>,
    types: Option<Vec<String>>,
}

/// `cancel-tasks`
pub(super) async fn cancel_many(Login(caller): Login, State(rest): State<Rest>, body: Bytes) -> Answer {
    rest.door.service.may_cancel(&caller)?;
    let bad = |error: serde_json::Error| Failure::Text(StatusCode::BAD_REQUEST, error.to_string());
    let wish: CancelWish = object(&body).map_err(bad)?;
    let names = wish.states.unwrap_or_else(|| vec!["queued".into()]);
    let known = BTreeMap::from([("queued", TaskState::Queued), ("processing", TaskState::Processing)]);
    let state = |name: &String| {
        let text = format!("{name} is not one of the cancellable states: queued, processing");
        known.get(name.as_str()).copied().ok_or(Failure::Text(StatusCode::BAD_REQUEST, text))
    };
    let query = TaskQuery {
        states: names.iter().map(state).collect::<Result<_, _>>()?,
        deployment: wish.deployment.map(DeploymentName::new),
        context_id: None,
        all_kinds: true,
        limit: usize::MAX,
    };
    for task in rest.door.service.newest_tasks(&caller, query).await? {
        let wanted = |types: &Vec<String>| types.iter().any(|name| name == task.kind.bosh_type());
        if !wish.types.as_ref().is_none_or(wanted) {
            continue;
        }
        match rest.door.service.cancel_task(&caller, None, task.id).await {
            // It has ended by itself meanwhile.
            Err(service::ServiceError::Told(error))
                if error.code == ErrorCode::TaskUnexpectedState.number() => {}
            other => drop(other?),
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Returns the id that the operator's tools correlate by.
pub(super) fn context_id(parts: &Parts) -> &str {
    parts.headers.get("x-bosh-context-id").and_then(|value| value.to_str().ok()).unwrap_or_default()
}
