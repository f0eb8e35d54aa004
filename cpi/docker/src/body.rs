//! The daemon's requests for containers, made of ours. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Mount,
    MountType, NetworkingConfig, PortBinding,
};

use crate::network::Place;
use crate::properties::VmProperties;
use crate::settings::BOOT;

/// The base directory that releases are written for; a volume of the VM's own.
pub(crate) const VCAP: &str = "/var/vcap";

/// What is kept of a container's output, so that a job that prints without end does not fill the daemon's disk.
const OUTPUT_MAX: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "2")];

/// What an errand may do: move a mount into the namespaces of a VM whose processes it can look at.
const ERRAND_CAPABILITIES: [&str; 3] = ["SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT"];

/// Returns the request for a VM in its first network; the others come after it.
pub(crate) fn vm(
    image: &str,
    hostname: &str,
    labels: HashMap<String, String>,
    properties: &VmProperties,
    first: Option<&Place>,
) -> ContainerCreateBody {
    let limits = HostConfig {
        nano_cpus: properties.cpu.map(|cpus| (cpus * 1e9) as i64),
        memory: properties.memory_mib.map(bytes),
        // No swap beside it: what is said is what a VM has.
        memory_swap: properties.memory_mib.map(bytes),
        pids_limit: properties.pids.map(|pids| i64::try_from(pids).unwrap_or(i64::MAX)),
        ..Default::default()
    };
    let ports = |port: u16| format!("{port}/tcp");
    let bindings = properties.publish.iter().map(|publish| {
        let on_loopback =
            PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(publish.host_port.to_string()) };
        (ports(publish.port), Some(vec![on_loopback]))
    });
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: Some(hostname.to_owned()),
        entrypoint: Some(vec!["/bin/sh".into(), BOOT.into()]),
        cmd: Some(Vec::new()),
        working_dir: Some("/".into()),
        user: Some("0:0".into()),
        labels: Some(labels),
        volumes: Some(vec![VCAP.to_owned()]),
        exposed_ports: Some(properties.publish.iter().map(|publish| ports(publish.port)).collect()),
        host_config: Some(HostConfig {
            cap_add: Some(properties.capabilities.clone()),
            network_mode: Some(first.map_or_else(|| "none".to_owned(), |place| place.network.clone())),
            port_bindings: Some(bindings.collect()),
            log_config: Some(output()),
            ..limits
        }),
        networking_config: first.map(|place| NetworkingConfig {
            endpoints_config: Some([(place.network.clone(), endpoint(place))].into()),
        }),
        ..Default::default()
    }
}

/// Returns how a VM is in a network.
pub(crate) fn endpoint(place: &Place) -> EndpointSettings {
    let ip = place.ip.to_string();
    let (ipv4_address, ipv6_address) = if place.ip.is_ipv4() { (Some(ip), None) } else { (None, Some(ip)) };
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig { ipv4_address, ipv6_address, ..Default::default() }),
        ..Default::default()
    }
}

/// A program that runs for a moment, in the image of a VM.
pub(crate) struct Errand {
    pub image: String,
    pub command: Vec<String>,
    pub labels: HashMap<String, String>,
    /// Volumes and where it finds them.
    pub volumes: Vec<(String, &'static str)>,
    /// The VM whose processes it sees, if it is about one.
    pub beside: Option<String>,
}

impl Errand {
    /// Returns the request for it.
    pub fn into_body(self) -> ContainerCreateBody {
        let mount = |(volume, target): (String, &str)| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume),
            target: Some(target.to_owned()),
            ..Default::default()
        };
        let enters = self.beside.is_some();
        let capabilities: &[&str] = if enters { &ERRAND_CAPABILITIES } else { &[] };
        ContainerCreateBody {
            image: Some(self.image),
            entrypoint: Some(self.command),
            cmd: Some(Vec::new()),
            user: Some("0:0".into()),
            working_dir: Some("/".into()),
            labels: Some(self.labels),
            host_config: Some(HostConfig {
                cap_add: Some(capabilities.iter().map(|&capability| capability.to_owned()).collect()),
                // Where there is AppArmor, Docker's profile forbids every mount.
                security_opt: enters.then(|| vec!["apparmor=unconfined".to_owned()]),
                pid_mode: self.beside.map(|vm| format!("container:{vm}")),
                network_mode: Some("none".into()),
                mounts: Some(self.volumes.into_iter().map(mount).collect()),
                log_config: Some(output()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn output() -> HostConfigLogConfig {
    let config = OUTPUT_MAX.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    HostConfigLogConfig { typ: Some("json-file".into()), config: Some(config) }
}

fn bytes(mebibytes: u64) -> i64 {
    i64::try_from(mebibytes.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(cloud_properties: &Value, first: Option<&Place>) -> Value {
        let properties = VmProperties::parse(cloud_properties).unwrap();
        json!(vm("image", "a-1", [("k".to_owned(), "v".to_owned())].into(), &properties, first))
    }

    #[test]
    fn limits_are_the_daemon_s_units() {
        let body = made(&json!({ "cpu": 0.5, "memory_mib": 256, "pids": 200, "ephemeral_disk": 1 }), None);
        let host = &body["HostConfig"];
        assert_eq!(host["NanoCpus"], 500_000_000);
        assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(268_435_456), &json!(268_435_456)));
        assert_eq!(host["PidsLimit"], 200);
        assert_eq!(made(&Value::Null, None)["HostConfig"].get("Memory"), None);
    }

    #[test]
    fn a_vm_has_its_address_a_volume_and_no_more_rights_than_it_was_given() {
        let place = Place { network: "net".into(), ip: "10.0.0.7".parse().unwrap() };
        let body = made(&json!({}), Some(&place));
        let endpoint = &body["NetworkingConfig"]["EndpointsConfig"]["net"];
        assert_eq!(endpoint["IPAMConfig"]["IPv4Address"], "10.0.0.7");
        assert!(body["Volumes"].get(VCAP).is_some(), "{body}");
        assert_eq!(body["HostConfig"]["CapAdd"], json!([]));
        assert_eq!(body["HostConfig"].get("Privileged"), None);
        let body = made(&json!({ "capabilities": ["SYS_ADMIN"] }), None);
        assert_eq!(body["HostConfig"]["CapAdd"], json!(["SYS_ADMIN"]));
        assert_eq!(body["HostConfig"]["NetworkMode"], "none");
    }

    #[test]
    fn ports_are_offered_on_loopback_alone() {
        let body = made(&json!({ "publish": [{ "host_port": 8080, "port": 80 }] }), None);
        let wanted = json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] });
        assert_eq!(body["HostConfig"]["PortBindings"], wanted);
    }

    #[test]
    fn an_unreadable_property_is_refused_without_showing_it() {
        let error = VmProperties::parse(&json!({ "pids": "hush" })).unwrap_err().to_string();
        assert!(error.starts_with("cloud_properties of the VM"), "{error}");
    }

    #[test]
    fn only_an_errand_beside_a_vm_has_rights() {
        let errand = |beside: Option<&str>| {
            let volumes = vec![("v".to_owned(), "/volume")];
            let (image, command) = ("image".to_owned(), vec!["/x".to_owned()]);
            let beside = beside.map(str::to_owned);
            json!(Errand { image, command, labels: HashMap::new(), volumes, beside }.into_body())
        };
        let beside = errand(Some("vm-1"));
        assert_eq!(beside["HostConfig"]["PidMode"], "container:vm-1");
        assert_eq!(beside["HostConfig"]["CapAdd"], json!(ERRAND_CAPABILITIES));
        assert_eq!(beside["HostConfig"]["Mounts"][0]["Source"], "v");
        assert_eq!(errand(None)["HostConfig"]["CapAdd"], json!([]));
    }
}
