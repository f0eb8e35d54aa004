//! Releases and stemcells. Archives come as raw bodies and go straight into the fleet's blobs.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use futures::TryStreamExt as _;
use model::release::ReleaseVersion;
use model::stemcell::StemcellRecord;
use model::{BlobDigest, DeploymentName, ErrorCode, Version};
use release::Blobstore as _;
use serde::Deserialize;
use serde_json::{Value, json};
use service::{Caller, Right};
use tokio_util::io::StreamReader;

use super::answer::{Answer, Failure, see_task, told};
use super::deployments::all;
use super::login::Login;
use super::repeats;
use super::{Rest, is_on};
use crate::door::at_most;

/// `releases`
pub(super) async fn releases(Login(caller): Login, State(rest): State<Rest>) -> Answer {
    let service = &rest.door.service;
    let mut by_name: BTreeMap<String, Vec<(Version, Value)>> = BTreeMap::new();
    for (release, in_use) in all!(page => service.releases(&caller, &page)) {
        let jobs: Vec<_> = release.jobs.iter().map(|job| job.name.to_string()).collect();
        let version = json!({
            "version": release.release.version,
            "commit_hash": release.commit_hash,
            "uncommitted_changes": release.uncommitted_changes,
            "currently_deployed": in_use,
            "job_names": jobs,
        });
        let name = release.release.name.to_string();
        by_name.entry(name).or_default().push((release.release.version, version));
    }
    let row = |(name, versions): (String, Vec<(Version, Value)>)| {
        let versions: Vec<Value> = versions.into_iter().map(|(_, version)| version).collect();
        json!({ "name": name, "release_versions": versions })
    };
    Ok(Json(by_name.into_iter().map(row).collect::<Vec<_>>()).into_response())
}

#[derive(Deserialize)]
pub(super) struct ReleaseQuery {
    version: Option<String>,
}

/// `inspect-release`
pub(super) async fn release(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<ReleaseQuery>,
) -> Answer {
    let service = &rest.door.service;
    let Some(version) = query.version.filter(|version| !version.is_empty()) else {
        return all_versions(&rest, &caller, &name).await;
    };
    let (release, compiled) = service.release(&caller, &name.into(), &version.into()).await?;
    let jobs = release.jobs.iter().map(|job| {
        let provides = job.provides.iter().map(|link| {
            let mut row = json!({ "name": link.name, "type": link.kind });
            if !link.properties.is_empty() {
                row["properties"] = json!(link.properties);
            }
            row
        });
        let consumes = job.consumes.iter().map(|link| {
            let mut row = json!({ "name": link.name, "type": link.kind });
            if link.optional {
                row["optional"] = json!(true);
            }
            row
        });
        json!({
            "name": job.name, "blobstore_id": job.blob, "sha1": job.digest, "fingerprint": job.fingerprint,
            "consumes": consumes.collect::<Vec<_>>(), "provides": provides.collect::<Vec<_>>(),
        })
    });
    let packages = release.packages.iter().map(|package| {
        let of_this = compiled
            .iter()
            .filter(|c| c.key.name == package.name && c.key.fingerprint == package.fingerprint);
        let compiled: Vec<Value> = of_this
            .map(|c| {
                let stemcell = format!("{}/{}", c.key.os, c.key.stemcell_version);
                json!({ "stemcell": stemcell, "sha1": c.digest, "blobstore_id": c.blob })
            })
            .collect();
        json!({
            "name": package.name, "blobstore_id": package.source, "sha1": package.digest,
            "fingerprint": package.fingerprint, "compiled_packages": compiled,
        })
    });
    let body = json!({ "jobs": jobs.collect::<Vec<_>>(), "packages": packages.collect::<Vec<_>>() });
    Ok(Json(body).into_response())
}

async fn all_versions(rest: &Rest, caller: &Caller, name: &str) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.releases(caller, &page));
    let versions: Vec<ReleaseVersion> =
        found.into_iter().map(|(release, _)| release).filter(|r| r.release.name.as_str() == name).collect();
    if versions.is_empty() {
        return Err(told(ErrorCode::ReleaseNotFound, format!("Release '{name}' doesn't exist")));
    }
    // What several versions have in common is told once.
    let packages = versions.iter().flat_map(|v| &v.packages).map(|p| {
        let row = json!({
            "name": p.name, "sha1": p.digest, "version": p.fingerprint, "dependencies": p.dependencies,
        });
        ((p.name.clone(), p.fingerprint.clone()), row)
    });
    let jobs = versions.iter().flat_map(|v| &v.jobs).map(|j| {
        let row =
            json!({ "name": j.name, "sha1": j.digest, "version": j.fingerprint, "packages": j.packages });
        ((j.name.clone(), j.fingerprint.clone()), row)
    });
    let numbers: Vec<&Version> = versions.iter().map(|v| &v.release.version).collect();
    let (packages, jobs) = (distinct(packages), distinct(jobs));
    Ok(Json(json!({ "packages": packages, "jobs": jobs, "versions": numbers })).into_response())
}

/// Returns rows as they come, of those with the same key the first.
fn distinct<K: Ord>(rows: impl Iterator<Item = (K, Value)>) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    rows.filter_map(|(key, row)| seen.insert(key).then_some(row)).collect()
}

#[derive(Deserialize)]
pub(super) struct UploadQuery {
    rebase: Option<String>,
    fix: Option<String>,
}

/// What an upload brings: an archive, or where there is one.
enum Brought {
    Blob(BlobDigest),
    Url { location: String, digest: Option<String>, body: Bytes },
}

impl Brought {
    /// Returns what tells it from others, for repeats.
    fn content(&self) -> &[u8] {
        match self {
            Self::Blob(digest) => digest.as_str().as_bytes(),
            Self::Url { body, .. } => body,
        }
    }
}

/// The longest body that tells of an archive instead of being one.
const URL_BYTES_MAX: usize = 64 << 10;

/// Takes an archive into the fleet's blobs, or reads where there is one.
async fn archive(
    rest: &Rest,
    (caller, right): (&Caller, Right),
    parts: &Parts,
    body: Body,
) -> Result<Brought, Failure> {
    rest.door.service.may_upload(caller, right)?;
    let kind = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/json") {
        return located(axum::body::to_bytes(body, URL_BYTES_MAX).await.unwrap_or_default());
    }
    if kind != b"application/x-compressed" {
        let text = format!("Endpoint '{}' not found.", parts.uri.path());
        return Err(Failure::Text(StatusCode::NOT_FOUND, text));
    }
    let content = body.into_data_stream().map_err(std::io::Error::other);
    let content = at_most(rest.door.upload_bytes_max, content);
    let stored = rest.door.blobs.put(&mut StreamReader::new(Box::pin(content))).await?;
    Ok(Brought::Blob(stored.digest))
}

/// Nothing of the body goes into an error: there may be a password in the URL.
fn located(body: Bytes) -> Result<Brought, Failure> {
    let bad = |_| told(ErrorCode::BadJson, "Invalid JSON request body");
    let wish: Value = serde_json::from_slice(&body).map_err(bad)?;
    let text = |field: &str| match wish.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(told(
            ErrorCode::ValidationInvalidType,
            format!("Property '{field}' did not match the required type 'String'"),
        )),
    };
    let missing = || {
        told(ErrorCode::ValidationMissingField, "Required property 'location' was not specified in object")
    };
    Ok(Brought::Url { location: text("location")?.ok_or_else(missing)?, digest: text("sha1")?, body })
}

/// `upload-release`
pub(super) async fn upload_release(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<UploadQuery>,
    parts: Parts,
    body: Body,
) -> Answer {
    let (service, brought) =
        (&rest.door.service, archive(&rest, (&caller, Right::UploadReleases), &parts, body).await?);
    let key = Some(repeats::key(service, &caller, &parts, brought.content()).await?);
    let (rebase, fix) = (is_on(query.rebase.as_ref()), is_on(query.fix.as_ref()));
    Ok(see_task(match brought {
        Brought::Blob(blob) => service.upload_release(&caller, key, blob, rebase, fix).await?,
        Brought::Url { location, digest, .. } => {
            let wanted = rest.door.wanted(location, digest);
            service.fetch_release(&caller, key, wanted, rebase, fix).await?
        }
    }))
}

#[derive(Deserialize)]
pub(super) struct DeleteQuery {
    version: Option<String>,
    force: Option<String>,
}

/// `delete-release`
pub(super) async fn delete_release(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let version = query.version.filter(|version| !version.is_empty()).map(Version::from);
    Ok(see_task(service.delete_release(&caller, Some(key), name.into(), version).await?))
}

/// `stemcells`
pub(super) async fn stemcells(Login(caller): Login, State(rest): State<Rest>) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.stemcells(&caller, &page));
    let users = service.stemcell_users(&caller).await?;
    let row = |(number, (record, _)): (usize, (StemcellRecord, bool))| {
        let key = (record.stemcell.name.clone(), record.stemcell.version.clone());
        let users = users.get(&key).map(Vec::as_slice).unwrap_or_default();
        stemcell_row(number, record, users)
    };
    Ok(Json(found.into_iter().enumerate().map(row).collect::<Vec<_>>()).into_response())
}

/// `number` is its place in the list.
pub(super) fn stemcell_row(number: usize, record: StemcellRecord, users: &[DeploymentName]) -> Value {
    let stemcell = record.stemcell;
    let deployments: Vec<Value> = users.iter().map(|name| json!({ "name": name })).collect();
    json!({
        // There is no such number here; lists show none.
        "id": number + 1,
        "name": stemcell.name, "operating_system": stemcell.os, "version": stemcell.version,
        "cid": stemcell.cid, "cpi": stemcell.cpi, "api_version": stemcell.api_version,
        "deployments": deployments,
    })
}

/// `upload-stemcell`
pub(super) async fn upload_stemcell(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<UploadQuery>,
    parts: Parts,
    body: Body,
) -> Answer {
    let (service, brought) =
        (&rest.door.service, archive(&rest, (&caller, Right::UploadStemcells), &parts, body).await?);
    let key = Some(repeats::key(service, &caller, &parts, brought.content()).await?);
    let fix = is_on(query.fix.as_ref());
    Ok(see_task(match brought {
        Brought::Blob(blob) => service.upload_stemcell(&caller, key, blob, fix).await?,
        Brought::Url { location, digest, .. } => {
            let wanted = rest.door.wanted(location, digest);
            service.fetch_stemcell(&caller, key, wanted, fix).await?
        }
    }))
}

/// Whether a stemcell is still to be uploaded.
pub(super) async fn is_stemcell_needed(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Bytes,
) -> Answer {
    let service = &rest.door.service;
    let found = all!(page => service.stemcells(&caller, &page));
    let bad =
        |error: serde_json::Error| told(ErrorCode::BadJson, format!("Invalid JSON request body: {error}"));
    let wish: Value = serde_json::from_slice(&body).map_err(bad)?;
    let missing = |field| move || told(ErrorCode::ValidationMissingField, format!("Missing '{field}' field"));
    let stemcell = wish.get("stemcell").ok_or_else(missing("stemcell"))?;
    let part = |field| stemcell.get(field).and_then(Value::as_str).ok_or_else(missing(field));
    let (name, version) = (part("name")?, part("version")?);
    let is_there = found
        .iter()
        .any(|(record, _)| record.stemcell.name == name && record.stemcell.version.as_str() == version);
    Ok(Json(json!({ "needed": !is_there })).into_response())
}

/// `delete-stemcell`
pub(super) async fn delete_stemcell(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, version)): Path<(String, String)>,
    Query(query): Query<DeleteQuery>,
    parts: Parts,
) -> Answer {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let force = is_on(query.force.as_ref());
    Ok(see_task(service.delete_stemcell(&caller, Some(key), name, version.into(), force).await?))
}
