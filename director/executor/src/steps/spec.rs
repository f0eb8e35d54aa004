//! The apply spec: what an agent is told about its instance.

use std::collections::BTreeMap;

use model::agent_settings;
use model::instance::InstanceSpec;
use model::release::CompiledPackage;
use serde_json::{Map, Value, json};

use crate::dns::DOMAIN;

/// What identifies an instance, without anything to install: the spec for a new VM.
pub fn bind_spec(spec: &InstanceSpec) -> Value {
    json!({
        "deployment": spec.deployment,
        "job": { "name": spec.group },
        "index": spec.index,
        "id": spec.id,
        "name": spec.group,
        "az": spec.az,
        "networks": networks(spec),
    })
}

/// Everything to install. `archive` is the rendered archive's id and digest.
pub fn full_spec(
    spec: &InstanceSpec,
    packages: &[CompiledPackage],
    configuration_hash: &str,
    template_hashes: &BTreeMap<model::JobName, String>,
    archive: (&str, &str),
) -> Value {
    let mut full = bind_spec(spec);
    let jobs: Vec<Value> = spec
        .jobs
        .iter()
        .map(
            |j| json!({ "name": j.name, "version": j.fingerprint, "sha1": j.digest, "blobstore_id": j.blob }),
        )
        .collect();
    full["job"] = json!({
        "name": spec.group,
        "template": spec.jobs.first().map(|j| j.name.as_str()).unwrap_or_default(),
        "version": spec.jobs.first().map(|j| j.fingerprint.as_str()).unwrap_or_default(),
        "templates": jobs,
    });
    let packages: Map<String, Value> = packages
        .iter()
        .map(|p| {
            let entry = json!({
                "name": p.key.name,
                "version": format!("{}.{}", p.key.fingerprint, p.build),
                "sha1": p.digest,
                "blobstore_id": p.blob,
            });
            (p.key.name.to_string(), entry)
        })
        .collect();
    full["packages"] = Value::Object(packages);
    full["configuration_hash"] = json!(configuration_hash);
    full["template_hashes"] = json!(template_hashes);
    if let Some(size_mib) = spec.mounted_disk_mib() {
        full["persistent_disk"] = json!(size_mib);
    }
    full["dns_domain_name"] = json!(DOMAIN);
    full["rendered_templates_archive"] = json!({ "blobstore_id": archive.0, "sha1": archive.1 });
    full
}

/// Networks by name, as agents see them.
fn networks(spec: &InstanceSpec) -> Value {
    Value::Object(
        spec.networks.iter().map(|n| (n.name.to_string(), agent_settings::network(n).into())).collect(),
    )
}
