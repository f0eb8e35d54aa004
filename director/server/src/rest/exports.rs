//! Compiled releases: `export-release`, and which packages of a release need not be uploaded.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use model::instance::ReleaseRef;
use model::stemcell::StemcellVersion;
use model::step::PackageRefKey;
use model::task::{DigestKind, ReleaseExport};
use model::{DeploymentName, ErrorCode, Fingerprint, JobName, PackageName, ReleaseName, Version};
use release::archive::ReleaseManifest;
use release::archive::dependencies::dependency_key;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use service::ServiceError;

use super::answer::{Failure, told};
use super::content::{Unread, Yaml};
use super::login::Login;
use super::outcome::{Answer, List, SeeTask};
use super::{Rest, repeats};

#[derive(Deserialize, JsonSchema)]
pub(super) struct ExportBody {
    #[schemars(with = "String")]
    deployment_name: DeploymentName,
    #[schemars(with = "String")]
    release_name: ReleaseName,
    #[schemars(with = "String")]
    release_version: Version,
    stemcell_os: String,
    #[schemars(with = "String")]
    stemcell_version: Version,
    /// Whether its digest is a SHA-256.
    #[serde(default)]
    sha2: bool,
    #[serde(default)]
    jobs: Vec<ExportJob>,
}

#[derive(Deserialize, JsonSchema)]
struct ExportJob {
    #[schemars(with = "String")]
    name: JobName,
}

/// `export-release`. The path is that of a release, of which nothing else can be posted.
pub(super) async fn export(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    body: Unread<ExportBody>,
) -> Answer<SeeTask> {
    rest.door.service.may_export(&caller)?;
    if name != "export" {
        let text = format!("Endpoint '{}' not found.", parts.uri.path());
        return Err(Failure::Text(StatusCode::NOT_FOUND, text));
    }
    let wish = body.read()?;
    let export = ReleaseExport {
        release: ReleaseRef { name: wish.release_name, version: wish.release_version },
        stemcell: StemcellVersion { os: wish.stemcell_os, version: wish.stemcell_version },
        jobs: wish.jobs.into_iter().map(|job| job.name).collect(),
        digest: if wish.sha2 { DigestKind::Sha256 } else { DigestKind::Sha1 },
    };
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body.bytes).await?;
    Ok(SeeTask(service.export_release(&caller, Some(key), &wish.deployment_name, export).await?))
}

/// A release's manifest, of which only the packages count.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct SourcesDocument {
    packages: Vec<Value>,
}

/// That of a compiled release.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone")]
pub(super) struct CompiledDocument {
    compiled_packages: Vec<Value>,
}

/// Which packages of a release need not be uploaded, because their source is here.
pub(super) async fn matches(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Yaml<SourcesDocument>,
) -> List<String> {
    rest.door.service.may_match_packages(&caller)?;
    let manifest = with_packages(&body, "packages")?;
    let field = |package: &Value, name| package.get(name).and_then(Value::as_str).map(str::to_owned);
    let packages: Vec<(PackageName, Fingerprint)> = (manifest.get("packages").and_then(Value::as_array))
        .into_iter()
        .flatten()
        .filter_map(|package| Some((field(package, "name")?.into(), field(package, "fingerprint")?.into())))
        .collect();
    let here = rest.door.service.sources_here(&caller, &packages).await?;
    Ok(Json(here.iter().map(ToString::to_string).collect()))
}

/// The same of a compiled release: those that are compiled for the same stemcell, with the same dependencies. A manifest that
/// an upload would refuse is refused there, where it is told why: here nothing of it is known.
pub(super) async fn matches_compiled(
    Login(caller): Login,
    State(rest): State<Rest>,
    body: Yaml<CompiledDocument>,
) -> List<String> {
    rest.door.service.may_match_packages(&caller)?;
    with_packages(&body, "compiled_packages")?;
    let Ok(manifest) = ReleaseManifest::parse(&body.bytes) else {
        return Ok(Json(Vec::new()));
    };
    let keys: Vec<PackageRefKey> = manifest.packages.iter().filter_map(|row| key(&manifest, row)).collect();
    let here = rest.door.service.compiled_here(&caller, &keys).await?;
    // The client leaves out whatever has the fingerprint: where two packages have it, both must be here.
    let count =
        |all: &mut dyn Iterator<Item = &Fingerprint>, of: &Fingerprint| all.filter(|f| *f == of).count();
    let all_here = |print: &&Fingerprint| {
        count(&mut here.iter(), print) == count(&mut keys.iter().map(|key| &key.fingerprint), print)
    };
    let matches: BTreeSet<&Fingerprint> = here.iter().filter(all_here).collect();
    Ok(Json(matches.into_iter().map(ToString::to_string).collect()))
}

fn key(manifest: &ReleaseManifest, row: &release::archive::PackageRow) -> Option<PackageRefKey> {
    let (os, stemcell_version) = row.stemcell.clone()?;
    Some(PackageRefKey {
        name: row.name.clone(),
        fingerprint: row.fingerprint.clone(),
        os,
        stemcell_version,
        dependency_key: dependency_key(&manifest.packages, &row.name),
    })
}

fn with_packages<T>(body: &Yaml<T>, section: &str) -> Result<Map<String, Value>, Failure> {
    let manifest = model::yaml::parse_mapping(&body.text()?);
    let manifest = manifest.map_err(|error| Failure::Service(ServiceError::Told(error)))?;
    if !manifest.get(section).is_some_and(Value::is_array) {
        return Err(told(ErrorCode::InvalidManifest, "Manifest doesn't have a usable packages section"));
    }
    Ok(manifest)
}
