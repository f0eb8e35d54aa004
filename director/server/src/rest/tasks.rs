//! Tasks, and their output as the CLI polls it.

use std::collections::BTreeMap;

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, ReferenceOr};
use aide::operation::ParamLocation;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use model::task::{OutputKind, Task, TaskState};
use model::{DeploymentName, ErrorCode, TaskId};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::Read;
use service::ops::{Output, TaskQuery};

use super::Rest;
use super::answer::{Failure, told};
use super::content::{Query, Unread, text_parameter};
use super::login::Login;
use super::outcome::{self, Answer, ByStatus, Done, List};

/// Bytes of output that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Tasks in a list, unless it is asked for the newest so many.
const LISTED_MAX: usize = 1000;

/// A task, as BOSH shows it.
#[derive(JsonSchema, Serialize)]
pub(super) struct TaskRow {
    id: u64,
    /// `queued`, `processing`, `cancelling`, `done`, `error` or `cancelled`.
    #[schemars(with = "String")]
    state: TaskState,
    description: String,
    /// When it ended, in Unix seconds; of a task that has not, null.
    timestamp: Option<i64>,
    started_at: Option<i64>,
    /// What it came to, or what went wrong.
    result: Option<String>,
    user: String,
    deployment: Option<String>,
    context_id: String,
}

impl From<&Task> for TaskRow {
    fn from(task: &Task) -> Self {
        // Of a task that has not ended, BOSH tells no time.
        let ended = task.finished_at.filter(|_| task.state.is_final());
        let result = match &task.error {
            // What of a cancelled task is an error is told among its events.
            Some(error) if task.state != TaskState::Cancelled => Some(error.message.clone()),
            _ => task.result.clone(),
        };
        Self {
            id: task.id.0,
            state: task.state,
            description: task.description(),
            timestamp: ended.map(|at| at.seconds()),
            started_at: task.started_at.map(|at| at.seconds()),
            result,
            user: task.user.to_string(),
            deployment: task.deployment.as_ref().map(ToString::to_string),
            context_id: task.context_id.clone(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    /// States, with commas between them.
    state: Option<String>,
    deployment: Option<String>,
    context_id: Option<String>,
    /// So many, the newest; what is no number counts as 1.
    limit: Option<String>,
    /// With anything but 1, tasks of all kinds.
    verbose: Option<String>,
}

/// `tasks`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> List<TaskRow> {
    let named = |name: &str| serde_json::from_value::<TaskState>(json!(name.trim()));
    let states = query.state.as_deref().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    // A state that there never is (`timeout`) has no tasks.
    let asked_for_states = query.state.is_some();
    let states: Vec<TaskState> = states.filter_map(|name| named(name).ok()).collect();
    if asked_for_states && states.is_empty() {
        return Ok(Json(Vec::new()));
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
    Ok(Json(tasks.iter().map(TaskRow::from).collect()))
}

fn number(text: &str) -> Result<TaskId, Failure> {
    let unknown = |_| told(ErrorCode::TaskNotFound, format!("Task {text} not found"));
    text.parse().map(TaskId).map_err(unknown)
}

/// `task`
pub(super) async fn one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Json<TaskRow>> {
    let found = rest.door.service.task(&caller, number(&id)?).await?;
    Ok(Json(TaskRow::from(&found.task)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct OutputQuery {
    /// `event`, `result`, `debug`, `cpi` or `none`; `debug` if none is said.
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
) -> Answer<TaskOutput> {
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
        return Ok(TaskOutput::None);
    }
    let asked = headers.get(RANGE).and_then(|range| first_byte(range.to_str().ok()?));
    let offset = asked.unwrap_or_default();
    let mut content = Vec::new();
    loop {
        let (service, caller, from) =
            (rest.door.service.clone(), caller.clone(), offset.saturating_add(content.len() as u64));
        let read = move || service.task_output(&caller, id, kind, from, PIECE_BYTES);
        let read = tokio::task::spawn_blocking(read).await;
        let (_, output) = read.map_err(|_| told(ErrorCode::SystemError, "reading the output failed"))??;
        let piece = whole(&rest, output, from).await?;
        if piece.is_empty() {
            break;
        }
        content.extend(piece);
    }
    // Logs are files, and there may be none; the others are always there.
    let may_lack = matches!(kind, OutputKind::Debug | OutputKind::Cpi);
    Ok(match (asked, content.is_empty()) {
        (None, true) if may_lack => TaskOutput::None,
        (None, _) => TaskOutput::Whole(content),
        (Some(_), true) => TaskOutput::NoMore { end: offset },
        (Some(_), false) => TaskOutput::Rest { offset, content },
    })
}

/// Output of a task, or a piece of it.
pub(super) enum TaskOutput {
    /// There is no such log.
    None,
    /// All of it.
    Whole(Vec<u8>),
    /// What there is from a byte on.
    Rest {
        /// From which on.
        offset: u64,
        /// The bytes.
        content: Vec<u8>,
    },
    /// Nothing from there on, so far.
    NoMore {
        /// How many bytes there are.
        end: u64,
    },
}

impl IntoResponse for TaskOutput {
    fn into_response(self) -> Response {
        let text = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        match self {
            Self::None => StatusCode::NO_CONTENT.into_response(),
            Self::Whole(content) => (text, content).into_response(),
            Self::Rest { offset, content } => {
                let end = offset + content.len() as u64;
                let range = [(CONTENT_RANGE, format!("bytes {offset}-{}/{end}", end - 1))];
                (StatusCode::PARTIAL_CONTENT, range, text, content).into_response()
            }
            Self::NoMore { end } => {
                let size = [(CONTENT_RANGE, format!("bytes */{end}"))];
                (StatusCode::RANGE_NOT_SATISFIABLE, size, "Byte range unsatisfiable\n").into_response()
            }
        }
    }
}

impl OperationOutput for TaskOutput {
    type Inner = Self;

    fn inferred_responses(ctx: &mut GenContext, operation: &mut Operation) -> ByStatus {
        let about = json_schema!({
            "type": "string", "pattern": "^bytes=[0-9]{1,18}-$", "description": "From which byte on (`bytes=N-`).",
        });
        operation.parameters.extend(text_parameter(ctx, "Range", (ParamLocation::Header, false), about));
        let of_range = |about: &str| {
            let mut answer = outcome::text(about);
            let range = outcome::header(json_schema!({ "type": "string", "pattern": "^bytes " }));
            answer.headers.insert("Content-Range".into(), ReferenceOr::Item(range));
            answer
        };
        vec![
            (Some(200), outcome::text("All of it.")),
            (Some(204), outcome::empty("There is no such log.")),
            (Some(206), of_range("What there is from the byte on.")),
            (Some(416), of_range("There is nothing from the byte on, so far.")),
        ]
    }
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
pub(super) async fn cancel(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Done> {
    rest.door.service.may_cancel(&caller)?;
    // What is cancelled already is told so: a repeat of this needs no key.
    match rest.door.service.cancel_task(&caller, None, number(&id)?).await {
        Ok(_) => Ok(Done),
        Err(service::ServiceError::Told(error)) if error.code == ErrorCode::TaskUnexpectedState.number() => {
            Err(Failure::Text(StatusCode::BAD_REQUEST, error.message))
        }
        Err(other) => Err(other.into()),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CancelWish {
    deployment: Option<String>,
    /// `queued`, `processing`, or both; `queued` if none is said.
    states: Option<Vec<String>>,
    /// BOSH's names for kinds of tasks.
    types: Option<Vec<String>>,
}

/// `cancel-tasks`
pub(super) async fn cancel_many(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Unread<CancelWish>,
) -> Answer<Done> {
    rest.door.service.may_cancel(&caller)?;
    let bad = |error: serde_json::Error| Failure::Text(StatusCode::BAD_REQUEST, error.to_string());
    let wish = body.object().map_err(bad)?;
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
    Ok(Done)
}

/// Returns the id that the operator's tools correlate by.
pub(super) fn context_id(parts: &Parts) -> &str {
    parts.headers.get("x-bosh-context-id").and_then(|value| value.to_str().ok()).unwrap_or_default()
}
