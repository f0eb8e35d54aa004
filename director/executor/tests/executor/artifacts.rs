//! A tiny release, a stemcell, and the documents that deploy them.

use model::instance::InstanceState;
use model::task::{DeployOptions, InstanceFilter, StateChange, TaskKind};
use release::archive::pack::TgzWriter;
use release::digest::{Algorithm, Hashed};
use serde_json::{Value, json};

/// Packs files.
pub fn tgz(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = TgzWriter::new(Vec::new());
    files.iter().for_each(|(name, content)| archive.file(name, 0o644, content.as_bytes()).unwrap());
    archive.finish().unwrap()
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", Hashed::of(content).hex(Algorithm::Sha256))
}

/// A release with a job that serves, a job that checks, and two packages, one needing the other.
pub fn release(name: &str) -> Vec<u8> {
    let server = json!({
        "name": "server", "templates": {"config.erb": "config/config"}, "packages": ["app"],
        "properties": {"port": {"default": 8080}, "password": {"default": ""}},
    });
    let check = json!({
        "name": "check", "templates": {"run.erb": "bin/run"}, "packages": [],
        "properties": {"depth": {"default": 1}},
    });
    let config = "port=<%= p('port') %> password=<%= p('password') %> at <%= spec.ip %>\n";
    let jobs = [
        ("server", tgz(&[("job.MF", &server.to_string()), ("monit", ""), ("templates/config.erb", config)])),
        ("check", tgz(&[("job.MF", &check.to_string()), ("monit", ""), ("templates/run.erb", "exit 0\n")])),
    ];
    let packages = [("lib", vec![]), ("app", vec!["lib"])]
        .map(|(name, needs)| (name, needs, tgz(&[("packaging", &format!("make {name}\n"))])));
    release_of(name, &jobs, &packages)
}

/// A release of these jobs, and of these packages with what they need.
pub fn release_of(name: &str, jobs: &[(&str, Vec<u8>)], packages: &[(&str, Vec<&str>, Vec<u8>)]) -> Vec<u8> {
    let job_rows: Vec<Value> = jobs
        .iter()
        .map(|(name, archive)| json!({"name": name, "version": format!("fp-{name}"), "fingerprint": format!("fp-{name}"), "sha1": sha256(archive)}))
        .collect();
    let package_rows: Vec<Value> = packages
        .iter()
        .map(|(name, needs, archive)| {
            json!({"name": name, "version": format!("fp-{name}"), "fingerprint": format!("fp-{name}"), "sha1": sha256(archive), "dependencies": needs})
        })
        .collect();
    let manifest = json!({"name": name, "version": "1", "commit_hash": "0", "uncommitted_changes": false,
        "jobs": job_rows, "packages": package_rows});
    let mut archive = TgzWriter::new(Vec::new());
    archive.file("release.MF", 0o644, manifest.to_string().as_bytes()).unwrap();
    for (name, content) in jobs {
        archive.file(&format!("jobs/{name}.tgz"), 0o644, content).unwrap();
    }
    for (name, _, content) in packages {
        archive.file(&format!("packages/{name}.tgz"), 0o644, content).unwrap();
    }
    archive.finish().unwrap()
}

/// A stemcell with an image of a few bytes.
pub fn stemcell() -> Vec<u8> {
    stemcell_with("1", "not a disk")
}

/// As [`stemcell`], with a version and an image.
pub fn stemcell_with(version: &str, image: &str) -> Vec<u8> {
    stemcell_for("toronto-os", version, image)
}

/// As [`stemcell_with`], with an operating system.
pub fn stemcell_for(os: &str, version: &str, image: &str) -> Vec<u8> {
    pack_stemcell(stemcell_manifest(os, version, image), image)
}

/// As [`stemcell`], with a version, and with `agent` in its manifest.
pub fn stemcell_with_agent(version: &str, agent: &str) -> Vec<u8> {
    let image = "a disk with an agent";
    let mut manifest = stemcell_manifest("toronto-os", version, image);
    manifest["agent"] = json!(agent);
    pack_stemcell(manifest, image)
}

fn stemcell_manifest(os: &str, version: &str, image: &str) -> Value {
    json!({"name": "small-stemcell", "version": version, "operating_system": os,
        "sha1": sha256(image.as_bytes()), "cloud_properties": {}, "api_version": 3})
}

fn pack_stemcell(manifest: Value, image: &str) -> Vec<u8> {
    tgz(&[("stemcell.MF", &manifest.to_string()), ("image", image)])
}

/// One zone, one network, two compilation workers.
pub fn cloud_config() -> String {
    json!({
        "azs": [{"name": "z1"}],
        "vm_types": [{"name": "small"}, {"name": "large", "cloud_properties": {"cpu": 4}}],
        "disk_types": [{"name": "small", "disk_size": 10}, {"name": "large", "disk_size": 20}],
        "networks": [{"name": "a", "subnets": [{"range": "10.0.0.0/24", "gateway": "10.0.0.1", "az": "z1"}]}],
        "compilation": {"workers": 2, "network": "a", "az": "z1", "vm_type": "small", "reuse_compilation_vms": true},
    })
    .to_string()
}

/// What of the manifest a story changes.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub instances: u32,
    pub port: Value,
    pub disk_mib: u32,
    /// Names and types of disks, instead of the one that is mounted.
    pub named_disks: &'static [(&'static str, &'static str)],
    pub smoke_disk_mib: u32,
    pub smoke_properties: Value,
    pub vm_type: &'static str,
    pub password: &'static str,
    pub variables: Value,
    pub tags: Value,
    pub watch: Value,
    pub vm_strategy: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            name: "p",
            instances: 2,
            port: json!(8080),
            disk_mib: 1024,
            named_disks: &[],
            smoke_disk_mib: 0,
            smoke_properties: json!({}),
            vm_type: "small",
            password: "",
            variables: json!([]),
            tags: json!({}),
            watch: json!(1),
            vm_strategy: "delete-create",
        }
    }
}

impl Shape {
    /// One whose VMs are swapped for such as were made ahead.
    pub fn swapped() -> Self {
        Self { vm_strategy: "create-swap-delete", ..Self::default() }
    }

    /// One instance that has these disks.
    pub fn with_disks(named_disks: &'static [(&'static str, &'static str)]) -> Self {
        Self { instances: 1, disk_mib: 0, named_disks, ..Self::default() }
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> String {
        let group = |name: &str, instances: u32, job: Value| {
            json!({
                "name": name, "instances": instances, "azs": ["z1"], "vm_type": self.vm_type, "stemcell": "default",
                "networks": [{"name": "a"}], "jobs": [job],
            })
        };
        let properties = json!({"port": self.port, "password": self.password});
        let mut web = group(
            "web",
            self.instances,
            json!({"name": "server", "release": "tiny", "properties": properties}),
        );
        if self.disk_mib > 0 {
            web["persistent_disk"] = json!(self.disk_mib);
        }
        if !self.named_disks.is_empty() {
            let disk = |(name, of): &(&str, &str)| json!({"name": name, "type": of});
            web["persistent_disks"] = self.named_disks.iter().map(disk).collect();
        }
        let properties = self.smoke_properties.clone();
        let mut smoke =
            group("smoke", 1, json!({"name": "check", "release": "tiny", "properties": properties}));
        smoke["lifecycle"] = json!("errand");
        if self.smoke_disk_mib > 0 {
            smoke["persistent_disk"] = json!(self.smoke_disk_mib);
        }
        json!({
            "name": self.name, "releases": [{"name": "tiny", "version": "1"}],
            "stemcells": [{"alias": "default", "os": "toronto-os", "version": "1"}],
            "update": {
                "canaries": 1, "max_in_flight": 1, "canary_watch_time": self.watch, "update_watch_time": self.watch,
                "vm_strategy": self.vm_strategy,
            },
            "variables": self.variables, "tags": self.tags,
            "instance_groups": [web, smoke],
        })
        .to_string()
    }

    /// Returns the deploy of it.
    pub fn deploy(&self) -> TaskKind {
        self.deploy_with(DeployOptions::default())
    }

    /// Returns the deploy of it with options.
    pub fn deploy_with(&self, options: DeployOptions) -> TaskKind {
        TaskKind::Deploy { manifest_text: self.manifest(), options }
    }
}

/// `start`, `stop` … of the first web instance.
pub fn change(change: StateChange) -> TaskKind {
    let filter = InstanceFilter { group: Some("web".into()), id_or_index: Some("0".into()) };
    TaskKind::ChangeState {
        change,
        filter,
        skip_drain: false,
        max_in_flight: None,
        canaries: None,
        dry_run: false,
        created_before: None,
    }
}

/// `start`, `stop`, `stop --hard` of the first web instance.
pub fn become_state(state: InstanceState) -> TaskKind {
    change(StateChange::Become(state))
}

/// The errand of group `smoke`.
pub fn errand() -> TaskKind {
    run_errand(false, false)
}

/// The same, whose VM stays.
pub fn errand_kept_alive() -> TaskKind {
    run_errand(true, false)
}

/// The same, if it has not run well on what there is.
pub fn errand_when_changed() -> TaskKind {
    run_errand(false, true)
}

fn run_errand(keep_alive: bool, when_changed: bool) -> TaskKind {
    TaskKind::RunErrand { errand: "smoke".into(), keep_alive, instances: Vec::new(), when_changed }
}
