//! Networks of one instance: an address in each, and the settings that CPI, agent and templates see.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::cloud_config::{CloudConfig, Network};
use model::instance::{AddressKind, NetworkKind, NetworkSettings};
use model::ip;
use model::manifest::{GroupNetwork, InstanceGroup};
use model::task::TaskError;
use model::{ErrorCode, NetworkName};
use serde_json::{Map, Value};

use crate::address::{AddressBook, Seeker};
use crate::placement::Slot;

/// Gives an instance an address in each of its group's networks. `before` are the networks that it had.
pub(crate) fn settle(
    group: &InstanceGroup,
    cloud: &CloudConfig,
    slot: &Slot,
    before: &[NetworkSettings],
    book: &mut AddressBook,
    who: &Seeker<'_>,
) -> Result<Vec<NetworkSettings>, TaskError> {
    let mut used = BTreeSet::new();
    let mut settled = Vec::with_capacity(group.networks.len());
    for wanted in &group.networks {
        let Some(network) = cloud.network(wanted.name.as_str()) else { continue };
        let settings = match (network.kind, slot.statics.get(&wanted.name)) {
            (_, Some(ip)) => {
                let prefix = network.subnets.iter().find(|s| s.contains(*ip)).and_then(|s| s.prefix);
                book.take_static(*ip, prefix, &wanted.name, who)?;
                settings(wanted, network, Some(*ip), AddressKind::Static, who)
            }
            (NetworkKind::Vip, None) if !network.gives_vips() => {
                return Err(TaskError::plain(format!(
                    "Instance group '{}' gives no static IPs for vip network '{}'",
                    group.name, wanted.name
                )));
            }
            (NetworkKind::Manual | NetworkKind::Vip, None) => {
                let ip = match keep(wanted, network, group, before, &used, book, who) {
                    Some(ip) => ip,
                    None => book.take_automatic(network, who)?,
                };
                used.insert(ip);
                settings(wanted, network, Some(ip), AddressKind::Automatic, who)
            }
            (NetworkKind::Dynamic, None) => dynamic(wanted, network, before, who),
        };
        settled.push(settings);
    }
    Ok(settled)
}

/// What the agent once reported stays true as long as the VM does.
fn dynamic(
    wanted: &GroupNetwork,
    network: &Network,
    before: &[NetworkSettings],
    who: &Seeker<'_>,
) -> NetworkSettings {
    let known = before.iter().find(|n| n.name == wanted.name && n.kind == NetworkKind::Dynamic);
    let settings = settings(wanted, network, None, AddressKind::Automatic, who);
    NetworkSettings {
        ip: known.and_then(|n| n.ip),
        netmask: known.and_then(|n| n.netmask.clone()),
        gateway: known.and_then(|n| n.gateway),
        ..settings
    }
}

/// Returns what a VM's networks would be now if it kept all its addresses; none if it can't.
pub(crate) fn settle_on(
    vm: &[NetworkSettings],
    group: &InstanceGroup,
    cloud: &CloudConfig,
    book: &mut AddressBook,
    who: &Seeker<'_>,
) -> Option<Vec<NetworkSettings>> {
    let mut used = BTreeSet::new();
    let mut settled = Vec::with_capacity(group.networks.len());
    for wanted in &group.networks {
        let network = cloud.network(wanted.name.as_str())?;
        settled.push(match network.kind {
            NetworkKind::Dynamic => dynamic(wanted, network, vm, who),
            NetworkKind::Vip => return None,
            NetworkKind::Manual => {
                let own = vm.iter().filter(|n| n.name == wanted.name && n.kind == NetworkKind::Manual);
                let mut own = own.filter_map(|n| n.ip).filter(|ip| !used.contains(ip));
                let ip = own.find(|ip| book.keep_automatic(*ip, network, who))?;
                used.insert(ip);
                settings(wanted, network, Some(ip), AddressKind::Automatic, who)
            }
        });
    }
    Some(settled)
}

/// Gives an instance other addresses instead of those that its VMs have: first of all such as it holds for no VM, since
/// the making of one failed.
pub(crate) fn renew(
    settled: &mut [NetworkSettings],
    of_vms: &BTreeSet<IpAddr>,
    group: &InstanceGroup,
    cloud: &CloudConfig,
    book: &mut AddressBook,
    who: &Seeker<'_>,
) -> Result<(), TaskError> {
    let mut used: BTreeSet<IpAddr> =
        settled.iter().filter_map(|n| n.ip).filter(|ip| !of_vms.contains(ip)).collect();
    let known = group.networks.iter().filter_map(|g| Some((g, cloud.network(g.name.as_str())?)));
    for (settled, (wanted, network)) in settled.iter_mut().zip(known) {
        let is_taken = settled.ip.is_some_and(|ip| of_vms.contains(&ip));
        if network.kind != NetworkKind::Manual || !is_taken {
            continue;
        }
        let held = book.held_before(&network.name, who.id).into_iter();
        let mut free = held.filter(|ip| !used.contains(ip) && !of_vms.contains(ip));
        let ip = match free.find(|ip| book.keep_automatic(*ip, network, who)) {
            Some(ip) => ip,
            None => book.take_automatic(network, who)?,
        };
        used.insert(ip);
        *settled = settings(wanted, network, Some(ip), AddressKind::Automatic, who);
    }
    Ok(())
}

/// Finds an address that the instance can keep: first one of the same network, then that of one it leaves.
fn keep(
    wanted: &GroupNetwork,
    network: &Network,
    group: &InstanceGroup,
    before: &[NetworkSettings],
    used: &BTreeSet<IpAddr>,
    book: &mut AddressBook,
    who: &Seeker<'_>,
) -> Option<IpAddr> {
    let alike = || before.iter().filter(|n| n.kind == network.kind);
    let same = alike().filter(|n| n.name == wanted.name);
    let left = alike().filter(|n| !group.networks.iter().any(|g| g.name == n.name));
    let held = book.held_before(&wanted.name, who.id);
    let candidates: Vec<IpAddr> =
        same.filter_map(|n| n.ip).chain(held).chain(left.filter_map(|n| n.ip)).collect();
    candidates.into_iter().find(|ip| !used.contains(ip) && book.keep_automatic(*ip, network, who))
}

fn settings(
    wanted: &GroupNetwork,
    network: &Network,
    ip: Option<IpAddr>,
    address: AddressKind,
    who: &Seeker<'_>,
) -> NetworkSettings {
    let subnet = match ip {
        Some(ip) if network.kind == NetworkKind::Manual => network.subnets.iter().find(|s| s.contains(ip)),
        Some(ip) if network.gives_vips() => network.subnets.iter().find(|s| s.is_static(ip)),
        _ => network.subnets.iter().find(|s| s.serves(who.az)),
    };
    let range = subnet.and_then(|s| s.range);
    NetworkSettings {
        name: wanted.name.clone(),
        kind: network.kind,
        ip,
        address,
        prefix: match subnet.and_then(|s| s.prefix) {
            Some(prefix) => prefix.to_string(),
            None if ip.is_some_and(|ip| ip.is_ipv6()) => "128".into(),
            None => "32".into(),
        },
        netmask: range.map(|(block, prefix)| ip::netmask(block.family, prefix)),
        gateway: subnet.and_then(|s| s.gateway),
        dns: subnet.map(|s| s.dns.clone()).unwrap_or_default(),
        defaults: wanted.defaults.clone(),
        cloud_properties: subnet.map_or_else(|| Value::Object(Map::new()), |s| s.cloud_properties.clone()),
        nic_group: wanted.nic_group.clone(),
    }
}

/// Gives a compilation worker its one network.
pub(crate) fn for_worker(
    cloud: &CloudConfig,
    name: &NetworkName,
    book: &mut AddressBook,
    who: &Seeker<'_>,
) -> Result<NetworkSettings, TaskError> {
    let network = cloud.network(name.as_str()).ok_or_else(|| {
        TaskError::new(
            ErrorCode::CompilationConfigUnknownNetwork,
            format!("Compilation config references an unknown network '{name}'"),
        )
    })?;
    let wanted = GroupNetwork {
        name: name.clone(),
        kind: network.kind,
        static_ips: None,
        defaults: vec!["dns".into(), "gateway".into()],
        nic_group: None,
    };
    let ip = match network.kind {
        NetworkKind::Manual => Some(book.take_automatic(network, who)?),
        NetworkKind::Dynamic | NetworkKind::Vip => None,
    };
    Ok(settings(&wanted, network, ip, AddressKind::Automatic, who))
}

/// Returns the name of the network whose address stands for the instance: the addressable one, else the gateway's.
pub(crate) fn default_network(networks: &[GroupNetwork]) -> Option<&GroupNetwork> {
    let with = |property: &str| networks.iter().find(|n| n.defaults.iter().any(|d| d == property));
    with("addressable").or_else(|| with("gateway"))
}
