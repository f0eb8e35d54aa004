//! The settings file of our agent: what a CPI writes into a new VM and `dagent --settings FILE` reads.
//!
//! Shared so that both sides agree on every key. Only gains optional fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::ids::{AgentId, DiskCid};
use crate::instance::{NetworkKind, NetworkSettings};

/// The DNS name that every director's certificate carries, whatever address an agent dials.
///
/// Addresses can't be checked: between a VM and a replica there may be a relay. Authorities must never put this name
/// into a certificate that is not a director's.
pub const DIRECTOR_TLS_NAME: &str = "director.directorate.internal";

/// The exit code of an agent that was told to switch its machine off: whoever keeps it running ends the machine then, instead of
/// starting it again.
pub const SWITCHED_OFF: u8 = 100;

/// What a new agent must know to find its directors and to prepare its VM. Holds secrets: its `Debug` shows none.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentSettings {
    /// Who the agent is.
    pub agent_id: AgentId,
    /// The VM as its cloud names it.
    #[serde(default)]
    pub vm: AgentVm,
    /// `host:port` of every replica's agent port.
    pub endpoints: Vec<String>,
    /// PEM of the authorities that the replicas' certificates come from.
    pub authorities_pem: String,
    /// Single-use token bound to the agent id.
    pub token: String,
    /// Networks by name, as BOSH's settings have them (`type`, `ip`, `netmask`, `gateway`, `dns`, `default` …).
    #[serde(default)]
    pub networks: BTreeMap<String, Value>,
    /// Disks known when the VM was made.
    #[serde(default)]
    pub disks: AgentDisks,
    /// The VM's env, resolved.
    #[serde(default)]
    pub env: Value,
    /// What the agent may do to the machine it finds itself on.
    #[serde(default)]
    pub platform: AgentPlatform,
    /// Whether `/var/vcap` in rendered templates becomes the agent's base directory: only where the VM has no root of
    /// its own.
    #[serde(default)]
    pub path_rewrite: bool,
    /// Where the agent answers names, for programs on the VM; none where they ask somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<std::net::SocketAddr>,
    /// Whether nobody but the agent would start the machine's SSH server: it has no init of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_ssh_server: bool,
    /// Who opens connections to directors for the agent (`CONNECT` of HTTP): where the VM has no way of its own to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director_proxy: Option<std::net::SocketAddr>,
}

/// The VM that an agent lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentVm {
    /// Its name, shown by `get_state`.
    pub name: String,
}

/// Disks of a new VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentDisks {
    /// Path of the system disk, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Path of the ephemeral disk, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<String>,
    /// Hints of persistent disks: text or a map, as `add_persistent_disk` gets them. `{"path": P, "kind":
    /// "directory"}` is a directory that stands for a disk.
    #[serde(default)]
    pub persistent: BTreeMap<DiskCid, Value>,
}

/// What the agent may do to the machine it finds itself on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPlatform {
    /// A root of its own with a `vcap` user: it mounts, changes owners and users.
    #[default]
    Linux,
    /// A plain process beside others: disks are directories behind a symlink, nobody's owner or user changes.
    Process,
    /// As [`Self::Linux`], but without the right to mount: disks are directories behind a symlink.
    Container,
}

impl std::fmt::Debug for AgentSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentSettings")
            .field("agent_id", &self.agent_id)
            .field("vm", &self.vm)
            .field("endpoints", &self.endpoints)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

/// Returns a network as BOSH's contracts have it: CPIs and agents are told this.
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
    use super::*;

    #[test]
    fn agents_see_which_networks_share_a_card_and_how_long_their_block_is() {
        let settings = NetworkSettings {
            name: "a".into(),
            kind: NetworkKind::Vip,
            ip: Some("1.1.1.16".parse().unwrap()),
            address: crate::instance::AddressKind::Automatic,
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

    #[test]
    fn reads_the_least_that_a_cpi_must_write() {
        let text =
            r#"{"agent_id":"a-1","endpoints":["10.0.0.1:25557"],"authorities_pem":"P","token":"secret"}"#;
        let settings: AgentSettings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.agent_id.as_str(), "a-1");
        assert_eq!(settings.platform, AgentPlatform::Linux);
        assert!(!settings.path_rewrite && !settings.keeps_ssh_server);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let settings = AgentSettings {
            token: "t0ken".into(),
            env: serde_json::json!({"bosh": {"password": "pa55"}}),
            ..AgentSettings::default()
        };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("pa55"), "{shown}");
    }
}
