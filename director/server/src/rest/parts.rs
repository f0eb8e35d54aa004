//! Parts of releases by what they are called: jobs by fingerprint, sources of packages by blob.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use model::ErrorCode;
use model::task::TaskError;
use release::Blobstore as _;
use release::archive::JobArchive;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::ServiceError;
use service::ops::JobQuestion;
use tokio_util::io::ReaderStream;

use super::Rest;
use super::answer::{Failure, told};
use super::content::Query;
use super::login::Login;
use super::logs::PIECE_BYTES;
use super::outcome::{Answer, Content, List, NamedContent};

/// Which job is meant; all of it must be said.
#[derive(Deserialize, JsonSchema)]
pub(super) struct JobQuery {
    /// In any version of this one.
    release_name: Option<String>,
    name: Option<String>,
    fingerprint: Option<String>,
}

/// A job, and what its archive says of it.
#[derive(JsonSchema, Serialize)]
pub(super) struct FoundJob {
    name: String,
    fingerprint: String,
    /// Its `job.MF`.
    spec: Value,
}

/// The job of a release with a fingerprint, if there is one.
pub(super) async fn jobs(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<JobQuery>,
) -> List<FoundJob> {
    let given = |text: Option<String>| text.unwrap_or_default();
    let question = JobQuestion {
        release: given(query.release_name),
        name: given(query.name),
        fingerprint: given(query.fingerprint).into(),
    };
    let is_whole = [&question.release, &question.name].iter().all(|text| !text.is_empty())
        && !question.fingerprint.as_str().is_empty();
    let found = rest.door.service.job(&caller, question).await?;
    if !is_whole {
        // As BOSH says it: with nothing.
        return Err(Failure::Text(StatusCode::BAD_REQUEST, String::new()));
    }
    let Some(job) = found else {
        return Err(Failure::Text(StatusCode::NOT_FOUND, "Endpoint '/jobs' not found.".to_owned()));
    };
    let archive = JobArchive::load(&*rest.door.blobs, &job.name, &job.blob).await;
    let archive = archive.map_err(|error| told(error.code, error.message))?;
    Ok(Json(vec![FoundJob {
        name: job.name.to_string(),
        fingerprint: job.fingerprint.to_string(),
        spec: archive.spec().clone(),
    }]))
}

/// The source of a package, whole.
pub(super) async fn source(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(id): Path<String>,
) -> Answer<NamedContent> {
    let found = rest.door.service.package_source(&caller, &id).await;
    let record = found.map_err(|error| match error {
        ServiceError::Told(TaskError { code, message }) if code == ErrorCode::BadRequest.number() => {
            Failure::Text(StatusCode::BAD_REQUEST, message)
        }
        other => other.into(),
    })?;
    let reader = rest.door.blobs.get(&record.digest).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(reader, PIECE_BYTES));
    let content = Content { size_bytes: record.size_bytes, body };
    Ok(NamedContent { name: format!("package-blob-{}", record.digest), content })
}
