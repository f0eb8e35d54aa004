//! Cloud check: scans, problems and what is decided about them; and what the health monitor asks for.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::problem::Standing;
use model::task::{Choice, InstanceFilter};
use model::{DeploymentName, ErrorCode, ProblemId};
use serde::Deserialize;
use serde_json::{Value, json};
use service::Access;
use service::ops::Resolutions;

use super::Rest;
use super::answer::{Answer, Failure, JsonBody, object, see_task, told};
use super::deployments::all;
use super::login::Login;
use super::repeats;
use super::tasks::context_id;

/// `cloud-check`, `create-recovery-plan` and `recover`: looks for problems.
pub(super) async fn scan(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let name = DeploymentName::new(name);
    Ok(see_task(service.scan_cloud(&caller, Some(key), &name, context_id(&parts)).await?))
}

/// What was found.
pub(super) async fn problems(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.problems(&caller, name.clone(), &page));
    Ok(Json(found.iter().map(problem_row).collect::<Vec<_>>()).into_response())
}

fn problem_row(standing: &Standing) -> Value {
    let problem = &standing.problem;
    let fault = &problem.finding.fault;
    let resolution = |resolution: &model::problem::Resolution| {
        json!({
            "name": resolution.name(), "plan": fault.plan(*resolution),
        })
    };
    json!({
        "id": problem.id,
        "type": fault.type_name(),
        "data": {},
        "description": standing.description(),
        "resolutions": standing.resolutions().iter().map(resolution).collect::<Vec<_>>(),
        "instance_group": problem.finding.group,
    })
}

#[derive(Deserialize)]
struct ResolveBody {
    resolutions: BTreeMap<String, Option<String>>,
    #[serde(default)]
    max_in_flight_overrides: Option<BTreeMap<String, Value>>,
}

/// `cloud-check` and `recover`: does something about problems.
pub(super) async fn resolve(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    body: Bytes,
) -> Answer {
    let refused = |text: String| told(ErrorCode::CloudcheckInvalidResolutionFormat, text);
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body).await?;
    let given: ResolveBody = object(&body)
        .map_err(|error| refused(format!("Invalid format for resolutions: {error}")))?;
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
    Ok(see_task(task))
}

#[derive(Deserialize)]
pub(super) struct FixBody {
    jobs: BTreeMap<String, Vec<Value>>,
}

/// What the health monitor asks for.
pub(super) async fn scan_and_fix(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    JsonBody(body): JsonBody<FixBody>,
) -> Answer {
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
    Ok(see_task(task))
}

/// Resurrection of one instance can't be paused any more, in BOSH neither.
pub(super) async fn resurrection(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, _, _)): Path<(String, String, String)>,
) -> Answer {
    let name = DeploymentName::new(name);
    rest.door.service.may_access_deployment(&caller, &name, Access::Admin).await?;
    let text = "This endpoint has been removed. Please use \
                https://bosh.io/docs/resurrector/#enable-with-resurrection-config to configure resurrection for the \
                deployment or instance group. If you need to prevent a single instance from being resurrected, consider \
                using https://bosh.io/docs/cli-v2/#ignore.";
    Err(Failure::Text(StatusCode::GONE, text.into()))
}
