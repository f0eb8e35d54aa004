//! The smallest release, stemcell, cloud config and manifests with which everything happens that a deploy does.

use model::instance::{ReleaseRef, StemcellRef};
use model::release::{JobInfo, PackageInfo, PropertyDefinition, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::{BlobDigest, CpiName, StemcellCid, Timestamp};
use serde_json::{Value, json};

/// The archive of the only job: its templates are never rendered by Ruby.
pub fn job_archive() -> Vec<u8> {
    let manifest = json!({"name": "server", "templates": {"config.erb": "config/config"}, "packages": [],
        "properties": {"port": {"default": 1}}});
    let mut archive = release::archive::pack::TgzWriter::new(Vec::new());
    for (name, content) in
        [("job.MF", manifest.to_string()), ("monit", String::new()), ("templates/config.erb", String::new())]
    {
        archive.file(name, 0o644, content.as_bytes()).expect("memory takes everything");
    }
    archive.finish().expect("memory takes everything")
}

/// A release of one job and, so that something is compiled, one package.
pub fn release(job: &BlobDigest, package: &BlobDigest) -> ReleaseVersion {
    ReleaseVersion {
        release: ReleaseRef { name: "tiny".into(), version: "1".into() },
        commit_hash: "0".into(),
        uncommitted_changes: false,
        jobs: vec![JobInfo {
            name: "server".into(),
            fingerprint: "fp-server".into(),
            digest: format!("sha256:{job}"),
            blob: job.clone(),
            packages: vec!["app".into()],
            properties: vec![PropertyDefinition { name: "port".into(), default: Some(json!(1)) }],
            provides: Vec::new(),
            consumes: Vec::new(),
            templates: vec![("config.erb".into(), "config/config".into())],
            logs: Value::Null,
        }],
        packages: vec![PackageInfo {
            name: "app".into(),
            fingerprint: "fp-app".into(),
            dependencies: Vec::new(),
            digest: format!("sha256:{package}"),
            source: Some(package.clone()),
        }],
        uploaded_at: Timestamp::default(),
    }
}

/// A stemcell in the only cloud.
pub fn stemcell() -> StemcellRecord {
    StemcellRecord {
        stemcell: StemcellRef {
            name: "small".into(),
            os: "toronto-os".into(),
            version: "1".into(),
            cpi: CpiName::default(),
            cid: StemcellCid::new("stemcell-1"),
            api_version: 3,
            agent: None,
        },
        digest: "sha256:0".into(),
        cloud_properties: json!({}),
        formats: Vec::new(),
        uploaded_at: Timestamp::default(),
        retired: false,
    }
}

/// One zone, one network.
pub fn cloud_config() -> String {
    json!({
        "azs": [{"name": "z1"}],
        "vm_types": [{"name": "small"}],
        "networks": [{"name": "a", "subnets": [{"range": "10.0.0.0/24", "gateway": "10.0.0.1", "az": "z1"}]}],
        "compilation": {"workers": 1, "network": "a", "az": "z1", "vm_type": "small", "reuse_compilation_vms": true},
    })
    .to_string()
}

/// What is asked of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How many instances.
    pub instances: u64,
    /// A property; another value changes every instance.
    pub port: u64,
    /// The size of their disks; 0 is none.
    pub disk_mib: u64,
}

/// The deployment whose VMs are swapped for such as were made ahead, each time that the property changes.
const SWAPPED: &str = "green";

/// Returns the manifest of a wish.
pub fn manifest(deployment: &str, wish: Wish) -> String {
    let mut web = json!({
        "name": "web", "instances": wish.instances, "azs": ["z1"], "vm_type": "small", "stemcell": "default",
        "networks": [{"name": "a"}],
        "jobs": [{"name": "server", "release": "tiny", "properties": {"port": wish.port}}],
    });
    if wish.disk_mib > 0 {
        web["persistent_disk"] = json!(wish.disk_mib);
    }
    if deployment == SWAPPED {
        web["env"] = json!({"port": wish.port});
        web["update"] = json!({"vm_strategy": "create-swap-delete"});
    }
    json!({
        "name": deployment, "releases": [{"name": "tiny", "version": "1"}],
        "stemcells": [{"alias": "default", "os": "toronto-os", "version": "1"}],
        "update": {"canaries": 1, "max_in_flight": 2, "canary_watch_time": 1, "update_watch_time": 1},
        "instance_groups": [web],
    })
    .to_string()
}
