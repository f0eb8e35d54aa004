//! Single disks and VMs, and what nothing uses any more: orphaned disks and networks, and clean-ups.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::ErrorCode;
use model::task::InstanceFilter;
use serde::Deserialize;
use serde_json::{Value, json};
use service::ServiceError;
use service::ops::{Attachment, CleanUp, LeftoverRows};
use state::records::OrphanedDisk;

use super::answer::{Answer, Failure, JsonBody, see_task};
use super::artifacts::stemcell_row;
use super::deployments::all;
use super::instances::orphaned_vm_row;
use super::login::Login;
use super::repeats;
use super::times;
use super::{Rest, is_on};

fn disk_row(orphan: &OrphanedDisk) -> Value {
    json!({
        "disk_cid": orphan.disk.cid,
        "size": orphan.disk.spec.size_mib,
        "az": orphan.az,
        "deployment_name": orphan.deployment,
        "instance_name": orphan.slug,
        "cloud_properties": orphan.disk.spec.cloud_properties,
        "orphaned_at": times::dated(orphan.orphaned_at),
    })
}

/// `disks --orphaned`
pub(super) async fn disks(Login(caller): Login, State(rest): State<Rest>) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.orphaned_disks(&caller, &page));
    Ok(Json(found.iter().map(disk_row).collect::<Vec<_>>()).into_response())
}

#[derive(Deserialize)]
pub(super) struct DiskQuery {
    orphan: Option<String>,
}

/// `delete-disk`
pub(super) async fn delete_disk(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(cid): Path<String>,
    Query(query): Query<DiskQuery>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(see_task(match is_on(query.orphan.as_ref()) {
        true => service.orphan_disk(&caller, Some(key), &cid.into()).await?,
        false => service.delete_orphaned_disk(&caller, Some(key), &cid).await?,
    }))
}

#[derive(Deserialize)]
pub(super) struct AttachmentQuery {
    deployment: Option<String>,
    job: Option<String>,
    instance_id: Option<String>,
    disk_properties: Option<String>,
}

/// `attach-disk`
pub(super) async fn attach_disk(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(cid): Path<String>,
    Query(query): Query<AttachmentQuery>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let copy_properties = match query.disk_properties.as_deref() {
        None | Some("") => false,
        Some("copy") => true,
        Some(other) => {
            let text = format!("disk_properties can be 'copy' or be left out, and is '{other}'");
            return Err(ServiceError::told(ErrorCode::BadRequest, text).into());
        }
    };
    let attachment = Attachment {
        deployment: query.deployment.unwrap_or_default().into(),
        instance: InstanceFilter { group: query.job.map(Into::into), id_or_index: query.instance_id },
        cid: cid.into(),
        copy_properties,
    };
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(see_task(service.attach_disk(&caller, Some(key), attachment).await?))
}

/// `delete-vm`
pub(super) async fn delete_vm(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(cid): Path<String>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(see_task(service.delete_vm(&caller, Some(key), &cid.into()).await?))
}

#[derive(Deserialize)]
pub(super) struct NetworksQuery {
    orphaned: Option<String>,
}

/// `networks --orphaned`: there are none, networks are made by people.
pub(super) async fn networks(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<NetworksQuery>,
) -> Answer {
    rest.door.service.may_list_networks(&caller)?;
    if is_on(query.orphaned.as_ref()) {
        return Ok(Json(json!([])).into_response());
    }
    // BOSH's words, but no failure of the director's.
    Err(Failure::Text(StatusCode::BAD_REQUEST, "listing active networks is not implemented".into()))
}

#[derive(Deserialize)]
pub(super) struct CleanUpQuery {
    remove_all: Option<String>,
    keep_orphaned_disks: Option<String>,
}

/// `clean-up --dry-run`
pub(super) async fn preview(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<CleanUpQuery>,
) -> Answer {
    let wish = CleanUp {
        all: is_on(query.remove_all.as_ref()),
        keep_orphaned_disks: is_on(query.keep_orphaned_disks.as_ref()),
    };
    let LeftoverRows { releases, stemcells, disks, vms, exports } =
        rest.door.service.leftovers(&caller, wish).await?;
    let mut by_name: Vec<(String, Vec<String>)> = Vec::new();
    for release in releases {
        let (name, version) = (release.name.to_string(), release.version.to_string());
        match by_name.last_mut() {
            Some((last, versions)) if *last == name => versions.push(version),
            _ => by_name.push((name, vec![version])),
        }
    }
    let release = |(name, versions)| json!({ "name": name, "versions": versions });
    let stemcell = |(number, row)| stemcell_row(number, row, &[]);
    Ok(Json(json!({
        "releases": by_name.into_iter().map(release).collect::<Vec<_>>(),
        "stemcells": stemcells.into_iter().enumerate().map(stemcell).collect::<Vec<_>>(),
        "compiled_packages": [],
        "orphaned_disks": disks.iter().map(disk_row).collect::<Vec<_>>(),
        "orphaned_vms": vms.into_iter().map(orphaned_vm_row).collect::<Vec<_>>(),
        "exported_releases": exports,
        "dns_blobs": [],
    }))
    .into_response())
}

#[derive(Deserialize)]
pub(super) struct CleanUpBody {
    #[serde(default)]
    config: CleanUpConfig,
}

#[derive(Default, Deserialize)]
struct CleanUpConfig {
    #[serde(default)]
    remove_all: bool,
    #[serde(default)]
    keep_orphaned_disks: bool,
}

/// `clean-up`
pub(super) async fn clean_up(
    Login(caller): Login,
    State(rest): State<Rest>,
    parts: Parts,
    JsonBody(body): JsonBody<CleanUpBody>,
) -> Answer {
    let CleanUpConfig { remove_all, keep_orphaned_disks } = body.config;
    let (service, wish) = (&rest.door.service, CleanUp { all: remove_all, keep_orphaned_disks });
    let content = [u8::from(remove_all), u8::from(keep_orphaned_disks)];
    let key = repeats::key(service, &caller, &parts, &content).await?;
    Ok(see_task(service.clean_up(&caller, Some(key), wish).await?))
}
