//! Configs: the generic paths, and those of cloud, runtime and CPI configs that the CLI's typed commands use.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::Operation;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::config::StoredConfig;
use model::{ConfigId, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::ops::{ConfigSide, PutConfig};
use service::{Caller, ServiceError};
use state::command::Refusal;

use super::Rest;
use super::answer::{self, ErrorBody, Failure, no_such_endpoint, told};
use super::content::{Query, Unread, Yaml, media};
use super::deployments::{Line, all, lines};
use super::login::Login;
use super::outcome::{self, Answer, ByStatus, Done, List, Stored};
use super::times;

/// A version of a config.
#[derive(JsonSchema, Serialize)]
pub(super) struct ConfigRow {
    /// Ids of configs are text, as in BOSH.
    id: String,
    r#type: String,
    name: String,
    /// As it was sent.
    content: String,
    created_at: String,
    /// Who owns it.
    team: Option<String>,
    /// Whether it is the newest.
    current: bool,
}

impl ConfigRow {
    fn new(config: StoredConfig, current: bool) -> Self {
        Self {
            id: config.id.0.to_string(),
            r#type: config.kind,
            name: config.name,
            content: config.content,
            created_at: times::dated(config.created_at),
            team: config.team,
            current,
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ListQuery {
    /// `cloud`, `runtime`, `cpi`, or any other.
    r#type: String,
    name: String,
    /// How many versions of each; 1, if neither this nor `latest` is said.
    limit: Option<String>,
    /// `false` for all versions.
    #[schemars(with = "Option<bool>")]
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
) -> List<ConfigRow> {
    let versions = query.versions()?;
    let found = newest(&rest, &caller, &query, versions).await?;
    Ok(Json(found.into_iter().map(|(config, current)| ConfigRow::new(config, current)).collect()))
}

fn config_id(text: &str) -> Result<ConfigId, Failure> {
    let unknown = |_| told(ErrorCode::ConfigNotFound, format!("Config {text} not found"));
    text.parse().map(ConfigId).map_err(unknown)
}

/// `config ID`
pub(super) async fn one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Json<ConfigRow>> {
    let (config, current) = rest.door.service.config(&caller, Some(config_id(&id)?), "", "").await?;
    Ok(Json(ConfigRow::new(config, current)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PutWish {
    r#type: Option<String>,
    name: Option<String>,
    /// YAML in a text.
    #[schemars(with = "Option<String>")]
    content: Option<Value>,
    /// The newest version that was seen; 0 for none.
    expected_latest_id: Option<String>,
}

fn json_of<T: serde::de::DeserializeOwned>(body: &Unread<T>) -> Result<T, Failure> {
    let bad =
        |error: serde_json::Error| told(ErrorCode::BadJson, format!("Invalid JSON request body: {error}"));
    let value: Value = serde_json::from_slice(&body.bytes).map_err(bad)?;
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

/// What became of a config that was sent.
pub(super) enum PutAnswer {
    /// It is stored, or was there already.
    Stored(ConfigRow),
    /// It is not: there is a newer one than was seen.
    Moved(ConfigMoved),
}

/// That there is a newer version than was seen.
#[derive(JsonSchema, Serialize)]
pub(super) struct ConfigMoved {
    latest_id: String,
    expected_latest_id: String,
    description: String,
}

impl IntoResponse for PutAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Stored(row) => (StatusCode::CREATED, Json(row)).into_response(),
            Self::Moved(moved) => (StatusCode::PRECONDITION_FAILED, Json(moved)).into_response(),
        }
    }
}

impl OperationOutput for PutAnswer {
    type Inner = Self;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> ByStatus {
        let (row, moved) =
            (ctx.schema.subschema_for::<ConfigRow>(), ctx.schema.subschema_for::<ConfigMoved>());
        vec![
            (Some(201), outcome::with("It is stored, or was there already.", JSON, row)),
            (Some(412), outcome::with("There is a newer one than was seen.", JSON, moved)),
        ]
    }
}

const JSON: &str = "application/json";

/// `update-config`
pub(super) async fn put(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Unread<PutWish>,
) -> Answer<PutAnswer> {
    let wish = json_of(&body)?;
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
            let latest_id = latest.0.to_string();
            let description = format!("Latest Id: '{latest_id}' does not match expected latest id");
            let expected_latest_id = expected.unwrap_or_default();
            return Ok(PutAnswer::Moved(ConfigMoved { latest_id, expected_latest_id, description }));
        }
        other => other?,
    };
    let (config, current) = rest.door.service.own_config(&caller, id).await?;
    Ok(PutAnswer::Stored(ConfigRow::new(config, current)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DiffWish {
    r#type: Option<String>,
    name: Option<String>,
    content: Option<String>,
    from: Option<DiffSide>,
    to: Option<DiffSide>,
}

#[derive(Default, Deserialize, JsonSchema)]
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
pub(super) async fn diff(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Unread<DiffWish>,
) -> Answer<DiffAnswer> {
    const FORMATS: &str = "The following request formats are allowed:\n\
        1. {\"from\":<config>,\"to\":<config>} where <config> is either {\"id\":\"<id>\"} or {\"content\":\"<content>\"}\n\
        2. {\"type\":\"<type>\",\"name\":\"<name>\",\"content\":\"<content>\"}";
    let wish = json_of(&body)?;
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
            // The CLI says with `expected_latest_id` which version it has compared with.
            let from = is_latest.then(|| ConfigVersion { id: id.map_or(0, |id| id.0).to_string() });
            Ok(DiffAnswer::Diff(ConfigDiff { diff: lines(found), from }))
        }
        Err(ServiceError::Told(error)) if error.code != ErrorCode::ConfigNotFound.number() => {
            let error = format!("Unable to diff config content: {}", error.message);
            Ok(DiffAnswer::None(NoDiff { diff: Vec::new(), error }))
        }
        Err(other) => Err(other.into()),
    }
}

/// What a config would change, or why that can't be told.
pub(super) enum DiffAnswer {
    /// What.
    Diff(ConfigDiff),
    /// Why not.
    None(NoDiff),
}

/// What a config would change.
#[derive(JsonSchema, Serialize)]
pub(super) struct ConfigDiff {
    diff: Vec<Line>,
    /// What it was compared with, if that was the newest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<ConfigVersion>,
}

/// A version of a config; 0 if there is none.
#[derive(JsonSchema, Serialize)]
struct ConfigVersion {
    id: String,
}

/// Why there is no difference.
#[derive(JsonSchema, Serialize)]
pub(super) struct NoDiff {
    /// Empty.
    diff: Vec<Line>,
    error: String,
}

impl IntoResponse for DiffAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Diff(diff) => Json(diff).into_response(),
            Self::None(none) => (StatusCode::BAD_REQUEST, Json(none)).into_response(),
        }
    }
}

/// The answer of 400 without a difference; errors have it, too.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for its description alone")]
enum NoDiffOrError {
    NoDiff(NoDiff),
    Error(ErrorBody),
}

impl OperationOutput for DiffAnswer {
    type Inner = Self;

    fn inferred_responses(ctx: &mut GenContext, _: &mut Operation) -> ByStatus {
        let (diff, none) =
            (ctx.schema.subschema_for::<ConfigDiff>(), ctx.schema.subschema_for::<NoDiffOrError>());
        let mut refused = answer::error(ctx, "One of the two is no YAML, or the request makes no sense.");
        refused.content.insert(JSON.into(), media(none));
        vec![(Some(200), outcome::with("The lines.", JSON, diff)), (Some(400), refused)]
    }
}

/// `delete-config`. The CLI is told by 404 that there was nothing to delete.
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<NameQuery>,
) -> Answer<Done> {
    let kind = required(query.r#type, "type")?;
    let name = required(query.name, "name")?;
    match rest.door.service.delete_config(&caller, None, &kind, &name).await? {
        true => Ok(Done),
        false => Err(Failure::Text(StatusCode::NOT_FOUND, no_such_endpoint("/configs"))),
    }
}

/// `delete-config ID`
pub(super) async fn delete_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Done> {
    rest.door.service.delete_config_version(&caller, None, config_id(&id)?).await?;
    Ok(Done)
}

/// Which config.
#[derive(Deserialize, JsonSchema)]
pub(super) struct NameQuery {
    r#type: Option<String>,
    name: Option<String>,
}

/// Which of the configs of a type.
#[derive(Deserialize, JsonSchema)]
pub(super) struct TypedQuery {
    /// `default`, if it is not said.
    #[serde(default)]
    name: String,
    /// How many versions.
    limit: Option<String>,
}

impl TypedQuery {
    fn name(self) -> String {
        if self.name.is_empty() { "default".into() } else { self.name }
    }
}

/// A version of a config of a type.
#[derive(JsonSchema, Serialize)]
pub(super) struct TypedRow {
    properties: String,
    created_at: String,
}

/// What a config of a type would change.
#[derive(JsonSchema, Serialize)]
pub(super) struct TypedDiff {
    diff: Vec<Line>,
}

/// Makes the three handlers of a type of config with paths of its own.
macro_rules! typed {
    ($kind:literal, $list:ident, $put:ident, $diff:ident) => {
        #[doc = concat!("`", $kind, "-config`")]
        pub(super) async fn $list(
            Login(caller): Login,
            State(rest): State<Rest>,
            Query(query): Query<TypedQuery>,
        ) -> List<TypedRow> {
            list_typed(&rest, &caller, $kind, query).await
        }

        #[doc = concat!("`update-", $kind, "-config`")]
        pub(super) async fn $put(
            Login(caller): Login,
            State(rest): State<Rest>,
            Query(query): Query<TypedQuery>,
            body: Yaml,
        ) -> Answer<Stored> {
            put_typed(&rest, &caller, $kind, query.name(), &body).await
        }

        #[doc = concat!("What `update-", $kind, "-config` shows first.")]
        pub(super) async fn $diff(
            Login(caller): Login,
            State(rest): State<Rest>,
            Query(query): Query<TypedQuery>,
            body: Yaml,
        ) -> Answer<Json<TypedDiff>> {
            rest.door.service.may_change_typed(&caller)?;
            let from = ConfigSide::Latest { kind: $kind.into(), name: query.name() };
            let to = ConfigSide::Text(document(&body)?);
            let (found, _) = rest.door.service.diff_configs(&caller, from, to).await?;
            Ok(Json(TypedDiff { diff: lines(found) }))
        }
    };
}

typed!("cloud", list_cloud, put_cloud, diff_cloud);
typed!("runtime", list_runtime, put_runtime, diff_runtime);
typed!("cpi", list_cpi, put_cpi, diff_cpi);

/// Reads a body that must be a document. These paths complain about it as about a manifest.
fn document(body: &Yaml) -> Result<String, Failure> {
    let content = body.text()?;
    model::yaml::parse_mapping(&content).map_err(|error| Failure::Service(ServiceError::Told(error)))?;
    Ok(content)
}

async fn list_typed(rest: &Rest, caller: &Caller, kind: &str, query: TypedQuery) -> List<TypedRow> {
    rest.door.service.may_read_typed(caller, kind)?;
    let bad = |text: String| Failure::Text(StatusCode::BAD_REQUEST, text);
    let limit = query.limit.clone().ok_or_else(|| bad("limit is required".into()))?;
    if limit.parse::<usize>().is_err() {
        return Err(bad(format!("limit is invalid: '{limit}' is not an integer")));
    }
    let query = ListQuery { r#type: kind.into(), name: query.name(), limit: Some(limit), latest: None };
    let found = newest(rest, caller, &query, query.versions()?).await?;
    let row = |(config, _): (StoredConfig, bool)| TypedRow {
        properties: config.content,
        created_at: times::dated(config.created_at),
    };
    Ok(Json(found.into_iter().map(row).collect()))
}

async fn put_typed(rest: &Rest, caller: &Caller, kind: &str, name: String, body: &Yaml) -> Answer<Stored> {
    rest.door.service.may_change_typed(caller)?;
    let put = PutConfig { kind: kind.to_owned(), name, content: document(body)?, expected_latest: None };
    rest.door.service.put_config(caller, None, put).await?;
    Ok(Stored)
}
