//! Deployments, their errands and variables.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use model::config::StoredConfig;
use model::instance::ReleaseRef;
use model::task::{DeployOptions, InstanceFilter};
use model::{ConfigId, DeploymentName, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::Read;
use service::ops::{DeploymentSummary, DiffLine, ErrandRun, LineChange};

use super::answer::{Failure, told};
use super::content::{ManifestDocument, Pairs, Query, Unread, Yaml};
use super::login::Login;
use super::outcome::{Answer, List, SeeTask};
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

#[derive(Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    #[schemars(with = "Option<bool>")]
    exclude_configs: Option<String>,
    #[schemars(with = "Option<bool>")]
    exclude_releases: Option<String>,
    #[schemars(with = "Option<bool>")]
    exclude_stemcells: Option<String>,
    #[schemars(with = "Option<bool>")]
    exclude_lock: Option<String>,
}

/// A deployment; what was not asked for has no key.
#[derive(JsonSchema, Serialize)]
pub(super) struct DeploymentRow {
    name: String,
    /// Who owns it.
    teams: Vec<String>,
    /// `none` before the first deploy, `latest` after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_config: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stemcells: Option<Vec<NameAndVersion>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    releases: Option<Vec<NameAndVersion>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
}

/// A release or a stemcell.
#[derive(JsonSchema, Serialize)]
struct NameAndVersion {
    name: String,
    version: String,
}

/// `deployments`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<ListQuery>,
) -> List<DeploymentRow> {
    let service = &rest.door.service;
    let found = all!(page => service.deployments(&caller, Read::Linearizable, &page));
    let (configs, releases) = (query.exclude_configs.as_ref(), query.exclude_releases.as_ref());
    let (stemcells, lock) = (query.exclude_stemcells.as_ref(), query.exclude_lock.as_ref());
    let row = |found: DeploymentSummary| DeploymentRow {
        name: found.name.to_string(),
        cloud_config: (!is_on(configs)).then_some(if found.deployed { "latest" } else { "none" }),
        stemcells: (!is_on(stemcells)).then(|| found.stemcells.iter().map(NameAndVersion::from).collect()),
        releases: (!is_on(releases)).then(|| found.releases.iter().map(NameAndVersion::from).collect()),
        locked: (!is_on(lock)).then_some(found.locked_by.is_some()),
        teams: found.teams,
    };
    Ok(Json(found.into_iter().map(row).collect()))
}

impl<V: ToString> From<&(String, V)> for NameAndVersion {
    fn from((name, version): &(String, V)) -> Self {
        Self { name: name.clone(), version: version.to_string() }
    }
}

impl From<&ReleaseRef> for NameAndVersion {
    fn from(release: &ReleaseRef) -> Self {
        Self { name: release.name.to_string(), version: release.version.to_string() }
    }
}

/// What was deployed.
#[derive(JsonSchema, Serialize)]
pub(super) struct DeployedManifest {
    /// As it was sent; null before the first deploy has ended well.
    manifest: Option<String>,
}

/// `manifest`
pub(super) async fn one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> Answer<Json<DeployedManifest>> {
    let (found, manifest) = rest.door.service.deployment(&caller, &DeploymentName::new(name)).await?;
    Ok(Json(DeployedManifest { manifest: found.deployed.then_some(manifest) }))
}

/// Which deployments are asked for.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct ConfigsQuery {
    #[serde(rename = "deployment[]", default)]
    deployments: Vec<String>,
}

/// That a deployment uses a config.
#[derive(JsonSchema, Serialize)]
pub(super) struct ConfigUse {
    /// Its place in the list.
    id: usize,
    deployment: String,
    config: UsedConfig,
}

/// A config that is used.
#[derive(JsonSchema, Serialize)]
struct UsedConfig {
    /// A number here, a text elsewhere, as in BOSH.
    id: u64,
    r#type: String,
    name: String,
}

/// The configs that deployments use.
pub(super) async fn configs(
    Login(caller): Login,
    State(rest): State<Rest>,
    query: Pairs<ConfigsQuery>,
) -> List<ConfigUse> {
    let found = rest.door.service.configs_in_use(&caller, named_in(query.pairs)).await?;
    let row = |(number, (deployment, config)): (usize, (DeploymentName, StoredConfig))| ConfigUse {
        id: number + 1,
        deployment: deployment.to_string(),
        config: UsedConfig { id: config.id.0, r#type: config.kind, name: config.name },
    };
    Ok(Json(found.into_iter().enumerate().map(row).collect()))
}

/// Returns the deployments that a query lists.
pub(super) fn named_in(query: Vec<(String, String)>) -> Vec<DeploymentName> {
    let listed = query.into_iter().filter(|(name, _)| name == "deployment[]");
    listed.map(|(_, name)| DeploymentName::new(name)).collect()
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DiffQuery {
    /// Whether secrets are left out; they are, if it is not said.
    #[schemars(with = "Option<bool>")]
    redact: Option<String>,
}

/// A line of a difference: its text, and `added`, `removed` or null.
#[derive(JsonSchema, Serialize)]
pub(super) struct Line(String, Option<&'static str>);

/// Returns a difference as the CLI prints it: lines with what happens to them.
pub(super) fn lines(lines: Vec<DiffLine>) -> Vec<Line> {
    let change = |change: LineChange| match change {
        LineChange::Same => None,
        other => Some(other.name()),
    };
    lines.into_iter().map(|line| Line(line.text, change(line.change))).collect()
}

/// What a deploy would change.
#[derive(Default, JsonSchema, Serialize)]
pub(super) struct ManifestDiff {
    /// To be given back with the deploy.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<DiffContext>,
    diff: Vec<Line>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a deploy would change. Also a manifest that makes no sense is answered: the deploy says what is wrong with it.
pub(super) async fn diff(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DiffQuery>,
    body: Yaml<ManifestDocument>,
) -> Answer<Json<ManifestDiff>> {
    let (service, manifest) = (&rest.door.service, body.text()?);
    let no_redact = query.redact.as_deref() == Some("false");
    match service.diff(&caller, Some(DeploymentName::new(name)), &manifest, no_redact).await {
        Ok(found) => {
            let context = DiffContext {
                cloud_config_ids: found.cloud_configs,
                runtime_config_ids: found.runtime_configs,
            };
            Ok(Json(ManifestDiff { context: Some(context), diff: lines(found.lines), error: None }))
        }
        Err(service::ServiceError::Told(error)) => {
            Ok(Json(ManifestDiff { error: Some(error.message), ..ManifestDiff::default() }))
        }
        Err(other) => Err(other.into()),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DeployQuery {
    #[schemars(with = "Option<bool>")]
    recreate: Option<String>,
    #[schemars(with = "Option<bool>")]
    recreate_persistent_disks: Option<String>,
    #[schemars(with = "Option<bool>")]
    fix: Option<String>,
    /// Groups, with commas between them; `*` for all.
    skip_drain: Option<String>,
    canaries: Option<String>,
    max_in_flight: Option<String>,
    #[schemars(with = "Option<bool>")]
    dry_run: Option<String>,
    /// With `recreate`, only older VMs.
    recreate_vms_created_before: Option<String>,
    /// What a diff said it was made with, so that just that is deployed.
    context: Option<String>,
}

/// The configs of a diff.
#[derive(Deserialize, JsonSchema, Serialize)]
struct DiffContext {
    #[schemars(with = "Vec<u64>")]
    cloud_config_ids: Vec<ConfigId>,
    #[schemars(with = "Vec<u64>")]
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
    body: Yaml<ManifestDocument>,
) -> Answer<SeeTask> {
    query.check()?;
    let options = query.options()?;
    let (service, manifest) = (&rest.door.service, body.text()?);
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    let task = service.deploy(&caller, Some(key), manifest, options, context_id(&parts)).await?;
    Ok(SeeTask(task))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DeleteQuery {
    /// To pass over failures.
    #[schemars(with = "Option<bool>")]
    force: Option<String>,
}

/// `delete-deployment`
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let force = is_on(query.force.as_ref());
    let name = DeploymentName::new(name);
    let task = service.delete_deployment(&caller, Some(key), &name, force, context_id(&parts)).await?;
    Ok(SeeTask(task))
}

/// An errand.
#[derive(JsonSchema, Serialize)]
pub(super) struct ErrandRow {
    name: String,
}

/// `errands`
pub(super) async fn errands(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
) -> List<ErrandRow> {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    let found = all!(page => service.errands(&caller, name.clone(), &page));
    Ok(Json(found.into_iter().map(|name| ErrandRow { name }).collect()))
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct ErrandWish {
    #[serde(rename = "keep-alive")]
    keep_alive: bool,
    #[serde(rename = "when-changed")]
    when_changed: bool,
    instances: Vec<ErrandInstance>,
}

#[derive(Deserialize, JsonSchema)]
struct ErrandInstance {
    group: String,
    /// An id, an index, or `first`.
    #[serde(default)]
    id: Option<String>,
}

/// `run-errand`
pub(super) async fn run_errand(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, errand)): Path<(String, String)>,
    parts: Parts,
    body: Unread<ErrandWish>,
) -> Answer<SeeTask> {
    let bad = |error: serde_json::Error| told(ErrorCode::BadRequest, error.to_string());
    let wish = match body.bytes.is_empty() {
        true => ErrandWish::default(),
        false => body.object().map_err(bad)?,
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
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    let task = service.run_errand(&caller, Some(key), &DeploymentName::new(name), run).await?;
    Ok(SeeTask(task))
}
