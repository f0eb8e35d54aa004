//! Binding: jobs to what their release says about them, packages to their dependency keys, properties to those that
//! a job declares.

use std::collections::BTreeMap;

use model::instance::{PackageRef, ReleaseRef};
use model::manifest::{GroupJob, InstanceGroup, Manifest, Stock};
use model::release::{JobInfo, PackageInfo, ProvidedLink, ReleaseVersion};
use model::task::TaskError;
use model::*;
use serde_json::{Map, Value, json};

/// A job of a group together with what its release says.
pub(crate) struct BoundJob<'a> {
    pub(crate) manifest: &'a GroupJob,
    pub(crate) info: &'a JobInfo,
    pub(crate) release: &'a ReleaseVersion,
    /// The declared properties, defaults filled in, nested mappings sorted.
    pub(crate) properties: Value,
}

impl BoundJob<'_> {
    /// Returns the links that the job offers, by its release or by the manifest.
    pub(crate) fn provided(&self) -> impl Iterator<Item = &ProvidedLink> {
        self.info.provides.iter().chain(&self.manifest.custom_providers)
    }
}

/// A group together with what its jobs are.
pub(crate) struct BoundGroup<'a> {
    pub(crate) group: &'a InstanceGroup,
    pub(crate) jobs: Vec<BoundJob<'a>>,
    /// Packages that its jobs list directly, sorted by name.
    pub(crate) packages: Vec<PackageRef>,
}

/// Binds every group.
pub(crate) fn bind<'a>(manifest: &'a Manifest, stock: Stock<'a>) -> Result<Vec<BoundGroup<'a>>, TaskError> {
    let mut keys = DependencyKeys::default();
    manifest.groups.iter().map(|group| bind_group(group, manifest, stock, &mut keys)).collect()
}

fn bind_group<'a>(
    group: &'a InstanceGroup,
    manifest: &Manifest,
    stock: Stock<'a>,
    keys: &mut DependencyKeys,
) -> Result<BoundGroup<'a>, TaskError> {
    let mut jobs = Vec::with_capacity(group.jobs.len());
    for job in &group.jobs {
        let release = stock.release(&job.release)?;
        check_exported_from(group, &job.release, manifest)?;
        let info = release.job(job.name.as_str()).ok_or_else(|| {
            TaskError::new(
                ErrorCode::InstanceGroupUnknownJob,
                format!("Job '{}' not found in release '{}'", job.name, job.release.name),
            )
        })?;
        let properties = declared(info, &job.properties, &group.name)?;
        jobs.push(BoundJob { manifest: job, info, release, properties });
    }
    let packages = bind_packages(group, &jobs, keys)?;
    Ok(BoundGroup { group, jobs, packages })
}

/// Refuses a compiled release that was not exported from the group's line of stemcells (80015).
fn check_exported_from(
    group: &InstanceGroup,
    release: &ReleaseRef,
    manifest: &Manifest,
) -> Result<(), TaskError> {
    let Some(entry) = manifest.releases.iter().find(|r| r.release.name == release.name) else {
        return Ok(());
    };
    let Some(stemcell) = manifest.stemcells.iter().find(|s| s.alias == group.stemcell) else { return Ok(()) };
    let fits = entry.exported_from.is_empty()
        || entry.exported_from.iter().any(|(os, version)| {
            stemcell.os.as_ref().is_none_or(|wanted| wanted == os)
                && version::line(version) == version::line(stemcell.version.as_str())
        });
    if fits {
        return Ok(());
    }
    Err(TaskError::new(
        ErrorCode::JobWithExportedFromMismatch,
        format!(
            "Invalid release detected in instance group '{}' using stemcell '{}/{}': release '{}/{}' was exported from {}",
            group.name,
            stemcell.alias,
            stemcell.version,
            release.name,
            release.version,
            entry.exported_from.iter().map(|(os, v)| format!("{os}/{v}")).collect::<Vec<_>>().join(", ")
        ),
    ))
}

fn bind_packages(
    group: &InstanceGroup,
    jobs: &[BoundJob<'_>],
    keys: &mut DependencyKeys,
) -> Result<Vec<PackageRef>, TaskError> {
    let mut by_name: BTreeMap<&PackageName, (&BoundJob<'_>, PackageRef)> = BTreeMap::new();
    for job in jobs {
        for name in &job.info.packages {
            let package = job.release.package(name.as_str()).ok_or_else(|| {
                TaskError::new(
                    ErrorCode::JobMissingPackage,
                    format!("Job '{}' references missing package '{name}' in release '{}'", job.info.name, {
                        &job.release.release.name
                    }),
                )
            })?;
            let reference = package.reference(keys.of(job.release, package));
            match by_name.get(name) {
                Some((_, other)) if *other == reference => {}
                Some((first, other)) => return Err(collision(group, name, first, other, job, &reference)),
                None => {
                    by_name.insert(name, (job, reference));
                }
            }
        }
    }
    Ok(by_name.into_values().map(|(_, reference)| reference).collect())
}

fn collision(
    group: &InstanceGroup,
    package: &PackageName,
    first: &BoundJob<'_>,
    a: &PackageRef,
    second: &BoundJob<'_>,
    b: &PackageRef,
) -> TaskError {
    TaskError::new(
        ErrorCode::JobPackageCollision,
        format!(
            "Package name collision detected in instance group '{}': job '{}/{}' depends on package '{}/{package}' (fingerprint {}), job '{}/{}' depends on '{}/{package}' (fingerprint {}). BOSH cannot currently collocate two packages with identical names and different fingerprints or dependencies.",
            group.name,
            first.release.release.name,
            first.info.name,
            first.release.release.name,
            a.fingerprint,
            second.release.release.name,
            second.info.name,
            second.release.release.name,
            b.fingerprint,
        ),
    )
}

/// Dependency keys by release and package: a diamond of dependencies is walked once.
#[derive(Default)]
pub(crate) struct DependencyKeys(BTreeMap<(ReleaseRef, PackageName), String>);

impl DependencyKeys {
    /// Returns the text under which a package's compiled form is found: `[["dep","fp",[…]]]`, sorted by name.
    pub(crate) fn of(&mut self, release: &ReleaseVersion, package: &PackageInfo) -> String {
        let cell = (release.release.clone(), package.name.clone());
        if let Some(key) = self.0.get(&cell) {
            return key.clone();
        }
        let mut dependencies: Vec<&PackageInfo> =
            package.dependencies.iter().filter_map(|d| release.package(d.as_str())).collect();
        dependencies.sort_by(|a, b| a.name.cmp(&b.name));
        let entries: Vec<String> = dependencies
            .into_iter()
            .map(|d| {
                let nested = self.of(release, d);
                let pair = json!([d.name, d.fingerprint]).to_string();
                if nested == "[]" { pair } else { format!("{},{nested}]", &pair[..pair.len() - 1]) }
            })
            .collect();
        let key = format!("[{}]", entries.join(","));
        self.0.insert(cell, key.clone());
        key
    }
}

/// Reduces given properties to the declared ones, defaults filled in; what nobody declared never reaches a template.
fn declared(info: &JobInfo, given: &Value, group: &GroupName) -> Result<Value, TaskError> {
    let mut out = Map::new();
    for property in &info.properties {
        let value = dig(given, &property.name).map_err(|()| {
            TaskError::new(
                ErrorCode::JobInvalidPropertyMapping,
                format!(
                    "Property '{}' expects a hash, but received another type (job '{}', instance group '{group}')",
                    property.name, info.name
                ),
            )
        })?;
        let value = value.filter(|v| !v.is_null()).or(property.default.as_ref()).cloned();
        plant(&mut out, &property.name, sorted(value.unwrap_or(Value::Null)));
    }
    Ok(Value::Object(out))
}

/// Follows a dotted path; an error means that it crosses something that is no mapping.
pub(crate) fn dig<'v>(value: &'v Value, path: &str) -> Result<Option<&'v Value>, ()> {
    let mut at = value;
    for key in path.split('.') {
        match at {
            Value::Object(map) => match map.get(key) {
                Some(next) => at = next,
                None => return Ok(None),
            },
            Value::Null => return Ok(None),
            _ => return Err(()),
        }
    }
    Ok(Some(at))
}

/// Puts a value at a dotted path, making mappings on the way.
pub(crate) fn plant(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let child = map.entry(head).or_insert_with(|| Value::Object(Map::new()));
            // A shorter declared path may have put a scalar here; the longer one wins, as it does in BOSH.
            if !child.is_object() {
                *child = Value::Object(Map::new());
            }
            if let Value::Object(child) = child {
                plant(child, rest, value);
            }
        }
    }
}

/// Sorts the keys of nested mappings; mappings inside lists stay as they are.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, fingerprint: &str, dependencies: &[&str]) -> PackageInfo {
        PackageInfo {
            name: name.into(),
            fingerprint: fingerprint.into(),
            digest: String::new(),
            source: None,
            dependencies: dependencies.iter().map(|d| PackageName::from(*d)).collect(),
        }
    }

    #[test]
    fn dependency_keys_are_nested_and_sorted() {
        let release = ReleaseVersion {
            release: ReleaseRef { name: "r".into(), version: "1".into() },
            commit_hash: String::new(),
            uncommitted_changes: false,
            jobs: Vec::new(),
            packages: vec![
                package("p", "fpp", &["b", "a"]),
                package("a", "fpa", &["c"]),
                package("b", "fpb", &[]),
                package("c", "fpc", &[]),
            ],
            uploaded_at: Timestamp(0),
        };
        let key = DependencyKeys::default().of(&release, &release.packages[0]);
        assert_eq!(key, r#"[["a","fpa",[["c","fpc"]]],["b","fpb"]]"#);
    }
}
