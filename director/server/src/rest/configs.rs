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
use super::answer::{Answer, Failure, told};
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
        "created_at": times::written(config.created_at),
        "team": null,
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
            Some(_) => return Err(bad("'latest' should be 'true' or 'false'")),
        };
        let limit = self.limit.as_deref().map(str::parse::<usize>).transpose();
        let limit = limit.map_err(|_| bad("'limit' should be a number"))?;
        match (limit, latest) {
            (Some(0), _) => Err(bad("'limit' should be at least 1")),
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
    for (config, current) in found {
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
    content: Option<String>,
    expected_latest_id: Option<String>,
}

fn json_of<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    let bad = |error: serde_json::Error| {
        told(ErrorCode::BadJson, format!("the body is not what it should be: {error}"))
    };
    serde_json::from_slice(body).map_err(bad)
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
        content: required(wish.content, "content")?,
        expected_latest: expected.as_deref().map(config_id).transpose()?,
    };
    let stored = rest.door.service.put_config(&caller, None, put).await;
    let (id, _) = match stored {
        Err(ServiceError::Refused(Refusal::ConfigMoved { latest, .. })) => {
            let (latest, expected) = (latest.0.to_string(), expected.unwrap_or_default());
            let text = format!("The latest id is '{latest}', '{expected}' was expected");
            let body = json!({ "latest_id": latest, "expected_latest_id": expected, "description": text });
            return Ok((StatusCode::PRECONDITION_FAILED, Json(body)).into_response());
        }
        other => other?,
    };
    let (config, current) = rest.door.service.config(&caller, Some(id), "", "").await?;
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
    let wish: DiffWish = json_of(&body)?;
    let (from, to) = match (wish.from, wish.to) {
        (Some(from), Some(to)) => (from.side()?, to.side()?),
        _ => {
            let (kind, name) = (required(wish.r#type, "type")?, required(wish.name, "name")?);
            (ConfigSide::Latest { kind, name }, ConfigSide::Text(wish.content.unwrap_or_default()))
        }
    };
    difference(&rest, &caller, from, to).await
}

async fn difference(rest: &Rest, caller: &Caller, from: ConfigSide, to: ConfigSide) -> Answer {
    match rest.door.service.diff_configs(caller, from, to).await {
        Ok((found, id)) => {
            let from = id.map_or(0, |id| id.0).to_string();
            Ok(Json(json!({ "diff": lines(found), "from": { "id": from } })).into_response())
        }
        Err(ServiceError::Told(error)) if error.code != ErrorCode::ConfigNotFound.number() => {
            let body = json!({ "diff": [], "error": error.message });
            Ok((StatusCode::BAD_REQUEST, Json(body)).into_response())
        }
        Err(other) => Err(other.into()),
    }
}

async fn delete_named(rest: &Rest, caller: &Caller, kind: &str, name: &str) -> Answer {
    // The CLI is told by 404 that there was nothing to delete.
    rest.door.service.config(caller, None, kind, name).await?;
    rest.door.service.delete_config(caller, None, kind, name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `delete-config`
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let kind = required(Some(query.r#type), "type")?;
    delete_named(&rest, &caller, &kind, &required(Some(query.name), "name")?).await
}

/// `delete-config ID`
pub(super) async fn delete_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer {
    let (config, _) = rest.door.service.config(&caller, Some(config_id(&id)?), "", "").await?;
    delete_named(&rest, &caller, &config.kind, &config.name).await
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
            let from = ConfigSide::Latest { kind: $kind.into(), name: or_default(query.name) };
            difference(&rest, &caller, from, ConfigSide::Text(text(&body)?)).await
        }
    };
}

typed!("cloud", list_cloud, put_cloud, diff_cloud);
typed!("runtime", list_runtime, put_runtime, diff_runtime);
typed!("cpi", list_cpi, put_cpi, diff_cpi);

fn or_default(name: String) -> String {
    if name.is_empty() { "default".into() } else { name }
}

async fn list_typed(rest: &Rest, caller: &Caller, query: ListQuery) -> Answer {
    if query.limit.is_none() {
        let text = "limit is required\n".to_owned();
        return Err(Failure::Text(StatusCode::BAD_REQUEST, text));
    }
    let versions = query.versions()?;
    let query = ListQuery { name: or_default(query.name), ..query };
    let found = newest(rest, caller, &query, versions).await?;
    let row = |(config, _): &(StoredConfig, bool)| json!({ "properties": config.content, "created_at": times::written(config.created_at) });
    Ok(Json(found.iter().map(row).collect::<Vec<_>>()).into_response())
}

async fn put_typed(rest: &Rest, caller: &Caller, kind: &str, name: String, body: &Bytes) -> Answer {
    let (kind, name) = (kind.to_owned(), or_default(name));
    let put = PutConfig { kind, name, content: text(body)?, expected_latest: None };
    rest.door.service.put_config(caller, None, put).await?;
    Ok(StatusCode::CREATED.into_response())
}
