//! Single disks and VMs, and what nothing uses any more: orphaned disks and networks, and clean-ups.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use model::ErrorCode;
use model::managed_network::ManagedNetwork;
use model::task::InstanceFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::ServiceError;
use service::ops::{Attachment, CleanUp, LeftoverRows, WhichNetworks};
use state::records::OrphanedDisk;

use super::answer::Failure;
use super::artifacts::StemcellRow;
use super::content::{JsonBody, Query};
use super::deployments::all;
use super::instances::OrphanedVmRow;
use super::login::Login;
use super::outcome::{Answer, List, SeeTask};
use super::repeats;
use super::times;
use super::{Rest, is_on};
use crate::fleet::log::now;

/// A disk that nothing uses any more.
#[derive(JsonSchema, Serialize)]
pub(super) struct OrphanedDiskRow {
    disk_cid: Option<String>,
    /// In MiB.
    size: u64,
    az: Option<String>,
    deployment_name: String,
    instance_name: String,
    cloud_properties: Value,
    orphaned_at: String,
}

impl From<OrphanedDisk> for OrphanedDiskRow {
    fn from(orphan: OrphanedDisk) -> Self {
        Self {
            disk_cid: orphan.disk.cid.map(|cid| cid.to_string()),
            size: orphan.disk.spec.size_mib,
            az: orphan.az.map(|az| az.to_string()),
            deployment_name: orphan.deployment.to_string(),
            instance_name: orphan.slug,
            cloud_properties: orphan.disk.spec.cloud_properties,
            orphaned_at: times::dated(orphan.orphaned_at),
        }
    }
}

/// `disks --orphaned`
pub(super) async fn disks(Login(caller): Login, State(rest): State<Rest>) -> List<OrphanedDiskRow> {
    let service = &rest.door.service;
    let found = all!(page => service.orphaned_disks(&caller, &page));
    Ok(Json(found.into_iter().map(OrphanedDiskRow::from).collect()))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DiskQuery {
    /// To give an instance's disk up, instead of deleting an orphan.
    #[schemars(with = "Option<bool>")]
    orphan: Option<String>,
}

/// `delete-disk`
pub(super) async fn delete_disk(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(cid): Path<String>,
    Query(query): Query<DiskQuery>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(match is_on(query.orphan.as_ref()) {
        true => service.orphan_disk(&caller, Some(key), &cid.into()).await?,
        false => service.delete_orphaned_disk(&caller, Some(key), &cid).await?,
    }))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct AttachmentQuery {
    deployment: Option<String>,
    job: Option<String>,
    instance_id: Option<String>,
    /// `copy`, to keep those of the disk that is there.
    disk_properties: Option<String>,
}

/// `attach-disk`
pub(super) async fn attach_disk(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(cid): Path<String>,
    Query(query): Query<AttachmentQuery>,
    parts: Parts,
) -> Answer<SeeTask> {
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
    Ok(SeeTask(service.attach_disk(&caller, Some(key), attachment).await?))
}

/// `delete-vm`
pub(super) async fn delete_vm(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(cid): Path<String>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.delete_vm(&caller, Some(key), &cid.into()).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct NetworksQuery {
    /// Must be so.
    #[schemars(with = "Option<bool>")]
    orphaned: Option<String>,
}

/// A network that directors have made and that nobody uses any more.
#[derive(JsonSchema, Serialize)]
pub(super) struct OrphanedNetworkRow {
    name: String,
    r#type: &'static str,
    created_at: String,
    orphaned_at: String,
}

/// `networks --orphaned`
pub(super) async fn networks(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<NetworksQuery>,
) -> List<OrphanedNetworkRow> {
    let service = &rest.door.service;
    let found = all!(page => async {
        service.networks(&caller, WhichNetworks::Orphaned, &page).await.map(|found| found.list)
    });
    if !is_on(query.orphaned.as_ref()) {
        // BOSH's words, but no failure of the director's.
        return Err(Failure::Text(
            StatusCode::BAD_REQUEST,
            "listing active networks is not implemented".into(),
        ));
    }
    let row = |network: ManagedNetwork| OrphanedNetworkRow {
        name: network.name.to_string(),
        r#type: "manual",
        created_at: times::dated(network.created_at),
        orphaned_at: network.orphaned_at.map(times::dated).unwrap_or_default(),
    };
    Ok(Json(found.into_iter().map(row).collect()))
}

/// `delete-network`
pub(super) async fn delete_network(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.delete_orphaned_networks(&caller, Some(key), vec![name.into()]).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CleanUpQuery {
    #[schemars(with = "Option<bool>")]
    remove_all: Option<String>,
    #[schemars(with = "Option<bool>")]
    keep_orphaned_disks: Option<String>,
}

/// `clean-up --dry-run`
pub(super) async fn preview(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<CleanUpQuery>,
) -> Answer<Json<Leftovers>> {
    let wish = CleanUp {
        all: is_on(query.remove_all.as_ref()),
        keep_orphaned_disks: is_on(query.keep_orphaned_disks.as_ref()),
        now: now(),
    };
    let LeftoverRows { releases, stemcells, disks, vms, exports, dns_blobs } =
        rest.door.service.leftovers(&caller, wish).await?;
    let mut by_name: Vec<ReleaseLeftovers> = Vec::new();
    for release in releases {
        let (name, version) = (release.name.to_string(), release.version.to_string());
        match by_name.last_mut() {
            Some(last) if last.name == name => last.versions.push(version),
            _ => by_name.push(ReleaseLeftovers { name, versions: vec![version] }),
        }
    }
    let stemcell = |(number, row)| StemcellRow::new(number, row, &[]);
    Ok(Json(Leftovers {
        releases: by_name,
        stemcells: stemcells.into_iter().enumerate().map(stemcell).collect(),
        compiled_packages: Vec::new(),
        orphaned_disks: disks.into_iter().map(OrphanedDiskRow::from).collect(),
        orphaned_vms: vms.into_iter().map(OrphanedVmRow::from).collect(),
        exported_releases: exports.into_iter().map(|blob| blob.to_string()).collect(),
        dns_blobs: dns_blobs.into_iter().map(|blob| blob.to_string()).collect(),
    }))
}

/// What a clean-up would delete.
#[derive(JsonSchema, Serialize)]
pub(super) struct Leftovers {
    releases: Vec<ReleaseLeftovers>,
    stemcells: Vec<StemcellRow>,
    /// Empty: they go with their releases.
    compiled_packages: Vec<String>,
    orphaned_disks: Vec<OrphanedDiskRow>,
    orphaned_vms: Vec<OrphanedVmRow>,
    exported_releases: Vec<String>,
    /// Documents of DNS records that newer ones have replaced.
    dns_blobs: Vec<String>,
}

/// Versions of a release.
#[derive(JsonSchema, Serialize)]
struct ReleaseLeftovers {
    name: String,
    versions: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CleanUpBody {
    #[serde(default)]
    config: CleanUpConfig,
}

#[derive(Default, Deserialize, JsonSchema)]
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
) -> Answer<SeeTask> {
    let CleanUpConfig { remove_all, keep_orphaned_disks } = body.config;
    let (service, wish) = (&rest.door.service, CleanUp { all: remove_all, keep_orphaned_disks, now: now() });
    let content = [u8::from(remove_all), u8::from(keep_orphaned_disks)];
    let key = repeats::key(service, &caller, &parts, &content).await?;
    Ok(SeeTask(service.clean_up(&caller, Some(key), wish).await?))
}
