//! Logs of instances, and the bytes that tasks leave.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use model::task::InstanceFilter;
use model::{BlobDigest, DeploymentName, ErrorCode};
use release::{BlobError, Blobstore as _};
use schemars::JsonSchema;
use serde::Deserialize;
use service::ops::LogWish;
use tokio_util::io::ReaderStream;

use super::Rest;
use super::answer::told;
use super::content::Query;
use super::login::Login;
use super::outcome::{Answer, Content, SeeTask};
use super::repeats;

/// Bytes in one piece of a body.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

#[derive(Deserialize, JsonSchema)]
pub(super) struct LogsQuery {
    /// `job`, `agent`, `system`, or several with commas between them.
    r#type: Option<String>,
    /// Globs, with commas between them.
    filters: Option<String>,
}

/// `logs`
pub(super) async fn fetch(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, group, instance)): Path<(String, String, String)>,
    Query(query): Query<LogsQuery>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let given = |text: String| Some(text).filter(|text| text != "*");
    let instances = InstanceFilter { group: given(group).map(Into::into), id_or_index: given(instance) };
    let filters = query.filters.unwrap_or_default();
    let filters = filters.split([',', ' ']).filter(|glob| !glob.is_empty()).map(str::to_owned).collect();
    let wish = LogWish { instances, logs: query.r#type.unwrap_or_default(), filters };
    Ok(SeeTask(service.fetch_logs(&caller, Some(key), &DeploymentName::new(name), wish).await?))
}

/// What a task has left, whole.
pub(super) async fn resource(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<Content> {
    rest.door.service.may_download(&caller)?;
    let digest = BlobDigest::new(id.clone());
    let missing = || told(ErrorCode::ResourceNotFound, format!("Resource '{id}' not found in the blobstore"));
    let record = rest.door.service.blob(&caller, &digest).await?.ok_or_else(missing)?;
    let reader = match rest.door.blobs.get(&digest).await {
        Err(BlobError::NotFound { .. } | BlobError::InvalidDigest { .. }) => return Err(missing()),
        other => other?,
    };
    let body = Body::from_stream(ReaderStream::with_capacity(reader, PIECE_BYTES));
    Ok(Content { size_bytes: record.size_bytes, body })
}
