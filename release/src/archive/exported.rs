//! The `release.MF` of a compiled release, as the director writes it that exports one.

use std::fmt::Write as _;

use model::release::{CompiledPackage, JobInfo, PackageInfo, ReleaseVersion};

use crate::yaml::quoted;

/// A package of an exported release, and what it was compiled to.
pub struct ExportedPackage<'a> {
    /// The package.
    pub package: &'a PackageInfo,
    /// Its compiled form.
    pub compiled: CompiledPackage,
}

/// Returns the text, in the order of BOSH's.
pub fn exported_manifest(
    release: &ReleaseVersion,
    jobs: &[&JobInfo],
    packages: &[ExportedPackage<'_>],
) -> String {
    let mut text = String::from("---\n");
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("a string takes everything");
    };
    let empty = |is_empty: bool| if is_empty { " []" } else { "" };
    line(format_args!("compiled_packages:{}", empty(packages.is_empty())));
    for ExportedPackage { package, compiled } in packages {
        let fingerprint = quoted(package.fingerprint.as_str());
        let stemcell = format!("{}/{}", compiled.key.os, compiled.key.stemcell_version);
        line(format_args!("- name: {}", quoted(package.name.as_str())));
        line(format_args!("  version: {fingerprint}"));
        line(format_args!("  fingerprint: {fingerprint}"));
        line(format_args!("  sha1: {}", quoted(&compiled.digest)));
        line(format_args!("  stemcell: {}", quoted(&stemcell)));
        line(format_args!("  dependencies:{}", empty(package.dependencies.is_empty())));
        package.dependencies.iter().for_each(|d| line(format_args!("  - {}", quoted(d.as_str()))));
    }
    line(format_args!("jobs:{}", empty(jobs.is_empty())));
    for job in jobs {
        let fingerprint = quoted(job.fingerprint.as_str());
        line(format_args!("- name: {}", quoted(job.name.as_str())));
        line(format_args!("  version: {fingerprint}"));
        line(format_args!("  fingerprint: {fingerprint}"));
        line(format_args!("  sha1: {}", quoted(&job.digest)));
    }
    line(format_args!("commit_hash: {}", quoted(&release.commit_hash)));
    line(format_args!("uncommitted_changes: {}", release.uncommitted_changes));
    line(format_args!("name: {}", quoted(release.release.name.as_str())));
    line(format_args!("version: {}", quoted(release.release.version.as_str())));
    text
}

#[cfg(test)]
mod tests {
    use model::instance::ReleaseRef;
    use model::step::PackageRefKey;
    use model::{Fingerprint, PackageName, Timestamp};
    use serde_json::Value;

    use super::*;
    use crate::archive::ReleaseManifest;

    fn package(name: &str, fingerprint: &str, needs: &[&str]) -> PackageInfo {
        PackageInfo {
            name: PackageName::new(name),
            fingerprint: Fingerprint::new(fingerprint),
            digest: String::new(),
            source: None,
            dependencies: needs.iter().map(|name| PackageName::new(*name)).collect(),
        }
    }

    fn compiled(package: &PackageInfo) -> CompiledPackage {
        let key = PackageRefKey {
            name: package.name.clone(),
            fingerprint: package.fingerprint.clone(),
            os: "toronto-os".into(),
            stemcell_version: "1".into(),
            dependency_key: "[]".into(),
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        CompiledPackage { key, build: 1, blob: "b".into(), digest, size_bytes: 1 }
    }

    /// What would be numbers and truth values is written as text, and read as what it was.
    #[test]
    fn what_is_written_is_read_again() {
        let packages = [package("1", "12e4", &[]), package("app", "null", &["1"])];
        let job = JobInfo {
            name: "web".into(),
            fingerprint: "007".into(),
            digest: "0".repeat(40),
            blob: "j".into(),
            packages: vec!["app".into()],
            properties: Vec::new(),
            provides: Vec::new(),
            consumes: Vec::new(),
            templates: Vec::new(),
            logs: Value::Null,
        };
        let release = ReleaseVersion {
            release: ReleaseRef { name: "true".into(), version: "1.0".into() },
            commit_hash: "1234567".into(),
            uncommitted_changes: true,
            jobs: vec![job],
            packages: packages.to_vec(),
            uploaded_at: Timestamp::default(),
        };
        let rows =
            packages.each_ref().map(|package| ExportedPackage { package, compiled: compiled(package) });
        let jobs: Vec<&JobInfo> = release.jobs.iter().collect();
        let read = ReleaseManifest::parse(exported_manifest(&release, &jobs, &rows).as_bytes()).unwrap();
        assert!(read.is_compiled);
        assert_eq!((&read.release, &read.commit_hash), (&release.release, &release.commit_hash));
        assert!(read.uncommitted_changes);
        let [job] = &read.jobs[..] else { panic!("{:?}", read.jobs) };
        assert_eq!((job.name.as_str(), job.fingerprint.as_str()), ("web", "007"));
        for (row, of) in read.packages.iter().zip(&rows) {
            assert_eq!((&row.name, &row.fingerprint), (&of.package.name, &of.package.fingerprint));
            assert_eq!((&row.digest, &row.dependencies), (&of.compiled.digest, &of.package.dependencies));
            assert_eq!(row.stemcell, Some(("toronto-os".into(), "1".into())));
        }
        assert_eq!(read.packages.len(), 2);
    }

    #[test]
    fn a_release_without_packages_is_a_compiled_one_nevertheless() {
        let release = ReleaseVersion {
            release: ReleaseRef { name: "empty".into(), version: "1".into() },
            commit_hash: String::new(),
            uncommitted_changes: false,
            jobs: Vec::new(),
            packages: Vec::new(),
            uploaded_at: Timestamp::default(),
        };
        let text = exported_manifest(&release, &[], &[]);
        let read = ReleaseManifest::parse(text.as_bytes()).unwrap();
        assert!(read.is_compiled && read.packages.is_empty() && read.jobs.is_empty());
    }
}
