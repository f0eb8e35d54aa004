//! Snapshots of persistent disks.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::{DeploymentName, SnapshotCid};
use serde_json::{Value, json};
use service::Caller;

use super::Rest;
use super::answer::{Answer, see_task};
use super::deployments::all;
use super::login::Login;
use super::repeats;
use super::times;

/// `snapshots`
pub(super) async fn list(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(deployment): Path<String>,
) -> Answer {
    listed(&rest, &caller, deployment, None).await
}

/// `snapshots GROUP/ID`
pub(super) async fn list_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((deployment, group, instance)): Path<(String, String, String)>,
) -> Answer {
    listed(&rest, &caller, deployment, Some((&group, &instance))).await
}

async fn listed(rest: &Rest, caller: &Caller, deployment: String, of: Option<(&str, &str)>) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let found = all!(page => service.snapshots(caller, &name, of, &page));
    let mut all: Vec<_> = Vec::new();
    for row in found {
        let spec = row.instance.spec;
        for (cid, snapshot) in row.snapshots {
            let shown: Value = json!({
                "job": spec.group,
                "index": spec.index,
                "uuid": spec.id,
                "snapshot_cid": cid,
                "created_at": times::dated(snapshot.created_at),
                "clean": snapshot.clean,
            });
            all.push((snapshot.created_at, shown));
        }
    }
    // By instance they came; as they were taken they are shown.
    all.sort_by_key(|(at, _)| *at);
    Ok(Json(all.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>()).into_response())
}

/// `take-snapshot`
pub(super) async fn take(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(deployment): Path<String>,
    parts: Parts,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(see_task(service.take_snapshots(&caller, Some(key), &name, None).await?))
}

/// `take-snapshot GROUP/ID`
pub(super) async fn take_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((deployment, group, instance)): Path<(String, String, String)>,
    parts: Parts,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(see_task(service.take_snapshots(&caller, Some(key), &name, Some((&group, &instance))).await?))
}

/// `delete-snapshots`
pub(super) async fn delete_all(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(deployment): Path<String>,
    parts: Parts,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    Ok(see_task(service.delete_snapshots(&caller, Some(key), &name, None).await?))
}

/// `delete-snapshot`
pub(super) async fn delete_one(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((deployment, cid)): Path<(String, String)>,
    parts: Parts,
) -> Answer {
    let (service, name) = (&rest.door.service, DeploymentName::new(deployment));
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let cid = Some(SnapshotCid::new(cid));
    Ok(see_task(service.delete_snapshots(&caller, Some(key), &name, cid).await?))
}
