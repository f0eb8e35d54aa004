//! Releases, stemcells and what is compiled of the two.

use model::instance::*;
use model::release::*;
use model::stemcell::StemcellRecord;
use model::step::PackageRefKey;
use model::*;
use serde_json::json;

use super::START;

pub fn release(name: &str, version: &str) -> ReleaseVersion {
    ReleaseVersion {
        release: ReleaseRef { name: name.into(), version: version.into() },
        commit_hash: "abc".into(),
        uncommitted_changes: false,
        jobs: Vec::new(),
        packages: Vec::new(),
        uploaded_at: Timestamp(START),
    }
}

pub fn stemcell(version: &str) -> StemcellRef {
    StemcellRef {
        name: "ubuntu".into(),
        os: "ubuntu".into(),
        version: version.into(),
        cpi: "".into(),
        cid: "sc-1".into(),
        api_version: 3,
        agent: None,
    }
}

pub fn stemcell_record(version: &str, digest: &str) -> StemcellRecord {
    StemcellRecord {
        stemcell: stemcell(version),
        digest: digest.into(),
        cloud_properties: json!({ "disk": 3 }),
        formats: vec!["raw".into()],
        uploaded_at: Timestamp(START),
        retired: false,
    }
}

pub fn package_key(name: &str, stemcell: &str, dependencies: &str) -> PackageRefKey {
    PackageRefKey {
        name: name.into(),
        fingerprint: "fp".into(),
        os: "ubuntu".into(),
        stemcell_version: stemcell.into(),
        dependency_key: dependencies.into(),
    }
}

pub fn compiled(key: PackageRefKey) -> CompiledPackage {
    CompiledPackage { key, build: 0, blob: "b1".into(), digest: "sha1".into(), size_bytes: 10 }
}
