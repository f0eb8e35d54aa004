//! Events and locks.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use model::{DeploymentName, ErrorCode, EventId, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::Page;
use state::command::NewEvent;
use state::query::{EventFilter, LockView};
use state::records::Event;

use super::Rest;
use super::answer::{Failure, told};
use super::content::{Query, Unread};
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, IsSet, List};
use super::repeats;
use super::times;

/// Events in an answer, as in BOSH.
const EVENTS_MAX: usize = 200;

/// A lock that somebody holds.
#[derive(JsonSchema, Serialize)]
pub(super) struct LockRow {
    /// `deployment`, `release` …
    r#type: String,
    /// Which of them.
    resource: Vec<String>,
    /// Since when, in Unix seconds: locks here have no lease that runs out, they end with their task.
    timeout: String,
    /// Whose it is.
    task_id: String,
}

/// `locks`
pub(super) async fn locks(Login(caller): Login, State(rest): State<Rest>) -> List<LockRow> {
    let service = &rest.door.service;
    let found = all!(page => service.locks(&caller, &page));
    let row = |lock: LockView| {
        let name = lock.name.to_string();
        let mut parts = name.split(':').skip(1).map(str::to_owned);
        let kind = parts.next().unwrap_or_default();
        LockRow {
            r#type: kind,
            resource: parts.collect(),
            timeout: format!("{}.0", lock.held_since.seconds()),
            task_id: lock.holder.to_string(),
        }
    };
    Ok(Json(found.into_iter().map(row).collect()))
}

/// An event, as BOSH shows it: what it has not got has no key.
#[derive(JsonSchema, Serialize)]
pub(super) struct EventRow {
    id: String,
    /// The event that this one ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    /// Unix seconds.
    timestamp: i64,
    user: String,
    /// `create`, `update`, `delete` …
    action: String,
    /// `deployment`, `instance`, `vm` …
    object_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    context: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Event> for EventRow {
    fn from(event: Event) -> Self {
        Self {
            id: event.id.to_string(),
            parent_id: event.parent.map(|id| id.to_string()),
            timestamp: event.at.seconds(),
            user: event.user.to_string(),
            action: event.action,
            object_type: event.object_type,
            object_name: event.object_name,
            task: event.task.map(|task| task.to_string()),
            deployment: event.deployment.map(|name| name.to_string()),
            instance: event.instance,
            context: event.context,
            error: event.error,
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct EventQuery {
    /// Only older ones than this.
    before_id: Option<u64>,
    /// Only those of a task.
    task: Option<u64>,
    deployment: Option<String>,
    /// `GROUP/UUID`
    instance: Option<String>,
    user: Option<String>,
    action: Option<String>,
    object_type: Option<String>,
    object_name: Option<String>,
    /// Only earlier ones: Unix seconds, or a date.
    before_time: Option<String>,
    /// Only later ones, by a second at least.
    after_time: Option<String>,
}

/// `events`
pub(super) async fn events(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<EventQuery>,
) -> List<EventRow> {
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
    Ok(Json(found.into_iter().map(EventRow::from).collect()))
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct EventBody {
    action: String,
    object_type: String,
    object_name: String,
    /// Unix seconds, or a date.
    timestamp: Option<Value>,
    deployment: Option<String>,
    instance: Option<String>,
    error: Option<String>,
    context: Option<Value>,
}

/// Notes an event of somebody else: what health monitors and scripts did.
pub(super) async fn add(
    Login(caller): Login,
    State(rest): State<Rest>,
    parts: Parts,
    body: Unread<EventBody>,
) -> Answer<IsSet> {
    let service = &rest.door.service;
    service.may_add_events(&caller)?;
    let wish = body.read()?;
    if wish.action.is_empty() || wish.object_type.is_empty() || wish.object_name.is_empty() {
        let text = "Action, object_type, object_name are required";
        return Err(told(ErrorCode::ValidationInvalidType, text));
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
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    service.add_event(&caller, Some(key), event).await?;
    Ok(IsSet)
}

/// `event ID`
pub(super) async fn event(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Json<EventRow>> {
    let not_found = || Failure::Text(StatusCode::NOT_FOUND, "Event not found".into());
    let id = id.parse().map(EventId).map_err(|_| not_found())?;
    let found = rest.door.service.event(&caller, id).await?.ok_or_else(not_found)?;
    Ok(Json(found.into()))
}
