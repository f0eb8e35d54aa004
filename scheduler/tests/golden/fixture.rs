//! What was uploaded to the recorded director: two versions of one release, two stemcells.

use model::instance::{ReleaseRef, StemcellRef};
use model::release::{ConsumedLink, JobInfo, PackageInfo, PropertyDefinition, ProvidedLink, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::step::PackageRefKey;
use model::*;
use serde_json::Value;

/// Reads both versions of the golden release.
pub fn releases() -> Vec<ReleaseVersion> {
    vec![release("1"), release("2")]
}

fn read(version: &str, file: &str) -> Value {
    let path = format!("{}/tests/golden/releases/{version}/{file}.MF", env!("CARGO_MANIFEST_DIR"));
    yaml::parse(&std::fs::read_to_string(&path).expect("fixture")).expect("YAML")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn texts<T: From<String>>(value: &Value) -> Vec<T> {
    value.as_array().into_iter().flatten().map(|v| T::from(text(v))).collect()
}

fn release(version: &str) -> ReleaseVersion {
    let manifest = read(version, "release");
    let items = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
    ReleaseVersion {
        release: ReleaseRef { name: "golden".into(), version: version.into() },
        commit_hash: text(&manifest["commit_hash"]),
        uncommitted_changes: false,
        jobs: items("jobs").iter().map(|job| self::job(version, job)).collect(),
        packages: items("packages").iter().map(package).collect(),
        uploaded_at: Timestamp(0),
    }
}

fn job(version: &str, entry: &Value) -> JobInfo {
    let name = text(&entry["name"]);
    let spec = read(version, &name);
    let links = |key: &str| spec[key].as_array().cloned().unwrap_or_default();
    let properties = spec["properties"].as_object().cloned().unwrap_or_default();
    let templates = spec["templates"].as_object().cloned().unwrap_or_default();
    JobInfo {
        name: name.into(),
        fingerprint: text(&entry["fingerprint"]).into(),
        digest: text(&entry["sha1"]),
        blob: text(&entry["sha1"]).trim_start_matches("sha256:").into(),
        packages: texts(&spec["packages"]),
        properties: properties
            .iter()
            .map(|(name, p)| PropertyDefinition { name: name.clone(), default: p.get("default").cloned() })
            .collect(),
        provides: links("provides")
            .iter()
            .map(|l| ProvidedLink {
                name: text(&l["name"]),
                kind: text(&l["type"]),
                properties: texts(&l["properties"]),
            })
            .collect(),
        consumes: links("consumes")
            .iter()
            .map(|l| ConsumedLink {
                name: text(&l["name"]),
                kind: text(&l["type"]),
                optional: l["optional"].as_bool().unwrap_or(false),
            })
            .collect(),
        templates: templates.iter().map(|(from, to)| (from.clone(), text(to))).collect(),
        logs: Value::Null,
    }
}

fn package(entry: &Value) -> PackageInfo {
    PackageInfo {
        name: text(&entry["name"]).into(),
        fingerprint: text(&entry["fingerprint"]).into(),
        digest: text(&entry["sha1"]),
        source: Some(text(&entry["sha1"]).trim_start_matches("sha256:").into()),
        dependencies: texts(&entry["dependencies"]),
    }
}

/// The test stemcell in its two versions.
pub fn stemcells() -> Vec<StemcellRecord> {
    ["1", "1.1"]
        .into_iter()
        .map(|version| StemcellRecord {
            stemcell: StemcellRef {
                name: "ubuntu-stemcell".into(),
                os: "toronto-os".into(),
                version: version.into(),
                cpi: "".into(),
                cid: format!("stemcell-{version}").into(),
                api_version: 1,
                agent: None,
            },
            digest: String::new(),
            cloud_properties: Value::Null,
            formats: vec!["dummy".into()],
            uploaded_at: Timestamp(0),
            retired: false,
        })
        .collect()
}

/// Every package of the releases, on no stemcell in particular. The keys were taken from a recorded upload's shape:
/// direct dependencies by name, theirs nested.
pub fn packages(releases: &[ReleaseVersion]) -> Vec<PackageRefKey> {
    fn key(release: &ReleaseVersion, package: &PackageInfo) -> String {
        let mut dependencies: Vec<&PackageInfo> =
            package.dependencies.iter().map(|d| release.package(d.as_str()).unwrap()).collect();
        dependencies.sort_by(|a, b| a.name.cmp(&b.name));
        let entry = |d: &&PackageInfo| {
            let nested: Value = serde_json::from_str(&key(release, d)).unwrap();
            let mut entry = vec![Value::from(d.name.as_str()), Value::from(d.fingerprint.as_str())];
            entry.extend(nested.as_array().filter(|n| !n.is_empty()).map(|_| nested.clone()));
            Value::from(entry)
        };
        Value::from(dependencies.iter().map(entry).collect::<Vec<_>>()).to_string()
    }
    let of = |release: &ReleaseVersion, package: &PackageInfo| PackageRefKey {
        name: package.name.clone(),
        fingerprint: package.fingerprint.clone(),
        os: String::new(),
        stemcell_version: "".into(),
        dependency_key: key(release, package),
    };
    releases.iter().flat_map(|r| r.packages.iter().map(move |p| of(r, p))).collect()
}
