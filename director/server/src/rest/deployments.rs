//! Deployments, their errands and variables.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::config::StoredConfig;
use model::task::{DeployOptions, InstanceFilter};
use model::{ConfigId, DeploymentName, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};
use service::Read;
use service::ops::{DeploymentSummary, DiffLine, ErrandRun, LineChange};

use super::answer::{Answer, Failure, object, see_task, told};
use super::login::Login;
use super::repeats;
use super::tasks::context_id;
use super::times;
use super::{Rest, is_on};

/// Reads all pages of a list: the CLI knows no pages.
macro_rules! all {
    ($page:ident => $list:expr) => {{
        let mut $page = ::service::Page { size: 1000, token: String::new() };
        let mut rows = Vec::new();
        loop {
            let list = $list.await?;
            rows.extend(list.rows);
            if list.next_page_token.is_empty() {
                break rows;
            }
            $page.token = list.next_page_token;
        }
    }};
}
pub(super) use all;

/// Reads the text of a body.
pub(super) fn text(body: &Bytes) -> Result<String, Failure> {
    let text = std::str::from_utf8(body);
    text.map(str::to_owned).map_err(|_| told(ErrorCode::BadYaml, "the body is not UTF-8"))
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    exclude_configs: Option<String>,
    exclude_releases: Option<String>,
    exclude_stemcells: Option<String>,
    exclude_lock: Option<String>,
}

/// `deployments`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.deployments(&caller, Read::Linearizable, &page));
    let row = |deployment: DeploymentSummary| {
        let mut row = json!({ "name": deployment.name, "teams": deployment.teams });
        if !is_on(query.exclude_configs.as_ref()) {
            row["cloud_config"] = json!(if deployment.deployed { "latest" } else { "none" });
        }
        if !is_on(query.exclude_stemcells.as_ref()) {
            let stemcell = |(name, version): &(String, _)| json!({ "name": name, "version": version });
            row["stemcells"] = deployment.stemcells.iter().map(stemcell).collect();
        }
        if !is_on(query.exclude_releases.as_ref()) {
            let release = |r: &model::instance::ReleaseRef| json!({ "name": r.name, "version": r.version });
            row["releases"] = deployment.releases.iter().map(release).collect();
        }
        if !is_on(query.exclude_lock.as_ref()) {
            row["locked"] = json!(deployment.locked_by.is_some());
        }
        row
    };
    Ok(Json(found.into_iter().map(row).collect::<Vec<_>>()).into_response())
}

/// `manifest`
pub(super) async fn one(Login(caller): Login, State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let (found, manifest) = rest.door.service.deployment(&caller, &DeploymentName::new(name)).await?;
    Ok(Json(json!({ "manifest": found.deployed.then_some(manifest) })).into_response())
}

/// The configs that deployments use.
pub(super) async fn configs(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let found = rest.door.service.configs_in_use(&caller, named_in(query)).await?;
    let row = |(number, (deployment, config)): (usize, (DeploymentName, StoredConfig))| {
        let config = json!({ "id": config.id.0, "type": config.kind, "name": config.name });
        json!({ "id": number + 1, "deployment": deployment, "config": config })
    };
    Ok(Json(found.into_iter().enumerate().map(row).collect::<Vec<_>>()).into_response())
}

/// Returns the deployments that a query lists.
pub(super) fn named_in(query: Vec<(String, String)>) -> Vec<DeploymentName> {
    let listed = query.into_iter().filter(|(name, _)| name == "deployment[]");
    listed.map(|(_, name)| DeploymentName::new(name)).collect()
}

#[derive(Deserialize)]
pub(super) struct DiffQuery {
    redact: Option<String>,
}

/// Returns a difference as the CLI prints it: lines with what happens to them.
pub(super) fn lines(lines: Vec<DiffLine>) -> Value {
    let change = |line: &DiffLine| match line.change {
        LineChange::Same => Value::Null,
        other => json!(other.name()),
    };
    lines.iter().map(|line| json!([line.text, change(line)])).collect()
}

/// What a deploy would change. Also a manifest that makes no sense is answered: the deploy says what is wrong with it.
pub(super) async fn diff(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DiffQuery>,
    body: Bytes,
) -> Answer {
    let (service, manifest) = (&rest.door.service, text(&body)?);
    let no_redact = query.redact.as_deref() == Some("false");
    match service.diff(&caller, Some(DeploymentName::new(name)), &manifest, no_redact).await {
        Ok(found) => Ok(Json(json!({
            "context": {
                "cloud_config_ids": found.cloud_configs,
                "runtime_config_ids": found.runtime_configs,
            },
            "diff": lines(found.lines),
        }))
        .into_response()),
        Err(service::ServiceError::Told(error)) => {
            Ok(Json(json!({ "diff": [], "error": error.message })).into_response())
        }
        Err(other) => Err(other.into()),
    }
}

#[derive(Deserialize)]
pub(super) struct DeployQuery {
    recreate: Option<String>,
    recreate_persistent_disks: Option<String>,
    fix: Option<String>,
    skip_drain: Option<String>,
    canaries: Option<String>,
    max_in_flight: Option<String>,
    dry_run: Option<String>,
    recreate_vms_created_before: Option<String>,
    /// What a diff said it was made with, so that just that is deployed.
    context: Option<String>,
}

/// The configs of a diff.
#[derive(Deserialize)]
struct DiffContext {
    cloud_config_ids: Vec<ConfigId>,
    runtime_config_ids: Vec<ConfigId>,
}

impl DeployQuery {
    /// Refuses what would do more than was asked for if it were passed over.
    fn check(&self) -> Result<(), Failure> {
        match &self.recreate_vms_created_before {
            None => Ok(()),
            Some(_) if !is_on(self.recreate.as_ref()) => {
                let text = "Must pass recreate=true when specifying recreate_vms_created_before";
                Err(told(ErrorCode::ValidationInvalidValue, text))
            }
            Some(_) => Ok(()),
        }
    }

    fn options(self) -> Result<DeployOptions, Failure> {
        let configs = |context: &String| match serde_json::from_str::<DiffContext>(context) {
            Ok(DiffContext { cloud_config_ids: mut all, runtime_config_ids }) => {
                all.extend(runtime_config_ids);
                Ok(all)
            }
            Err(_) => Err(told(ErrorCode::DeploymentConfigReference, "Context includes invalid config ID")),
        };
        let configs = self.context.as_ref().map(configs).transpose()?;
        let groups = self.skip_drain.unwrap_or_default();
        Ok(DeployOptions {
            recreate: is_on(self.recreate.as_ref()),
            recreate_persistent_disks: is_on(self.recreate_persistent_disks.as_ref()),
            fix: is_on(self.fix.as_ref()),
            skip_drain: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
            canaries: self.canaries,
            max_in_flight: self.max_in_flight,
            dry_run: is_on(self.dry_run.as_ref()),
            configs,
            created_before: times::before(self.recreate_vms_created_before.as_deref())?,
        })
    }
}

/// `deploy`
pub(super) async fn deploy(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<DeployQuery>,
    parts: Parts,
    body: Bytes,
) -> Answer {
    query.check()?;
    let options = query.options()?;
    let (service, manifest) = (&rest.door.service, text(&body)?);
    let key = repeats::key(service, &caller, &parts, &body).await?;
    let task = service.deploy(&caller, Some(key), manifest, options, context_id(&parts)).await?;
    Ok(see_task(task))
}

#[derive(Deserialize)]
pub(super) struct DeleteQuery {
    force: Option<String>,
}

/// `delete-deployment`
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let force = is_on(query.force.as_ref());
    let name = DeploymentName::new(name);
    let task = service.delete_deployment(&caller, Some(key), &name, force, context_id(&parts)).await?;
    Ok(see_task(task))
}

/// `errands`
pub(super) async fn errands(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.errands(&caller, name.clone(), &page));
    let row = |errand: String| json!({ "name": errand });
    Ok(Json(found.into_iter().map(row).collect::<Vec<_>>()).into_response())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrandWish {
    #[serde(rename = "keep-alive")]
    keep_alive: bool,
    #[serde(rename = "when-changed")]
    when_changed: bool,
    instances: Vec<ErrandInstance>,
}

#[derive(Deserialize)]
struct ErrandInstance {
    group: String,
    #[serde(default)]
    id: Option<String>,
}

/// `run-errand`
pub(super) async fn run_errand(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, errand)): Path<(String, String)>,
    parts: Parts,
    body: Bytes,
) -> Answer {
    let bad = |error: serde_json::Error| told(ErrorCode::BadRequest, error.to_string());
    let wish: ErrandWish = match body.is_empty() {
        true => ErrandWish::default(),
        false => object(&body).map_err(bad)?,
    };
    let instance = |wished: ErrandInstance| InstanceFilter {
        group: Some(wished.group.into()),
        id_or_index: wished.id.filter(|id| !id.is_empty()),
    };
    let run = ErrandRun {
        errand,
        keep_alive: wish.keep_alive,
        when_changed: wish.when_changed,
        instances: wish.instances.into_iter().map(instance).collect(),
    };
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body).await?;
    let task = service.run_errand(&caller, Some(key), &DeploymentName::new(name), run).await?;
    Ok(see_task(task))
}
