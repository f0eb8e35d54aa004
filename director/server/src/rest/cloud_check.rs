//! Cloud check: scans, problems and what is decided about them; and what the health monitor asks for.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use model::problem::{Resolution, Standing};
use model::task::{Choice, InstanceFilter};
use model::{DeploymentName, ErrorCode, ProblemId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::Access;
use service::ops::Resolutions;

use super::Rest;
use super::answer::{Failure, told};
use super::content::{JsonBody, NoJson, Unread};
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, List, Never, SeeTask};
use super::repeats;
use super::tasks::context_id;

/// `cloud-check`, `create-recovery-plan` and `recover`: looks for problems.
pub(super) async fn scan(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    _: NoJson,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let name = DeploymentName::new(name);
    Ok(SeeTask(service.scan_cloud(&caller, Some(key), &name, context_id(&parts)).await?))
}

/// What was found.
pub(super) async fn problems(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> List<ProblemRow> {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.problems(&caller, name.clone(), &page));
    Ok(Json(found.iter().map(ProblemRow::from).collect()))
}

/// A problem, and what can be done about it.
#[derive(JsonSchema, Serialize)]
pub(super) struct ProblemRow {
    id: u64,
    /// `missing_vm`, `unresponsive_agent` …
    r#type: &'static str,
    /// Nothing.
    data: BTreeMap<String, Value>,
    description: String,
    resolutions: Vec<ResolutionRow>,
    instance_group: String,
}

/// What can be done about a problem.
#[derive(JsonSchema, Serialize)]
struct ResolutionRow {
    name: &'static str,
    /// In words.
    plan: &'static str,
}

impl From<&Standing> for ProblemRow {
    fn from(standing: &Standing) -> Self {
        let problem = &standing.problem;
        let fault = &problem.finding.fault;
        let resolution = |resolution: &Resolution| ResolutionRow {
            name: resolution.name(),
            plan: fault.plan(*resolution),
        };
        Self {
            id: problem.id.0,
            r#type: fault.type_name(),
            data: BTreeMap::new(),
            description: standing.description(),
            resolutions: standing.resolutions().iter().map(resolution).collect(),
            instance_group: problem.finding.group.to_string(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ResolveBody {
    /// What to do, by the problems' ids; null stands for what is done by default.
    resolutions: BTreeMap<String, Option<String>>,
    /// By group, numbers or percentages.
    #[serde(default)]
    max_in_flight_overrides: Option<BTreeMap<String, Value>>,
}

/// `cloud-check` and `recover`: does something about problems.
pub(super) async fn resolve(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    body: Unread<ResolveBody>,
) -> Answer<SeeTask> {
    let refused = |text: String| told(ErrorCode::CloudcheckInvalidResolutionFormat, text);
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    let given = body.object().map_err(|error| refused(format!("Invalid format for resolutions: {error}")))?;
    let mut resolutions = Resolutions::default();
    for (id, resolution) in given.resolutions {
        let id = id.parse().map_err(|_| refused(format!("Invalid problem id '{id}'")))?;
        resolutions.choices.push(Choice { problem: ProblemId(id), resolution });
    }
    for (group, limit) in given.max_in_flight_overrides.into_iter().flatten() {
        let limit = match limit {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => return Err(refused(format!("Invalid max_in_flight '{other}' of group '{group}'"))),
        };
        resolutions.max_in_flight.insert(group.into(), limit);
    }
    let name = DeploymentName::new(name);
    let task = service.resolve_problems(&caller, Some(key), &name, resolutions, context_id(&parts)).await?;
    Ok(SeeTask(task))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct FixBody {
    /// Ids or indexes of instances, by group.
    jobs: BTreeMap<String, Vec<Value>>,
}

/// What the health monitor asks for.
pub(super) async fn scan_and_fix(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    JsonBody(body): JsonBody<FixBody>,
) -> Answer<SeeTask> {
    let mut wanted = Vec::new();
    for (group, ids) in &body.jobs {
        for id in ids {
            let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            wanted.push(InstanceFilter { group: Some(group.as_str().into()), id_or_index: Some(id) });
        }
    }
    let service = &rest.door.service;
    let content = format!("{:?}", body.jobs);
    let key = repeats::key(service, &caller, &parts, content.as_bytes()).await?;
    let name = DeploymentName::new(name);
    let task = service.scan_and_fix(&caller, Some(key), &name, &wanted, context_id(&parts)).await?;
    Ok(SeeTask(task))
}

/// Resurrection of one instance can't be paused any more, in BOSH neither.
pub(super) async fn resurrection(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, _, _)): Path<(String, String, String)>,
    _: NoJson,
) -> Answer<Never> {
    let name = DeploymentName::new(name);
    rest.door.service.may_access_deployment(&caller, &name, Access::Admin).await?;
    let text = "This endpoint has been removed. Please use \
                https://bosh.io/docs/resurrector/#enable-with-resurrection-config to configure resurrection for the \
                deployment or instance group. If you need to prevent a single instance from being resurrected, consider \
                using https://bosh.io/docs/cli-v2/#ignore.";
    Err(Failure::Text(StatusCode::GONE, text.into()))
}
