//! Compiled releases: `export-release`, and which packages of a release need not be uploaded.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use model::instance::ReleaseRef;
use model::stemcell::StemcellVersion;
use model::step::PackageRefKey;
use model::task::{DigestKind, ReleaseExport};
use model::{DeploymentName, ErrorCode, Fingerprint, JobName, PackageName, ReleaseName, Version};
use release::archive::ReleaseManifest;
use release::archive::dependencies::dependency_key;
use serde::Deserialize;
use serde_json::{Map, Value};
use service::ServiceError;

use super::answer::{Answer, Failure, JsonBody, see_task, told};
use super::deployments::text;
use super::login::Login;
use super::{Rest, repeats};

#[derive(Deserialize)]
struct ExportBody {
    deployment_name: DeploymentName,
    release_name: ReleaseName,
    release_version: Version,
    stemcell_os: String,
    stemcell_version: Version,
    #[serde(default)]
    sha2: bool,
    #[serde(default)]
    jobs: Vec<ExportJob>,
}

#[derive(Deserialize)]
struct ExportJob {
    name: JobName,
}

/// `export-release`. The path is that of a release, of which nothing else can be posted.
pub(super) async fn export(
    Login(caller): Login,
    State(rest): State<Rest>,
    Path(name): Path<String>,
    parts: Parts,
    body: Bytes,
) -> Answer {
    rest.door.service.may_export(&caller)?;
    if name != "export" {
        let text = format!("Endpoint '{}' not found.", parts.uri.path());
        return Err(Failure::Text(StatusCode::NOT_FOUND, text));
    }
    let JsonBody(wish) = JsonBody::<ExportBody>::of(&body)?;
    let export = ReleaseExport {
        release: ReleaseRef { name: wish.release_name, version: wish.release_version },
        stemcell: StemcellVersion { os: wish.stemcell_os, version: wish.stemcell_version },
        jobs: wish.jobs.into_iter().map(|job| job.name).collect(),
        digest: if wish.sha2 { DigestKind::Sha256 } else { DigestKind::Sha1 },
    };
    let service = &rest.door.service;
    let key = repeats::key(service, &caller, &parts, &body).await?;
    Ok(see_task(service.export_release(&caller, Some(key), &wish.deployment_name, export).await?))
}

/// Which packages of a release need not be uploaded, because their source is here.
pub(super) async fn matches(Login(caller): Login, State(rest): State<Rest>, body: Bytes) -> Answer {
    rest.door.service.may_match_packages(&caller)?;
    let manifest = with_packages(&body, "packages")?;
    let field = |package: &Value, name| package.get(name).and_then(Value::as_str).map(str::to_owned);
    let packages: Vec<(PackageName, Fingerprint)> = (manifest.get("packages").and_then(Value::as_array))
        .into_iter()
        .flatten()
        .filter_map(|package| Some((field(package, "name")?.into(), field(package, "fingerprint")?.into())))
        .collect();
    Ok(Json(rest.door.service.sources_here(&caller, &packages).await?).into_response())
}

/// The same of a compiled release: those that are compiled for the same stemcell, with the same dependencies. A manifest that
/// an upload would refuse is refused there, where it is told why: here nothing of it is known.
pub(super) async fn matches_compiled(Login(caller): Login, State(rest): State<Rest>, body: Bytes) -> Answer {
    rest.door.service.may_match_packages(&caller)?;
    with_packages(&body, "compiled_packages")?;
    let Ok(manifest) = ReleaseManifest::parse(&body) else {
        return Ok(Json(Vec::<Fingerprint>::new()).into_response());
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
    Ok(Json(matches).into_response())
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

fn with_packages(body: &Bytes, section: &str) -> Result<Map<String, Value>, Failure> {
    let manifest = model::yaml::parse_mapping(&text(body)?);
    let manifest = manifest.map_err(|error| Failure::Service(ServiceError::Told(error)))?;
    if !manifest.get(section).is_some_and(Value::is_array) {
        return Err(told(ErrorCode::InvalidManifest, "Manifest doesn't have a usable packages section"));
    }
    Ok(manifest)
}
