//! Releases and stemcells. Archives come as raw bodies and go straight into the fleet's blobs.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use futures::TryStreamExt as _;
use model::release::{JobInfo, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::{BlobDigest, DeploymentName, ErrorCode, PackageName, Version};
use release::Blobstore as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::{Caller, Right};
use tokio_util::io::StreamReader;

use super::answer::{Failure, told};
use super::content::{Archive, Query, Unread};
use super::deployments::all;
use super::login::Login;
use super::outcome::{Answer, List, SeeTask};
use super::repeats;
use super::{Rest, is_on};
use crate::door::at_most;

/// A release.
#[derive(JsonSchema, Serialize)]
pub(super) struct ReleaseRow {
    name: String,
    release_versions: Vec<ReleaseVersionRow>,
}

/// A version of a release.
#[derive(JsonSchema, Serialize)]
struct ReleaseVersionRow {
    version: String,
    commit_hash: String,
    uncommitted_changes: bool,
    currently_deployed: bool,
    job_names: Vec<String>,
}

/// `releases`
pub(super) async fn releases(Login(caller): Login, State(rest): State<Rest>) -> List<ReleaseRow> {
    let service = &rest.door.service;
    let mut by_name: BTreeMap<String, Vec<ReleaseVersionRow>> = BTreeMap::new();
    for (release, in_use) in all!(page => service.releases(&caller, &page)) {
        let version = ReleaseVersionRow {
            version: release.release.version.to_string(),
            commit_hash: release.commit_hash,
            uncommitted_changes: release.uncommitted_changes,
            currently_deployed: in_use,
            job_names: release.jobs.iter().map(|job| job.name.to_string()).collect(),
        };
        by_name.entry(release.release.name.to_string()).or_default().push(version);
    }
    let row = |(name, release_versions)| ReleaseRow { name, release_versions };
    Ok(Json(by_name.into_iter().map(row).collect()))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ReleaseQuery {
    version: Option<String>,
}

/// A version of a release, if one is asked for; else what all of them have.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub(super) enum ReleaseAnswer {
    /// One version.
    One(Inspected),
    /// All of them.
    All(AllVersions),
}

/// What is in a version of a release.
#[derive(JsonSchema, Serialize)]
pub(super) struct Inspected {
    jobs: Vec<InspectedJob>,
    packages: Vec<InspectedPackage>,
}

/// A job of a version of a release.
#[derive(JsonSchema, Serialize)]
struct InspectedJob {
    name: String,
    blobstore_id: String,
    sha1: String,
    fingerprint: String,
    consumes: Vec<InspectedLink>,
    provides: Vec<InspectedLink>,
}

/// A link that a job offers or wants.
#[derive(JsonSchema, Serialize)]
struct InspectedLink {
    name: String,
    r#type: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
}

/// A package of a version of a release.
#[derive(JsonSchema, Serialize)]
struct InspectedPackage {
    name: String,
    /// Where its source is; null in a compiled release.
    blobstore_id: Option<String>,
    sha1: String,
    fingerprint: String,
    compiled_packages: Vec<InspectedCompiled>,
}

/// A package that is compiled.
#[derive(JsonSchema, Serialize)]
struct InspectedCompiled {
    /// `OS/VERSION`
    stemcell: String,
    sha1: String,
    blobstore_id: String,
}

/// What all versions of a release have.
#[derive(JsonSchema, Serialize)]
pub(super) struct AllVersions {
    packages: Vec<PackageOfSome>,
    jobs: Vec<JobOfSome>,
    versions: Vec<String>,
}

/// A package of some versions.
#[derive(JsonSchema, Serialize)]
struct PackageOfSome {
    name: String,
    sha1: String,
    version: String,
    dependencies: Vec<String>,
}

/// A job of some versions.
#[derive(JsonSchema, Serialize)]
struct JobOfSome {
    name: String,
    sha1: String,
    version: String,
    packages: Vec<String>,
}

/// `inspect-release`
pub(super) async fn release(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<ReleaseQuery>,
) -> Answer<Json<ReleaseAnswer>> {
    let service = &rest.door.service;
    let Some(version) = query.version.filter(|version| !version.is_empty()) else {
        return Ok(Json(ReleaseAnswer::All(all_versions(&rest, &caller, &name).await?)));
    };
    let (release, compiled) = service.release(&caller, &name.into(), &version.into()).await?;
    let jobs = release.jobs.iter().map(InspectedJob::from).collect();
    let packages = release.packages.iter().map(|package| {
        let of_this = compiled
            .iter()
            .filter(|c| c.key.name == package.name && c.key.fingerprint == package.fingerprint);
        let compiled = of_this.map(|c| InspectedCompiled {
            stemcell: format!("{}/{}", c.key.os, c.key.stemcell_version),
            sha1: c.digest.clone(),
            blobstore_id: c.blob.to_string(),
        });
        InspectedPackage {
            name: package.name.to_string(),
            blobstore_id: package.source.as_ref().map(ToString::to_string),
            sha1: package.digest.clone(),
            fingerprint: package.fingerprint.to_string(),
            compiled_packages: compiled.collect(),
        }
    });
    Ok(Json(ReleaseAnswer::One(Inspected { jobs, packages: packages.collect() })))
}

impl From<&JobInfo> for InspectedJob {
    fn from(job: &JobInfo) -> Self {
        let provides = job.provides.iter().map(|link| InspectedLink {
            name: link.name.clone(),
            r#type: link.kind.clone(),
            properties: link.properties.clone(),
            optional: false,
        });
        let consumes = job.consumes.iter().map(|link| InspectedLink {
            name: link.name.clone(),
            r#type: link.kind.clone(),
            properties: Vec::new(),
            optional: link.optional,
        });
        Self {
            name: job.name.to_string(),
            blobstore_id: job.blob.to_string(),
            sha1: job.digest.clone(),
            fingerprint: job.fingerprint.to_string(),
            consumes: consumes.collect(),
            provides: provides.collect(),
        }
    }
}

async fn all_versions(rest: &Rest, caller: &Caller, name: &str) -> Answer<AllVersions> {
    let service = &rest.door.service;
    let found = all!(page => service.releases(caller, &page));
    let versions: Vec<ReleaseVersion> =
        found.into_iter().map(|(release, _)| release).filter(|r| r.release.name.as_str() == name).collect();
    if versions.is_empty() {
        return Err(told(ErrorCode::ReleaseNotFound, format!("Release '{name}' doesn't exist")));
    }
    let texts = |names: &[PackageName]| names.iter().map(ToString::to_string).collect();
    // What several versions have in common is told once.
    let packages = versions.iter().flat_map(|v| &v.packages).map(|p| PackageOfSome {
        name: p.name.to_string(),
        sha1: p.digest.clone(),
        version: p.fingerprint.to_string(),
        dependencies: texts(&p.dependencies),
    });
    let jobs = versions.iter().flat_map(|v| &v.jobs).map(|j| JobOfSome {
        name: j.name.to_string(),
        sha1: j.digest.clone(),
        version: j.fingerprint.to_string(),
        packages: texts(&j.packages),
    });
    Ok(AllVersions {
        packages: distinct(packages, |p| (p.name.clone(), p.version.clone())),
        jobs: distinct(jobs, |j| (j.name.clone(), j.version.clone())),
        versions: versions.iter().map(|v| v.release.version.to_string()).collect(),
    })
}

/// Returns rows as they come, of those with the same key the first.
fn distinct<T, K: Ord>(rows: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    rows.filter(|row| seen.insert(key(row))).collect()
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct UploadQuery {
    /// To count the version of a release on.
    #[schemars(with = "Option<bool>")]
    rebase: Option<String>,
    /// To replace what is there.
    #[schemars(with = "Option<bool>")]
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
    Archive(body): Archive,
) -> Answer<SeeTask> {
    let (service, brought) =
        (&rest.door.service, archive(&rest, (&caller, Right::UploadReleases), &parts, body).await?);
    let key = Some(repeats::key(service, &caller, &parts, brought.content()).await?);
    let (rebase, fix) = (is_on(query.rebase.as_ref()), is_on(query.fix.as_ref()));
    Ok(SeeTask(match brought {
        Brought::Blob(blob) => service.upload_release(&caller, key, blob, rebase, fix).await?,
        Brought::Url { location, digest, .. } => {
            let wanted = rest.door.wanted(location, digest);
            service.fetch_release(&caller, key, wanted, rebase, fix).await?
        }
    }))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DeleteQuery {
    /// Only this one of a release.
    version: Option<String>,
    #[schemars(with = "Option<bool>")]
    force: Option<String>,
}

/// `delete-release`
pub(super) async fn delete_release(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let version = query.version.filter(|version| !version.is_empty()).map(Version::from);
    Ok(SeeTask(service.delete_release(&caller, Some(key), name.into(), version).await?))
}

/// A stemcell in a cloud.
#[derive(JsonSchema, Serialize)]
pub(super) struct StemcellRow {
    /// Its place in the list: there is no such number here.
    id: usize,
    name: String,
    operating_system: String,
    version: String,
    cid: String,
    cpi: String,
    api_version: u32,
    /// Who uses it.
    deployments: Vec<StemcellUser>,
}

/// A deployment that uses a stemcell.
#[derive(JsonSchema, Serialize)]
struct StemcellUser {
    name: String,
}

impl StemcellRow {
    /// Returns the row at a place in the list.
    pub fn new(number: usize, record: StemcellRecord, users: &[DeploymentName]) -> Self {
        let stemcell = record.stemcell;
        Self {
            id: number + 1,
            name: stemcell.name,
            operating_system: stemcell.os,
            version: stemcell.version.to_string(),
            cid: stemcell.cid.to_string(),
            cpi: stemcell.cpi.to_string(),
            api_version: stemcell.api_version,
            deployments: users.iter().map(|name| StemcellUser { name: name.to_string() }).collect(),
        }
    }
}

/// `stemcells`
pub(super) async fn stemcells(Login(caller): Login, State(rest): State<Rest>) -> List<StemcellRow> {
    let service = &rest.door.service;
    let found = all!(page => service.stemcells(&caller, &page));
    let users = service.stemcell_users(&caller).await?;
    let row = |(number, (record, _)): (usize, (StemcellRecord, bool))| {
        let key = (record.stemcell.name.clone(), record.stemcell.version.clone());
        let users = users.get(&key).map(Vec::as_slice).unwrap_or_default();
        StemcellRow::new(number, record, users)
    };
    Ok(Json(found.into_iter().enumerate().map(row).collect()))
}

/// `upload-stemcell`
pub(super) async fn upload_stemcell(
    Login(caller): Login,
    State(rest): State<Rest>,
    Query(query): Query<UploadQuery>,
    parts: Parts,
    Archive(body): Archive,
) -> Answer<SeeTask> {
    let (service, brought) =
        (&rest.door.service, archive(&rest, (&caller, Right::UploadStemcells), &parts, body).await?);
    let key = Some(repeats::key(service, &caller, &parts, brought.content()).await?);
    let fix = is_on(query.fix.as_ref());
    Ok(SeeTask(match brought {
        Brought::Blob(blob) => service.upload_stemcell(&caller, key, blob, fix).await?,
        Brought::Url { location, digest, .. } => {
            let wanted = rest.door.wanted(location, digest);
            service.fetch_stemcell(&caller, key, wanted, fix).await?
        }
    }))
}

/// Which stemcell is asked for.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone: what is missing is told field by field")]
pub(super) struct StemcellQuestion {
    stemcell: StemcellName,
}

/// A stemcell.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
struct StemcellName {
    name: String,
    version: String,
}

/// Whether it is to be uploaded.
#[derive(JsonSchema, Serialize)]
pub(super) struct StemcellNeed {
    needed: bool,
}

/// Whether a stemcell is still to be uploaded: some cloud lacks it.
pub(super) async fn is_stemcell_needed(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Unread<StemcellQuestion>,
) -> Answer<Json<StemcellNeed>> {
    let service = &rest.door.service;
    let bad =
        |error: serde_json::Error| told(ErrorCode::BadJson, format!("Invalid JSON request body: {error}"));
    let wish: Value = serde_json::from_slice(&body.bytes).map_err(bad)?;
    let missing = |field| move || told(ErrorCode::ValidationMissingField, format!("Missing '{field}' field"));
    let stemcell = wish.get("stemcell").ok_or_else(missing("stemcell"))?;
    let part = |field| stemcell.get(field).and_then(Value::as_str).ok_or_else(missing(field));
    let (name, version) = (part("name")?, part("version")?);
    let needed = service.is_stemcell_needed(&caller, name.to_owned(), version.to_owned()).await?;
    Ok(Json(StemcellNeed { needed }))
}

/// `delete-stemcell`
pub(super) async fn delete_stemcell(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path((name, version)): Path<(String, String)>,
    Query(query): Query<DeleteQuery>,
    parts: Parts,
) -> Answer<SeeTask> {
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, b"").await?;
    let force = is_on(query.force.as_ref());
    Ok(SeeTask(service.delete_stemcell(&caller, Some(key), name, version.into(), force).await?))
}
