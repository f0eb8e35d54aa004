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
        "job": job(spec),
        "index": spec.index,
        "id": spec.id,
        "networks": networks(spec),
    })
}

/// The instance's jobs; of one that has none, as those that compile, only the name.
fn job(spec: &InstanceSpec) -> Value {
    let Some(first) = spec.jobs.first() else { return json!({ "name": spec.group }) };
    let template = |job: &model::instance::JobSpec| {
        json!({ "name": job.name, "version": job.fingerprint, "sha1": job.digest, "blobstore_id": job.blob,
            "logs": [] })
    };
    json!({
        "name": spec.group,
        "template": first.name,
        "version": first.fingerprint,
        "templates": spec.jobs.iter().map(template).collect::<Vec<_>>(),
    })
}

/// Everything to install. `archive` is the rendered archive's id and digest.
pub fn full_spec(
    spec: &InstanceSpec,
    packages: &[CompiledPackage],
    configuration_hash: &str,
    template_hashes: &BTreeMap<model::JobName, String>,
    archive: (String, &str),
) -> Value {
    let mut full = bind_spec(spec);
    full["name"] = json!(spec.group);
    full["az"] = json!(spec.az);
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
