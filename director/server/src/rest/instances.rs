//! Instances and their VMs.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::instance::{InstanceState, Lifecycle};
use model::task::{InstanceFilter, StateChange};
use model::{DeploymentName, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};
use service::ops::{ChangeWish, InstanceRow, InstanceWish};
use service::{Access, Read};
use state::records::OrphanedVm;

use super::answer::{Answer, JsonBody, see_task, told};
use super::deployments::all;
use super::login::Login;
use super::repeats;
use super::times;
use super::{Rest, is_on};

#[derive(Deserialize)]
pub(super) struct FormatQuery {
    format: Option<String>,
}

fn row(row: &InstanceRow) -> Value {
    let (spec, vm) = (&row.instance.spec, row.vm.as_ref());
    // What is reserved for a VM that is not there is nobody's address.
    let networks = vm.into_iter().flat_map(|vm| &vm.networks);
    json!({
        "agent_id": vm.map(|vm| &vm.agent),
        "cid": vm.and_then(|vm| vm.cid.as_ref()),
        "job": spec.group,
        "index": spec.index,
        "id": spec.id,
        "az": spec.az,
        "ips": networks.filter_map(|n| n.ip).map(|ip| ip.to_string()).collect::<Vec<_>>(),
        "vm_created_at": vm.map(|vm| times::written(vm.created_at)),
    })
}

/// `instances`
pub(super) async fn instances(
    login: Login,
    rest: State<Rest>,
    name: Path<String>,
    query: Query<FormatQuery>,
    parts: Parts,
) -> Answer {
    let expecting = |found: &InstanceRow| {
        let instance = &found.instance;
        let is_service = instance.spec.lifecycle == Lifecycle::Service;
        let mut row = row(found);
        row["expects_vm"] = json!(is_service && instance.state != InstanceState::Detached);
        Some(row)
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
) -> Answer {
    let active = |found: &InstanceRow| {
        found.vm.as_ref()?;
        let mut row = row(found);
        row["active"] = json!(true);
        row["permanent_nats_credentials"] = json!(false);
        Some(row)
    };
    listed(login, rest, name, query, parts, true, active).await
}

/// Lists what the state knows; or, in full, sends to a task that asks all agents.
async fn listed(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<FormatQuery>,
    parts: Parts,
    vms: bool,
    row: impl Fn(&InstanceRow) -> Option<Value>,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(name));
    if query.format.as_deref() == Some("full") {
        let key = repeats::key(service, &caller, &parts, b"").await?;
        return Ok(see_task(service.inspect(&caller, Some(key), &name, vms).await?));
    }
    let found = all!(page => service.instances(&caller, name.clone(), Read::Linearizable, &page));
    Ok(Json(found.iter().filter_map(row).collect::<Vec<_>>()).into_response())
}

/// One instance, with its disks.
pub(super) async fn one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, index)): Path<(String, String, String)>,
) -> Answer {
    let (service, deployment) = (&rest.door.service, DeploymentName::new(name.clone()));
    service.may_access_deployment(&caller, &deployment, Access::Admin).await?;
    let found = all!(page => service.instances(&caller, deployment.clone(), Read::Linearizable, &page));
    let is_it = |row: &&InstanceRow| {
        let spec = &row.instance.spec;
        spec.group.as_str() == group && (spec.index.to_string() == index || spec.id.as_str() == index)
    };
    let missing = || told(ErrorCode::InstanceNotFound, format!("'{name}/{group}/{index}' doesn't exist"));
    let row = found.iter().find(is_it).ok_or_else(missing)?;
    let disks: Vec<_> =
        row.disks.iter().filter(|disk| disk.active).filter_map(|disk| disk.cid.as_ref()).collect();
    let spec = &row.instance.spec;
    Ok(Json(json!({
        "deployment": name, "job": spec.group, "index": spec.index, "id": spec.id,
        "state": row.instance.state, "disks": disks,
    }))
    .into_response())
}

#[derive(Deserialize)]
pub(super) struct ChangeQuery {
    state: Option<String>,
    skip_drain: Option<String>,
    canaries: Option<String>,
    max_in_flight: Option<String>,
    dry_run: Option<String>,
    recreate_vms_created_before: Option<String>,
}

/// `start`, `stop`, `restart`, `recreate` of a group, or of all with `*`.
pub(super) async fn change_group(
    login: Login,
    rest: State<Rest>,
    Path((name, group)): Path<(String, String)>,
    query: Query<ChangeQuery>,
    parts: Parts,
    body: Bytes,
) -> Answer {
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
    body: Bytes,
) -> Answer {
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
    body: Bytes,
) -> Answer {
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
    Ok(see_task(task))
}

#[derive(Deserialize)]
pub(super) struct ActionQuery {
    hard: Option<String>,
    skip_drain: Option<String>,
    ignore_unresponsive_agent: Option<String>,
}

/// `start`, `stop`, `restart`, `recreate` of one instance with `--no-converge`.
pub(super) async fn change_isolated(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, instance, action)): Path<(String, String, String, String)>,
    Query(query): Query<ActionQuery>,
    parts: Parts,
) -> Answer {
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
    Ok(see_task(service.change_instance(&caller, Some(key), &name, (&group, &instance), wish).await?))
}

/// `ignore`, `unignore`
pub(super) async fn ignore(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, instance)): Path<(String, String, String)>,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    // BOSH takes text, too.
    let wish = match &body["ignore"] {
        Value::Bool(flag) => *flag,
        Value::String(text) => text == "true" || text == "yes",
        _ => return Err(told(ErrorCode::BadRequest, "say `ignore`: true or false")),
    };
    let name = DeploymentName::new(name);
    rest.door.service.ignore_instance(&caller, None, &name, &group, &instance, wish).await?;
    Ok(StatusCode::OK.into_response())
}

/// `orphaned-vms`
pub(super) async fn orphaned_vms(Login(caller): Login, State(rest): State<Rest>) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.orphaned_vms(&caller, &page));
    Ok(Json(found.into_iter().map(orphaned_vm_row).collect::<Vec<_>>()).into_response())
}

pub(super) fn orphaned_vm_row(orphan: OrphanedVm) -> Value {
    let ips = orphan.vm.networks.iter().filter_map(|n| n.ip).map(|ip| ip.to_string());
    json!({
        "az": orphan.az,
        "cid": orphan.vm.cid,
        "deployment_name": orphan.deployment,
        "instance_name": orphan.slug,
        "ip_addresses": ips.collect::<Vec<_>>(),
        "orphaned_at": times::dated(orphan.orphaned_at),
    })
}
