//! Snapshots of persistent disks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use model::{DeploymentName, SnapshotCid};
use schemars::JsonSchema;
use serde::Serialize;
use service::Caller;

use super::Rest;
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, List, SeeTask};
use super::repeats;
use super::times;

/// `snapshots`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(deployment): Path<String>,
) -> List<SnapshotRow> {
    listed(&rest, &caller, deployment, None).await
}

/// `snapshots GROUP/ID`
pub(super) async fn list_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((deployment, group, instance)): Path<(String, String, String)>,
) -> List<SnapshotRow> {
    listed(&rest, &caller, deployment, Some((&group, &instance))).await
}

/// A snapshot of a disk.
#[derive(JsonSchema, Serialize)]
pub(super) struct SnapshotRow {
    /// The instance's group.
    job: String,
    index: u32,
    uuid: String,
    snapshot_cid: String,
    created_at: String,
    /// Whether the jobs were stopped meanwhile.
    clean: bool,
}

async fn listed(
    rest: &Rest,
    caller: &Caller,
    deployment: String,
    of: Option<(&str, &str)>,
) -> List<SnapshotRow> {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let found = all!(page => service.snapshots(caller, &name, of, &page));
    let mut all: Vec<_> = Vec::new();
    for row in found {
        let spec = row.instance.spec;
        for (cid, snapshot) in row.snapshots {
            let shown = SnapshotRow {
                job: spec.group.to_string(),
                index: spec.index,
                uuid: spec.id.to_string(),
                snapshot_cid: cid.to_string(),
                created_at: times::dated(snapshot.created_at),
                clean: snapshot.clean,
            };
            all.push((snapshot.created_at, shown));
        }
    }
    // By instance they came; as they were taken they are shown.
    all.sort_by_key(|(at, _)| *at);
    Ok(Json(all.into_iter().map(|(_, shown)| shown).collect()))
}

/// `take-snapshot`
pub(super) async fn take(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(deployment): Path<String>,
    parts: Parts,
) -> Answer<SeeTask> {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.take_snapshots(&caller, Some(key), &name, None).await?))
}

/// `take-snapshot GROUP/ID`
pub(super) async fn take_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((deployment, group, instance)): Path<(String, String, String)>,
    parts: Parts,
) -> Answer<SeeTask> {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.take_snapshots(&caller, Some(key), &name, Some((&group, &instance))).await?))
}

/// `delete-snapshots`
pub(super) async fn delete_all(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(deployment): Path<String>,
    parts: Parts,
) -> Answer<SeeTask> {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(SeeTask(service.delete_snapshots(&caller, Some(key), &name, None).await?))
}

/// `delete-snapshot`
pub(super) async fn delete_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((deployment, cid)): Path<(String, String)>,
    parts: Parts,
) -> Answer<SeeTask> {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let cid = Some(SnapshotCid::new(cid));
    Ok(SeeTask(service.delete_snapshots(&caller, Some(key), &name, cid).await?))
}
