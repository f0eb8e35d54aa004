//! The apply spec: what an agent is told about its instance.

use std::collections::BTreeMap;

use model::instance::{InstanceSpec, NetworkKind, NetworkSettings};
use model::release::CompiledPackage;
use serde_json::{Map, Value, json};

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
    full["persistent_disk"] = json!(spec.persistent_disk.as_ref().map_or(0, |d| d.size_mib));
    full["dns_domain_name"] = json!("bosh");
    full["rendered_templates_archive"] = json!({ "blobstore_id": archive.0, "sha1": archive.1 });
    full
}

/// Networks by name, as agents see them.
fn networks(spec: &InstanceSpec) -> Value {
    Value::Object(spec.networks.iter().map(|n| (n.name.to_string(), network(n).into())).collect())
}

/// A network as agents see it.
pub fn network(network: &NetworkSettings) -> Map<String, Value> {
    let mut out = Map::new();
    let kind = match network.kind {
        NetworkKind::Manual => "manual",
        NetworkKind::Dynamic => "dynamic",
        NetworkKind::Vip => "vip",
    };
    out.insert("type".into(), json!(kind));
    if let Some(ip) = network.ip {
        out.insert("ip".into(), json!(ip));
    }
    out.insert("prefix".into(), json!(network.prefix));
    if let Some(netmask) = &network.netmask {
        out.insert("netmask".into(), json!(netmask));
    }
    out.insert("cloud_properties".into(), network.cloud_properties.clone());
    if network.kind != NetworkKind::Vip {
        out.insert("default".into(), json!(network.defaults));
    }
    if !network.dns.is_empty() {
        out.insert("dns".into(), json!(network.dns));
    }
    if let Some(gateway) = network.gateway {
        out.insert("gateway".into(), json!(gateway));
    }
    if let Some(card) = &network.nic_group {
        out.insert("nic_group".into(), json!(card));
    }
    out
}

#[cfg(test)]
mod tests {
    use model::instance::AddressKind;

    use super::*;

    #[test]
    fn agents_see_which_networks_share_a_card_and_how_long_their_block_is() {
        let settings = NetworkSettings {
            name: "a".into(),
            kind: NetworkKind::Vip,
            ip: Some("1.1.1.16".parse().unwrap()),
            address: AddressKind::Automatic,
            prefix: "28".into(),
            netmask: None,
            gateway: None,
            dns: Vec::new(),
            defaults: Vec::new(),
            cloud_properties: json!({}),
            nic_group: Some("front".into()),
        };
        let wanted = json!({
            "type": "vip", "ip": "1.1.1.16", "prefix": "28", "cloud_properties": {}, "nic_group": "front",
        });
        assert_eq!(Value::Object(network(&settings)), wanted);
        let alone = network(&NetworkSettings { nic_group: None, ..settings });
        assert_eq!(alone.get("nic_group"), None);
    }
}
