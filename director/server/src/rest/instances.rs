//! Instances and their VMs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use model::instance::{InstanceState, Lifecycle};
use model::task::{InstanceFilter, StateChange};
use model::{DeploymentName, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::ops::{ChangeWish, InstanceRow, InstanceWish};
use service::{Access, Read};
use state::records::OrphanedVm;

use super::answer::told;
use super::content::{JsonBody, NoYaml, Query};
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, IsSet, List, RowsOrTask, SeeTask};
use super::repeats;
use super::times;
use super::{Rest, is_on};

#[derive(Deserialize, JsonSchema)]
pub(super) struct FormatQuery {
    /// `full` asks all agents.
    format: Option<String>,
}

/// An instance and its VM.
#[derive(JsonSchema, Serialize)]
struct Place {
    agent_id: Option<String>,
    cid: Option<String>,
    /// Its group.
    job: String,
    index: u32,
    id: String,
    az: Option<String>,
    ips: Vec<String>,
    /// RFC 3339.
    vm_created_at: Option<String>,
}

impl From<&InstanceRow> for Place {
    fn from(row: &InstanceRow) -> Self {
        let (spec, vm) = (&row.instance.spec, row.vm.as_ref());
        // What is reserved for a VM that is not there is nobody's address.
        let networks = vm.into_iter().flat_map(|vm| &vm.networks);
        Self {
            agent_id: vm.map(|vm| vm.agent.to_string()),
            cid: vm.and_then(|vm| vm.cid.as_ref()).map(ToString::to_string),
            job: spec.group.to_string(),
            index: spec.index,
            id: spec.id.to_string(),
            az: spec.az.as_ref().map(ToString::to_string),
            ips: networks.filter_map(|n| n.ip).map(|ip| ip.to_string()).collect(),
            vm_created_at: vm.map(|vm| times::written(vm.created_at)),
        }
    }
}

/// An instance.
#[derive(JsonSchema, Serialize)]
pub(super) struct InstancePlace {
    #[serde(flatten)]
    place: Place,
    expects_vm: bool,
}

/// A VM.
#[derive(JsonSchema, Serialize)]
pub(super) struct VmPlace {
    #[serde(flatten)]
    place: Place,
    active: bool,
    permanent_nats_credentials: bool,
}

/// `instances`
pub(super) async fn instances(
    login: Login,
    rest: State<Rest>,
    name: Path<String>,
    query: Query<FormatQuery>,
    parts: Parts,
) -> Answer<RowsOrTask<InstancePlace>> {
    let expecting = |found: &InstanceRow| {
        let instance = &found.instance;
        let is_service = instance.spec.lifecycle == Lifecycle::Service;
        let expects_vm = is_service && instance.state != InstanceState::Detached;
        Some(InstancePlace { place: found.into(), expects_vm })
    };
    listed(login, rest, name, query, parts, false, expecting).await
}

/// `vms`
pub(super) async fn vms(
    login: Login,
    rest: State<Rest>,
    name: Path<String>,
    query: Query<FormatQuery>,
    parts: Parts,
) -> Answer<RowsOrTask<VmPlace>> {
    let active = |found: &InstanceRow| {
        found.vm.as_ref()?;
        Some(VmPlace { place: found.into(), active: true, permanent_nats_credentials: false })
    };
    listed(login, rest, name, query, parts, true, active).await
}

/// Lists what the state knows; or, in full, sends to a task that asks all agents.
async fn listed<T>(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<FormatQuery>,
    parts: Parts,
    vms: bool,
    row: impl Fn(&InstanceRow) -> Option<T>,
) -> Answer<RowsOrTask<T>> {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    if query.format.as_deref() == Some("full") {
        let key = repeats::key(service, &caller, &parts, b"").await?;
        return Ok(RowsOrTask::Task(service.inspect(&caller, Some(key), &name, vms).await?));
    }
    let found = all!(page => service.instances(&caller, name.clone(), Read::Linearizable, &page));
    Ok(RowsOrTask::Rows(found.iter().filter_map(row).collect()))
}

/// An instance with its disks.
#[derive(JsonSchema, Serialize)]
pub(super) struct InstanceWithDisks {
    deployment: String,
    /// Its group.
    job: String,
    index: u32,
    id: String,
    /// `started`, `stopped` or `detached`.
    #[schemars(with = "String")]
    state: InstanceState,
    disks: Vec<String>,
}

/// One instance, with its disks.
pub(super) async fn one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, index)): Path<(String, String, String)>,
) -> Answer<Json<InstanceWithDisks>> {
    let (service, deployment) = (&rest.door.service, DeploymentName::new(name.clone()));
    service.may_access_deployment(&caller, &deployment, Access::Admin).await?;
    let found = all!(page => service.instances(&caller, deployment.clone(), Read::Linearizable, &page));
    let is_it = |row: &&InstanceRow| {
        let spec = &row.instance.spec;
        spec.group.as_str() == group && (spec.index.to_string() == index || spec.id.as_str() == index)
    };
    let missing = || told(ErrorCode::InstanceNotFound, format!("'{name}/{group}/{index}' doesn't exist"));
    let row = found.iter().find(is_it).ok_or_else(missing)?;
    let active = row.disks.iter().filter(|disk| disk.active);
    let spec = &row.instance.spec;
    Ok(Json(InstanceWithDisks {
        deployment: name,
        job: spec.group.to_string(),
        index: spec.index,
        id: spec.id.to_string(),
        state: row.instance.state,
        disks: active.filter_map(|disk| disk.cid.as_ref()).map(ToString::to_string).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ChangeQuery {
    /// `started`, `stopped`, `detached`, `restart` or `recreate`.
    state: Option<String>,
    #[schemars(with = "Option<bool>")]
    skip_drain: Option<String>,
    canaries: Option<String>,
    max_in_flight: Option<String>,
    #[schemars(with = "Option<bool>")]
    dry_run: Option<String>,
    /// With `recreate`, only older VMs.
    recreate_vms_created_before: Option<String>,
}

/// `start`, `stop`, `restart`, `recreate` of a group, or of all with `*`.
pub(super) async fn change_group(
    login: Login,
    rest: State<Rest>,
    Path((name, group)): Path<(String, String)>,
    query: Query<ChangeQuery>,
    parts: Parts,
    body: NoYaml,
) -> Answer<SeeTask> {
    let group = Some(group).filter(|group| group != "*").map(Into::into);
    change(login, rest, name, InstanceFilter { group, id_or_index: None }, query, parts, body).await
}

/// `start`, `stop`, `restart`, `recreate` of one instance.
pub(super) async fn change_one(
    login: Login,
    rest: State<Rest>,
    Path((name, group, instance)): Path<(String, String, String)>,
    query: Query<ChangeQuery>,
    parts: Parts,
    body: NoYaml,
) -> Answer<SeeTask> {
    let filter = InstanceFilter { group: Some(group.into()), id_or_index: Some(instance) };
    change(login, rest, name, filter, query, parts, body).await
}

async fn change(
    Login(caller): Login,
    State(rest): State<Rest>,
    name: String,
    filter: InstanceFilter,
    Query(query): Query<ChangeQuery>,
    parts: Parts,
    NoYaml(body): NoYaml,
) -> Answer<SeeTask> {
    if !body.is_empty() {
        let text = "a manifest beside a change of state is not taken: deploy it";
        return Err(told(ErrorCode::BadRequest, text));
    }
    if query.recreate_vms_created_before.is_some() && query.state.as_deref() != Some("recreate") {
        let text = "Must pass state=recreate when specifying recreate_vms_created_before";
        return Err(told(ErrorCode::ValidationInvalidValue, text));
    }
    let change = match query.state.as_deref() {
        Some("started") => StateChange::Become(InstanceState::Started),
        Some("stopped") => StateChange::Become(InstanceState::Stopped),
        Some("detached") => StateChange::Become(InstanceState::Detached),
        Some("restart") => StateChange::Restart,
        Some("recreate") => StateChange::Recreate,
        other => {
            let text = format!("Invalid state '{}'", other.unwrap_or_default());
            return Err(told(ErrorCode::BadRequest, text));
        }
    };
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let (name, skip_drain) = (DeploymentName::new(name), is_on(query.skip_drain.as_ref()));
    let task = service
        .change_state(
            &caller,
            Some(key),
            &name,
            ChangeWish {
                change,
                filter,
                skip_drain,
                max_in_flight: query.max_in_flight,
                canaries: query.canaries,
                dry_run: is_on(query.dry_run.as_ref()),
                created_before: times::before(query.recreate_vms_created_before.as_deref())?,
            },
        )
        .await?;
    Ok(SeeTask(task))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ActionQuery {
    /// To stop without keeping the VM.
    #[schemars(with = "Option<bool>")]
    hard: Option<String>,
    #[schemars(with = "Option<bool>")]
    skip_drain: Option<String>,
    #[schemars(with = "Option<bool>")]
    ignore_unresponsive_agent: Option<String>,
}

/// `start`, `stop`, `restart`, `recreate` of one instance with `--no-converge`.
pub(super) async fn change_isolated(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, instance, action)): Path<(String, String, String, String)>,
    Query(query): Query<ActionQuery>,
    parts: Parts,
    _: NoYaml,
) -> Answer<SeeTask> {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    service.may_access_deployment(&caller, &name, Access::Admin).await?;
    let change = match action.as_str() {
        "start" => StateChange::Become(InstanceState::Started),
        "stop" if is_on(query.hard.as_ref()) => StateChange::Become(InstanceState::Detached),
        "stop" => StateChange::Become(InstanceState::Stopped),
        "restart" => StateChange::Restart,
        "recreate" => StateChange::Recreate,
        other => {
            let text = format!("there is no action '{other}': start, stop, restart and recreate are known");
            return Err(told(ErrorCode::BadRequest, text));
        }
    };
    let skip_drain = is_on(query.skip_drain.as_ref());
    let wish = InstanceWish { change, skip_drain, fix: is_on(query.ignore_unresponsive_agent.as_ref()) };
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.change_instance(&caller, Some(key), &name, (&group, &instance), wish).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct IgnoreBody {
    ignore: Wish,
}

/// BOSH takes text, too.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Wish {
    Flag(bool),
    Text(String),
}

/// `ignore`, `unignore`
pub(super) async fn ignore(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, instance)): Path<(String, String, String)>,
    JsonBody(body): JsonBody<IgnoreBody>,
) -> Answer<IsSet> {
    let wish = match &body.ignore {
        Wish::Flag(flag) => *flag,
        Wish::Text(text) => text == "true" || text == "yes",
    };
    let name = DeploymentName::new(name);
    rest.door.service.ignore_instance(&caller, None, &name, &group, &instance, wish).await?;
    Ok(IsSet)
}

/// A VM that nothing uses any more.
#[derive(JsonSchema, Serialize)]
pub(super) struct OrphanedVmRow {
    az: Option<String>,
    cid: Option<String>,
    deployment_name: String,
    instance_name: String,
    ip_addresses: Vec<String>,
    orphaned_at: String,
}

impl From<OrphanedVm> for OrphanedVmRow {
    fn from(orphan: OrphanedVm) -> Self {
        let ips = orphan.vm.networks.iter().filter_map(|n| n.ip).map(|ip| ip.to_string());
        Self {
            ip_addresses: ips.collect(),
            az: orphan.az.map(|az| az.to_string()),
            cid: orphan.vm.cid.map(|cid| cid.to_string()),
            deployment_name: orphan.deployment.to_string(),
            instance_name: orphan.slug,
            orphaned_at: times::dated(orphan.orphaned_at),
        }
    }
}

/// `orphaned-vms`
pub(super) async fn orphaned_vms(Login(caller): Login, State(rest): State<Rest>) -> List<OrphanedVmRow> {
    let service = &rest.door.service;
    let found = all!(page => service.orphaned_vms(&caller, &page));
    Ok(Json(found.into_iter().map(OrphanedVmRow::from).collect()))
}
