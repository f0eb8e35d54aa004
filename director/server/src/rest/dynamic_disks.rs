//! Dynamic disks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use model::dynamic_disk::{DiskMetadata, DynamicDiskWish};
use model::fields::{Checked, Fields};
use model::{DynamicDiskName, ErrorCode};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use service::ops::DynamicDiskRow;
use service::{Right, ServiceError};

use super::Rest;
use super::answer::{Failure, told};
use super::content::Unread;
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, List, SeeTask};
use super::repeats;

/// A disk that is made, attached and deleted by itself.
#[derive(JsonSchema, Serialize)]
pub(super) struct Row {
    name: String,
    /// None while nobody knows whether it was made.
    disk_cid: Option<String>,
    deployment: String,
    /// The instance that has it, as `group/uuid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    availability_zone: Option<String>,
    /// In MiB.
    size: u64,
    /// The disk type.
    disk_pool_name: String,
    cpi: String,
    metadata: DiskMetadata,
}

impl From<DynamicDiskRow> for Row {
    fn from(row: DynamicDiskRow) -> Self {
        let DynamicDiskRow { disk, instance } = row;
        Self {
            name: disk.name.to_string(),
            disk_cid: disk.cid.map(|cid| cid.to_string()),
            deployment: disk.deployment.to_string(),
            instance,
            availability_zone: disk.az.map(|az| az.to_string()),
            size: disk.size_mib,
            disk_pool_name: disk.disk_type,
            cpi: disk.cpi.to_string(),
            metadata: disk.metadata,
        }
    }
}

/// The list.
pub(super) async fn list(Login(caller): Login, State(rest): State<Rest>) -> List<Row> {
    let service = &rest.door.service;
    let found = all!(page => service.dynamic_disks(&caller, &page));
    Ok(Json(found.into_iter().map(Row::from).collect()))
}

/// A disk to make.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct CreateBody {
    deployment_name: String,
    az: String,
    disk_name: String,
    disk_pool_name: String,
    /// In MiB.
    disk_size: u64,
    metadata: Option<DiskMetadata>,
}

/// A disk to attach, and to make if there is none of its name.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct ProvideBody {
    /// The instance's UUID.
    instance_id: String,
    disk_name: String,
    disk_pool_name: String,
    /// In MiB.
    disk_size: u64,
    metadata: Option<DiskMetadata>,
}

/// Where to attach a disk.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct AttachBody {
    /// The instance's UUID.
    instance_id: String,
    metadata: Option<DiskMetadata>,
}

/// Has a disk made.
pub(super) async fn create(
    Login(caller): Login,
    State(rest): State<Rest>,
    parts: Parts,
    body: Unread<CreateBody>,
) -> Answer<SeeTask> {
    caller.needs(Right::CreateDynamicDisks, "create dynamic disks")?;
    let document = document(&body)?;
    let read = |fields: Fields<'_>| {
        Ok(((fields.text("deployment_name")?.into(), fields.text("az")?.into()), wish(fields)?))
    };
    let (place, wish) = checked(&document, read)?;
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    Ok(SeeTask(service.create_dynamic_disk(&caller, Some(key), place, wish).await?))
}

/// Has a disk attached, and made before if need be.
pub(super) async fn provide(
    Login(caller): Login,
    State(rest): State<Rest>,
    parts: Parts,
    body: Unread<ProvideBody>,
) -> Answer<SeeTask> {
    caller.needs(Right::ProvideDynamicDisks, "provide dynamic disks")?;
    let document = document(&body)?;
    let read = |fields: Fields<'_>| Ok((fields.text("instance_id")?.into(), wish(fields)?));
    let (instance, wish) = checked(&document, read)?;
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    Ok(SeeTask(service.provide_dynamic_disk(&caller, Some(key), instance, wish).await?))
}

/// Has a disk attached.
pub(super) async fn attach(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    body: Unread<AttachBody>,
) -> Answer<SeeTask> {
    caller.needs(Right::AttachDynamicDisks, "attach dynamic disks")?;
    let document = document(&body)?;
    let read = |fields: Fields<'_>| Ok((fields.text("instance_id")?, metadata(fields)?));
    let (instance, metadata) = checked(&document, read)?;
    let (service, what) = (&rest.door.service, (DynamicDiskName::new(name), instance.into()));
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    Ok(SeeTask(service.attach_dynamic_disk(&caller, Some(key), what, metadata).await?))
}

/// Has a disk detached.
pub(super) async fn detach(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.detach_dynamic_disk(&caller, Some(key), name.into()).await?))
}

/// Has a disk deleted.
pub(super) async fn delete(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.delete_dynamic_disk(&caller, Some(key), name.into()).await?))
}

fn document<T>(body: &Unread<T>) -> Result<Value, Failure> {
    serde_json::from_slice(&body.bytes)
        .map_err(|error| told(ErrorCode::BadRequest, format!("the body is not JSON: {error}")))
}

/// Reads a body with BOSH's complaints about its fields.
fn checked<T>(document: &Value, read: impl Fn(Fields<'_>) -> Checked<T>) -> Result<T, Failure> {
    Fields::of(document).and_then(read).map_err(|error| ServiceError::Told(error).into())
}

fn wish(fields: Fields<'_>) -> Checked<DynamicDiskWish> {
    let name = fields.text("disk_name")?.into();
    let disk_type = fields.text("disk_pool_name")?;
    // What is below 1 is too small, however far.
    let size_mib = u64::try_from(fields.integer("disk_size")?).unwrap_or_default();
    Ok(DynamicDiskWish { name, disk_type, size_mib, metadata: metadata(fields)? })
}

fn metadata(fields: Fields<'_>) -> Checked<Option<DiskMetadata>> {
    let given = fields.mapping_opt("metadata")?;
    Ok(given.map(|map| map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
}
