//! Networks of a group: static addresses and defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use crate::cloud_config::{CloudConfig, Network};
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::NetworkKind;
use crate::ip;
use crate::task::TaskError;

/// Static addresses of one group in one network; more is a slip of the pen such as a whole `/8`.
const STATIC_IPS_MAX: usize = 65_536;

/// A network of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupNetwork {
    /// The network's name.
    pub name: NetworkName,
    /// How addresses come about.
    pub kind: NetworkKind,
    /// Named addresses, in order; none if they are picked.
    pub static_ips: Option<Vec<IpAddr>>,
    /// What it is the default for, sorted.
    pub defaults: Vec<String>,
    /// Networks of one group share a network card.
    pub nic_group: Option<String>,
}

pub(super) fn parse_all(fields: &Fields<'_>, group: &str, cloud: &CloudConfig) -> Checked<Vec<GroupNetwork>> {
    let items = fields.list("networks")?;
    if items.is_empty() {
        return Err(TaskError::new(
            ErrorCode::InstanceGroupMissingNetwork,
            format!("Instance group '{group}' must specify at least one network"),
        ));
    }
    let mut networks = Vec::with_capacity(items.len());
    for item in items {
        networks.push(parse(&Fields::of(item)?, group, cloud)?);
    }
    check_defaults(&mut networks, group)?;
    share_defaults(&mut networks);
    Ok(networks)
}

fn parse(fields: &Fields<'_>, group: &str, cloud: &CloudConfig) -> Checked<GroupNetwork> {
    let name = fields.text("name")?;
    let network = cloud.network(&name).ok_or_else(|| {
        TaskError::new(
            ErrorCode::JobUnknownNetwork,
            format!("Instance group '{group}' references an unknown network '{name}'"),
        )
    })?;
    let static_ips = parse_static_ips(fields, group, network)?;
    if static_ips.is_some() && network.gives_vips() {
        return Err(TaskError::new(
            ErrorCode::NetworkReservationVipMisconfigured,
            format!(
                "Instance group '{group}' lists static IPs in vip network '{name}', which has subnets to take them from"
            ),
        ));
    }
    if static_ips.is_some() && network.kind == NetworkKind::Dynamic {
        return Err(TaskError::new(
            ErrorCode::JobStaticIpNotSupportedOnDynamicNetwork,
            format!("Instance group '{group}' using dynamic network '{name}' cannot specify static IP(s)"),
        ));
    }
    let mut defaults = Vec::new();
    for item in fields.list_or_empty("default")? {
        let property = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
        if !matches!(property.as_str(), "dns" | "gateway" | "addressable") {
            return Err(TaskError::new(
                ErrorCode::JobNetworkInvalidDefault,
                format!(
                    "Instance group '{group}' specified an invalid default network property '{property}', valid properties are: dns, gateway"
                ),
            ));
        }
        defaults.push(property);
    }
    defaults.sort();
    Ok(GroupNetwork {
        name: network.name.clone(),
        kind: network.kind,
        static_ips,
        defaults,
        nic_group: fields.text_opt("nic_group")?,
    })
}

fn parse_static_ips(fields: &Fields<'_>, group: &str, network: &Network) -> Checked<Option<Vec<IpAddr>>> {
    let items: Vec<&Value> = match fields.raw("static_ips") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one) => vec![one],
    };
    let prefix = network.subnets.iter().find_map(|s| s.prefix);
    let (mut ips, mut seen) = (Vec::new(), BTreeSet::new());
    for item in items {
        let block = static_range(item.as_str().unwrap_or_default(), prefix, group)?;
        for address in block.bases(prefix.map_or(block.family.bits(), u32::from)) {
            if !seen.insert(address) {
                return Err(TaskError::new(
                    ErrorCode::JobInvalidStaticIps,
                    format!(
                        "Instance group '{group}' specifies static IP '{}' more than once",
                        with_prefix(address)
                    ),
                ));
            }
            if ips.len() == STATIC_IPS_MAX {
                return Err(TaskError::new(
                    ErrorCode::JobInvalidStaticIps,
                    format!("Instance group '{group}' lists more than {STATIC_IPS_MAX} static IPs"),
                ));
            }
            ips.push(address);
        }
    }
    Ok(Some(ips))
}

/// Reads an element of `static_ips`. Where blocks are given out, an address stands for the block that begins there.
fn static_range(text: &str, prefix: Option<u8>, group: &str) -> Checked<ip::Block> {
    let range = ip::parse_range(text)?;
    let Some(prefix) = prefix else { return Ok(range) };
    let range = match range.first == range.last {
        true => ip::Block::starting(range.family.address(range.first), Some(prefix)),
        false => range,
    };
    let begins_blocks = range.bases(u32::from(prefix)).next() == Some(range.family.address(range.first));
    if begins_blocks {
        return Ok(range);
    }
    Err(TaskError::new(
        ErrorCode::JobInvalidStaticIps,
        format!(
            "Instance group '{group}' specifies static IP '{text}', where no block of length /{prefix} begins"
        ),
    ))
}

/// Returns an address as messages show it: `10.0.0.5/32`.
pub fn with_prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

fn check_defaults(networks: &mut [GroupNetwork], group: &str) -> Checked<()> {
    // One network is the default for everything, whatever it says.
    if let [network] = networks {
        network.defaults = vec!["dns".into(), "gateway".into()];
        return Ok(());
    }
    let mut by_property: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for network in networks.iter() {
        for property in &network.defaults {
            by_property.entry(property).or_default().push(network.name.as_str());
        }
    }
    let doubled: Vec<String> = by_property
        .iter()
        .filter(|(_, names)| names.len() > 1)
        .map(|(property, names)| {
            let names: Vec<String> = names.iter().map(|n| format!("'{n}'")).collect();
            format!("'{property}' has default networks: {}.", names.join(", "))
        })
        .collect();
    if !doubled.is_empty() {
        return Err(TaskError::new(
            ErrorCode::JobNetworkMultipleDefaults,
            format!(
                "Instance group '{group}' specified more than one network to contain default. {}",
                doubled.join(" ")
            ),
        ));
    }
    let missing: Vec<&str> =
        ["dns", "gateway"].into_iter().filter(|p| !by_property.contains_key(p)).collect();
    if !missing.is_empty() {
        return Err(TaskError::new(
            ErrorCode::JobNetworkMissingDefault,
            format!(
                "Instance group '{group}' must specify which network is default for {}, since it has more than one network configured",
                missing.join(", ")
            ),
        ));
    }
    if let Some(vip) = networks.iter().find(|n| n.kind == NetworkKind::Vip && !n.defaults.is_empty()) {
        return Err(TaskError::new(
            ErrorCode::NetworkReservationVipDefaultProvided,
            format!("Instance group '{group}' can't provide any defaults with vip network '{}'", vip.name),
        ));
    }
    Ok(())
}

/// A network that is listed twice is the default for what either entry says: settings go by name.
fn share_defaults(networks: &mut [GroupNetwork]) {
    let mut by_name: BTreeMap<NetworkName, BTreeSet<String>> = BTreeMap::new();
    for network in networks.iter() {
        by_name.entry(network.name.clone()).or_default().extend(network.defaults.iter().cloned());
    }
    for network in networks {
        network.defaults = by_name[&network.name].iter().cloned().collect();
    }
}

pub(super) fn check_static_counts(networks: &[GroupNetwork], group: &str, instances: u32) -> Checked<()> {
    for network in networks {
        let Some(ips) = &network.static_ips else { continue };
        if ips.len() != instances as usize {
            return Err(TaskError::new(
                ErrorCode::JobNetworkInstanceIpMismatch,
                format!(
                    "Instance group '{group}' has {instances} instances but was allocated {} static IPs in network '{}'",
                    ips.len(),
                    network.name
                ),
            ));
        }
    }
    Ok(())
}
