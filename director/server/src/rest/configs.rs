//! Configs: the generic paths, and those of cloud, runtime and CPI configs that the CLI's typed commands use.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use model::config::StoredConfig;
use model::{ConfigId, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};
use service::ops::{ConfigSide, PutConfig};
use service::{Caller, ServiceError};
use state::command::Refusal;

use super::Rest;
use super::answer::{Answer, Failure, not_found_at, told};
use super::deployments::{all, lines, text};
use super::login::Login;
use super::times;

fn row(config: &StoredConfig, current: bool) -> Value {
    json!({
        // Ids of configs are text, as in BOSH.
        "id": config.id.0.to_string(),
        "type": config.kind,
        "name": config.name,
        "content": config.content,
        "created_at": times::dated(config.created_at),
        "team": config.team,
        "current": current,
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    r#type: String,
    name: String,
    limit: Option<String>,
    latest: Option<String>,
}

impl ListQuery {
    /// Returns how many versions of each config are wanted.
    fn versions(&self) -> Result<usize, Failure> {
        let bad = |text: &str| told(ErrorCode::BadRequest, text);
        let latest = match self.latest.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(bad("'latest' must be 'true' or 'false'")),
        };
        let limit = self.limit.as_deref().map(str::parse::<usize>).transpose();
        let limit = limit.map_err(|_| bad("'limit' must be a number"))?;
        match (limit, latest) {
            (Some(0), _) => Err(bad("'limit' must be larger than zero")),
            (Some(limit), _) => Ok(limit),
            (None, Some(false)) => Ok(usize::MAX),
            (None, _) => Ok(1),
        }
    }
}

/// Lists configs by type and name, `default` first, and of each the newest versions.
async fn newest(
    rest: &Rest,
    caller: &Caller,
    query: &ListQuery,
    versions: usize,
) -> Result<Vec<(StoredConfig, bool)>, ServiceError> {
    let (kind, name, service) = (&query.r#type, &query.name, &rest.door.service);
    let history = versions > 1;
    let mut found = all!(page => service.configs(caller, kind.clone(), name.clone(), history, &page));
    found.sort_by_key(|(config, _)| {
        (config.kind.clone(), config.name != "default", config.name.clone(), std::cmp::Reverse(config.id))
    });
    let (mut kept, mut of_this) = (Vec::<(StoredConfig, bool)>::new(), 0);
    // The history has what was deleted, too.
    for (config, current) in found.into_iter().filter(|(config, _)| !config.deleted) {
        let same = |last: &(StoredConfig, bool)| last.0.kind == config.kind && last.0.name == config.name;
        of_this = if kept.last().is_some_and(same) { of_this + 1 } else { 1 };
        if of_this <= versions {
            kept.push((config, current));
        }
    }
    Ok(kept)
}

/// `configs`, `config`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let versions = query.versions()?;
    let found = newest(&rest, &caller, &query, versions).await?;
    Ok(Json(found.iter().map(|(config, current)| row(config, *current)).collect::<Vec<_>>()).into_response())
}

fn config_id(text: &str) -> Result<ConfigId, Failure> {
    let unknown = |_| told(ErrorCode::ConfigNotFound, format!("Config {text} not found"));
    text.parse().map(ConfigId).map_err(unknown)
}

/// `config ID`
pub(super) async fn one(Login(caller): Login, State(rest): State<Rest>, Path(id): Path<String>) -> Answer {
    let (config, current) = rest.door.service.config(&caller, Some(config_id(&id)?), "", "").await?;
    Ok(Json(row(&config, current)).into_response())
}

#[derive(Deserialize)]
struct PutWish {
    r#type: Option<String>,
    name: Option<String>,
    content: Option<Value>,
    expected_latest_id: Option<String>,
}

fn json_of<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    let bad =
        |error: serde_json::Error| told(ErrorCode::BadJson, format!("Invalid JSON request body: {error}"));
    let value: Value = serde_json::from_slice(body).map_err(bad)?;
    if !value.is_object() {
        return Err(told(ErrorCode::BadRequest, "JSON object expected"));
    }
    let bad = |error: serde_json::Error| told(ErrorCode::BadRequest, error.to_string());
    serde_json::from_value(value).map_err(bad)
}

/// Returns a config's content, which is YAML in a text.
fn content_of(content: Option<Value>) -> Result<String, Failure> {
    match content {
        Some(Value::String(content)) => Ok(content),
        Some(_) | None => Err(told(ErrorCode::BadConfig, "Config must be valid YAML: 'content' is no text")),
    }
}

fn required(value: Option<String>, name: &str) -> Result<String, Failure> {
    let missing = || told(ErrorCode::BadRequest, format!("'{name}' is required"));
    value.filter(|text| !text.is_empty()).ok_or_else(missing)
}

/// `update-config`
pub(super) async fn put(Login(caller): Login, State(rest): State<Rest>, body: Bytes) -> Answer {
    let wish: PutWish = json_of(&body)?;
    let expected = wish.expected_latest_id.filter(|id| !id.is_empty());
    let put = PutConfig {
        kind: required(wish.r#type, "type")?,
        name: required(wish.name, "name")?,
        content: content_of(wish.content)?,
        expected_latest: expected.as_deref().map(config_id).transpose()?,
    };
    let stored = rest.door.service.put_config(&caller, None, put).await;
    let (id, _) = match stored {
        Err(ServiceError::Refused(Refusal::ConfigMoved { latest, .. })) => {
            let (latest, expected) = (latest.0.to_string(), expected.unwrap_or_default());
            let text = format!("Latest Id: '{latest}' does not match expected latest id");
            let body = json!({ "latest_id": latest, "expected_latest_id": expected, "description": text });
            return Ok((StatusCode::PRECONDITION_FAILED, Json(body)).into_response());
        }
        other => other?,
    };
    let (config, current) = rest.door.service.own_config(&caller, id).await?;
    Ok((StatusCode::CREATED, Json(row(&config, current))).into_response())
}

#[derive(Deserialize)]
struct DiffWish {
    r#type: Option<String>,
    name: Option<String>,
    content: Option<String>,
    from: Option<DiffSide>,
    to: Option<DiffSide>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiffSide {
    id: String,
    content: String,
}

impl DiffSide {
    fn side(self) -> Result<ConfigSide, Failure> {
        match self.id.is_empty() {
            true => Ok(ConfigSide::Text(self.content)),
            false => Ok(ConfigSide::Id(config_id(&self.id)?)),
        }
    }
}

/// `diff-config`, and what `update-config` shows first.
pub(super) async fn diff(Login(caller): Login, State(rest): State<Rest>, body: Bytes) -> Answer {
    const FORMATS: &str = "The following request formats are allowed:\n\
        1. {\"from\":<config>,\"to\":<config>} where <config> is either {\"id\":\"<id>\"} or {\"content\":\"<content>\"}\n\
        2. {\"type\":\"<type>\",\"name\":\"<name>\",\"content\":\"<content>\"}";
    let wish: DiffWish = json_of(&body)?;
    let is_latest = wish.from.is_none();
    let (from, to) = match (wish.from, wish.to, wish.r#type, wish.name, wish.content) {
        (Some(from), Some(to), None, None, None) => (from.side()?, to.side()?),
        (None, None, Some(kind), Some(name), Some(content)) => {
            (ConfigSide::Latest { kind, name }, ConfigSide::Text(content))
        }
        _ => return Err(told(ErrorCode::BadRequest, FORMATS)),
    };
    match rest.door.service.diff_configs(&caller, from, to).await {
        Ok((found, id)) => {
            let mut answer = json!({ "diff": lines(found) });
            // The CLI says with `expected_latest_id` which version it has compared with.
            if is_latest {
                answer["from"] = json!({ "id": id.map_or(0, |id| id.0).to_string() });
            }
            Ok(Json(answer).into_response())
        }
        Err(ServiceError::Told(error)) if error.code != ErrorCode::ConfigNotFound.number() => {
            let text = format!("Unable to diff config content: {}", error.message);
            Ok((StatusCode::BAD_REQUEST, Json(json!({ "diff": [], "error": text }))).into_response())
        }
        Err(other) => Err(other.into()),
    }
}

/// `delete-config`. The CLI is told by 404 that there was nothing to delete.
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let kind = required(Some(query.r#type), "type")?;
    let name = required(Some(query.name), "name")?;
    match rest.door.service.delete_config(&caller, None, &kind, &name).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Ok(not_found_at("/configs")),
    }
}

/// `delete-config ID`
pub(super) async fn delete_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer {
    rest.door.service.delete_config_version(&caller, None, config_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes the three handlers of a type of config with paths of its own.
macro_rules! typed {
    ($kind:literal, $list:ident, $put:ident, $diff:ident) => {
        #[doc = concat!("`", $kind, "-config`")]
        pub(super) async fn $list(
            Login(caller): Login,
            State(rest): State<Rest>,
            Query(query): Query<ListQuery>,
        ) -> Answer {
            let query = ListQuery { r#type: $kind.into(), ..query };
            list_typed(&rest, &caller, query).await
        }

        #[doc = concat!("`update-", $kind, "-config`")]
        pub(super) async fn $put(
            Login(caller): Login,
            State(rest): State<Rest>,
            Query(query): Query<ListQuery>,
            body: Bytes,
        ) -> Answer {
            put_typed(&rest, &caller, $kind, query.name, &body).await
        }

        #[doc = concat!("What `update-", $kind, "-config` shows first.")]
        pub(super) async fn $diff(
            Login(caller): Login,
            State(rest): State<Rest>,
            Query(query): Query<ListQuery>,
            body: Bytes,
        ) -> Answer {
            rest.door.service.may_change_typed(&caller)?;
            let from = ConfigSide::Latest { kind: $kind.into(), name: or_default(query.name) };
            let to = ConfigSide::Text(document(&body)?);
            let (found, _) = rest.door.service.diff_configs(&caller, from, to).await?;
            Ok(Json(json!({ "diff": lines(found) })).into_response())
        }
    };
}

typed!("cloud", list_cloud, put_cloud, diff_cloud);
typed!("runtime", list_runtime, put_runtime, diff_runtime);
typed!("cpi", list_cpi, put_cpi, diff_cpi);

/// Reads a body that must be a document. These paths complain about it as about a manifest.
fn document(body: &Bytes) -> Result<String, Failure> {
    let content = text(body)?;
    model::yaml::parse_mapping(&content).map_err(|error| Failure::Service(ServiceError::Told(error)))?;
    Ok(content)
}

fn or_default(name: String) -> String {
    if name.is_empty() { "default".into() } else { name }
}

async fn list_typed(rest: &Rest, caller: &Caller, query: ListQuery) -> Answer {
    rest.door.service.may_read_typed(caller, &query.r#type)?;
    let bad = |text: String| Failure::Text(StatusCode::BAD_REQUEST, text);
    let limit = query.limit.as_deref().ok_or_else(|| bad("limit is required".into()))?;
    if limit.parse::<usize>().is_err() {
        return Err(bad(format!("limit is invalid: '{limit}' is not an integer")));
    }
    let versions = query.versions()?;
    let query = ListQuery { name: or_default(query.name), ..query };
    let found = newest(rest, caller, &query, versions).await?;
    let row = |(config, _): &(StoredConfig, bool)| json!({ "properties": config.content, "created_at": times::dated(config.created_at) });
    Ok(Json(found.iter().map(row).collect::<Vec<_>>()).into_response())
}

async fn put_typed(rest: &Rest, caller: &Caller, kind: &str, name: String, body: &Bytes) -> Answer {
    rest.door.service.may_change_typed(caller)?;
    let (kind, name) = (kind.to_owned(), or_default(name));
    let put = PutConfig { kind, name, content: document(body)?, expected_latest: None };
    rest.door.service.put_config(caller, None, put).await?;
    Ok(StatusCode::CREATED.into_response())
}
