//! Events and locks.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::{DeploymentName, ErrorCode, EventId, TaskId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use service::Page;
use state::command::NewEvent;
use state::query::{EventFilter, LockView};
use state::records::Event;

use super::Rest;
use super::answer::{Answer, Failure, JsonBody, told};
use super::deployments::all;
use super::login::Login;
use super::repeats;
use super::times;

/// Events in an answer, as in BOSH.
const EVENTS_MAX: usize = 200;

/// `locks`
pub(super) async fn locks(Login(caller): Login, State(rest): State<Rest>) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.locks(&caller, &page));
    let row = |lock: LockView| {
        let name = lock.name.to_string();
        let mut parts = name.split(':').skip(1).map(str::to_owned);
        let kind = parts.next().unwrap_or_default();
        json!({
            "type": kind,
            "resource": parts.collect::<Vec<_>>(),
            // Locks here have no lease that runs out: they end with their task.
            "timeout": format!("{}.0", lock.held_since.seconds()),
            "task_id": lock.holder.to_string(),
        })
    };
    Ok(Json(found.into_iter().map(row).collect::<Vec<_>>()).into_response())
}

/// Returns an event as BOSH shows it: what it has not got has no key.
fn event_row(event: &Event) -> Value {
    let mut row = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            row.insert(key.to_owned(), value);
        }
    };
    put("id", Some(json!(event.id.to_string())));
    put("parent_id", event.parent.map(|id| json!(id.to_string())));
    put("timestamp", Some(json!(event.at.seconds())));
    put("user", Some(json!(event.user)));
    put("action", Some(json!(event.action)));
    put("object_type", Some(json!(event.object_type)));
    put("object_name", event.object_name.as_ref().map(|name| json!(name)));
    put("task", event.task.map(|task| json!(task.to_string())));
    put("deployment", event.deployment.as_ref().map(|name| json!(name)));
    put("instance", event.instance.as_ref().map(|name| json!(name)));
    put("context", Some(json!(event.context)));
    put("error", event.error.as_ref().map(|error| json!(error)));
    Value::Object(row)
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct EventQuery {
    before_id: Option<u64>,
    task: Option<u64>,
    deployment: Option<String>,
    instance: Option<String>,
    user: Option<String>,
    action: Option<String>,
    object_type: Option<String>,
    object_name: Option<String>,
    before_time: Option<String>,
    after_time: Option<String>,
}

/// `events`
pub(super) async fn events(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<EventQuery>,
) -> Answer {
    let time = |text: &Option<String>, word: &str| match text {
        None => Ok(None),
        Some(text) => match times::read(text) {
            Some(at) => Ok(Some(at)),
            None => {
                Err(Failure::Text(StatusCode::BAD_REQUEST, format!("Invalid {word} parameter: '{text}' ")))
            }
        },
    };
    let filter = EventFilter {
        task: query.task.map(TaskId),
        deployment: query.deployment.map(DeploymentName::new),
        instance: query.instance,
        user: query.user.map(Into::into),
        action: query.action,
        object_type: query.object_type,
        object_name: query.object_name,
        until: time(&query.before_time, "before")?,
        // Strictly later than the second that is named, as in BOSH.
        from: time(&query.after_time, "after")?.map(|at| model::Timestamp(at.0 + 1000)),
    };
    let mut page = Page { size: EVENTS_MAX as u32, token: String::new() };
    let mut found: Vec<Event> = Vec::new();
    loop {
        let list = rest.door.service.events(&caller, filter.clone(), &page).await?;
        found.extend(list.rows.into_iter().filter(|e| query.before_id.is_none_or(|id| e.id.0 < id)));
        if found.len() >= EVENTS_MAX || list.next_page_token.is_empty() {
            break;
        }
        page.token = list.next_page_token;
    }
    found.truncate(EVENTS_MAX);
    Ok(Json(found.iter().map(event_row).collect::<Vec<_>>()).into_response())
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct EventBody {
    action: String,
    object_type: String,
    object_name: String,
    timestamp: Option<Value>,
    deployment: Option<String>,
    instance: Option<String>,
    error: Option<String>,
    context: Option<Value>,
}

/// Notes an event of somebody else: what health monitors and scripts did.
pub(super) async fn add(Login(caller): Login, State(rest): State<Rest>, parts: Parts, body: Bytes) -> Answer {
    let service = &rest.door.service;
    service.may_add_events(&caller)?;
    let JsonBody(wish) = JsonBody::<EventBody>::of(&body)?;
    if wish.object_name.is_empty() {
        return Err(told(
            ErrorCode::ValidationInvalidType,
            "'object_name' is needed: say what it was done to",
        ));
    }
    let context = match wish.context {
        None | Some(Value::Null) => Default::default(),
        Some(Value::Object(facts)) => facts.into_iter().collect(),
        Some(_) => return Err(told(ErrorCode::ValidationInvalidType, "'context' is no object")),
    };
    let at = match wish.timestamp.filter(|at| !at.is_null()) {
        None => None,
        Some(at) => {
            let text = at.as_str().map_or_else(|| at.to_string(), str::to_owned);
            let wrong =
                || Failure::Text(StatusCode::BAD_REQUEST, format!("Invalid timestamp parameter: '{text}' "));
            Some(times::read(&text).ok_or_else(wrong)?)
        }
    };
    let event = NewEvent {
        action: wish.action,
        object_type: wish.object_type,
        object_name: Some(wish.object_name),
        deployment: wish.deployment.map(DeploymentName::new),
        instance: wish.instance,
        task: None,
        at,
        context,
        error: wish.error,
    };
    let key = repeats::key(service, &caller, &parts, &body).await?;
    service.add_event(&caller, Some(key), event).await?;
    Ok(StatusCode::OK.into_response())
}

/// `event ID`
pub(super) async fn event(Login(caller): Login, State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let not_found = || Failure::Text(StatusCode::NOT_FOUND, "Event not found".into());
    let id = id.parse().map(EventId).map_err(|_| not_found())?;
    let found = rest.door.service.event(&caller, id).await?.ok_or_else(not_found)?;
    Ok(Json(event_row(&found)).into_response())
}
