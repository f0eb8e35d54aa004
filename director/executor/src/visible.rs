//! What templates see of their instance.

use model::agent_settings;
use model::fields::canonical;
use model::instance::{InstanceSpec, JobSpec, NetworkKind, NetworkSettings};
use serde_json::{Map, Value, json};

use crate::dns::DOMAIN;

/// What stands for an address that the cloud has yet to choose. Templates take addresses apart, so nothing would not do.
const UNKNOWN: &str = "127.0.0.1";

/// Returns the spec that the templates of `job` see, with its properties and links filled in.
pub fn spec(spec: &InstanceSpec, job: &JobSpec, properties: Value, links: Map<String, Value>) -> Value {
    let networks: Map<String, Value> =
        spec.networks.iter().map(|n| (n.name.to_string(), network(spec, n).into())).collect();
    let own = addressable(spec);
    json!({
        "deployment": spec.deployment,
        "job": { "name": spec.group },
        "index": spec.index,
        "bootstrap": spec.bootstrap,
        "name": spec.group,
        "id": spec.id,
        "az": spec.az,
        "networks": networks,
        "properties_need_filtering": true,
        "dns_domain_name": DOMAIN,
        "persistent_disk": spec.mounted_disk_mib(),
        "address": spec.address.clone().map_or_else(|| json!(own.map(|n| address(spec, n))), Value::String),
        "ip": own.map(ip),
        "properties": { job.name.as_str(): properties },
        "links": { job.name.as_str(): links },
    })
}

fn network(spec: &InstanceSpec, settings: &NetworkSettings) -> Map<String, Value> {
    let mut seen = agent_settings::network(settings);
    if is_unknown(settings) {
        for part in ["ip", "netmask", "gateway"] {
            seen.insert(part.into(), json!(UNKNOWN));
        }
    }
    if let Some(name) = dns_name(spec, settings, &spec.index.to_string()) {
        seen.insert("dns_record_name".into(), json!(name));
    }
    seen
}

/// The network that the instance is reached in: the addressable one, else the gateway's.
fn addressable(spec: &InstanceSpec) -> Option<&NetworkSettings> {
    let is_default = |what: &str| spec.networks.iter().find(|n| n.defaults.iter().any(|d| d == what));
    is_default("addressable").or_else(|| is_default("gateway")).or(spec.networks.first())
}

fn is_unknown(network: &NetworkSettings) -> bool {
    network.kind == NetworkKind::Dynamic && network.ip.is_none()
}

fn ip(network: &NetworkSettings) -> Value {
    if is_unknown(network) { json!(UNKNOWN) } else { json!(network.ip) }
}

/// An address that stays: where the cloud chooses, and may choose again, that is the name.
fn address(spec: &InstanceSpec, network: &NetworkSettings) -> Value {
    match network.kind {
        NetworkKind::Dynamic => json!(dns_name(spec, network, spec.id.as_str())),
        NetworkKind::Manual | NetworkKind::Vip => ip(network),
    }
}

/// Returns `<label>.<group>.<network>.<deployment>.<domain>`; none where a name has no form for DNS, which planning has
/// refused.
fn dns_name(spec: &InstanceSpec, network: &NetworkSettings, label: &str) -> Option<String> {
    let part = |name: &str| canonical(name).ok();
    let (group, network) = (part(spec.group.as_str())?, part(network.name.as_str())?);
    Some(format!("{label}.{group}.{network}.{}.{DOMAIN}", part(spec.deployment.as_str())?))
}
