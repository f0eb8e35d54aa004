//! Addresses of VMs: which a request asks for, and whether this rung can give them. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cpi_api::CpiErrorKind;
use cpi_host::HostError;
use model::AgentId;
use model::instance::{NetworkKind, NetworkSettings};

use crate::record::Link;
use crate::rung::Rung;

/// Gives every network of a VM its address. `used` are addresses of other VMs.
pub(crate) fn links(
    networks: &[NetworkSettings],
    rung: Rung,
    agent: &AgentId,
    used: &BTreeSet<IpAddr>,
) -> Result<Vec<Link>, HostError> {
    let mut links = Vec::new();
    for network in networks {
        let link = match (network.kind, network.ip) {
            // A public address would be somebody else's machine in front of us: there is none.
            (NetworkKind::Vip, _) => continue,
            (NetworkKind::Dynamic, None) => dynamic(rung, agent, used)?,
            (_, None) => {
                let message = format!("network `{}` has no address", network.name);
                return Err(HostError::refused(CpiErrorKind::VmCreationFailed, message));
            }
            (_, Some(ip)) => Link {
                ip,
                prefix_bits: mask_bits(network.netmask.as_deref()).unwrap_or(24),
                gateway: network.gateway,
                is_default: network.defaults.iter().any(|d| d == "gateway"),
            },
        };
        check(&link, network, rung, used)?;
        links.push(link);
    }
    Ok(links)
}

fn check(
    link: &Link,
    network: &NetworkSettings,
    rung: Rung,
    used: &BTreeSet<IpAddr>,
) -> Result<(), HostError> {
    let refuse = |message| Err(HostError::refused(CpiErrorKind::VmCreationFailed, message));
    let (ip, name) = (link.ip, &network.name);
    if used.contains(&ip) {
        return refuse(format!("address {ip} of network `{name}` is in use by another VM"));
    }
    match (has_own_network(rung), ip.is_loopback()) {
        (false, false) => refuse(format!(
            "network `{name}`: a VM on the rung `{rung}` can't have the address {ip}; use a subnet of 127.0.0.0/8"
        )),
        (true, true) => refuse(format!(
            "network `{name}`: a VM on the rung `{rung}` has a network of its own, where {ip} would reach nobody; use a \
             subnet outside 127.0.0.0/8"
        )),
        _ if !ip.is_ipv4() => refuse(format!("network `{name}`: {ip}: this cloud speaks IPv4 only")),
        _ => Ok(()),
    }
}

/// Returns whether VMs of a rung have a network of their own.
pub(crate) fn has_own_network(rung: Rung) -> bool {
    matches!(rung, Rung::Namespaces | Rung::UserNamespaces | Rung::Qemu)
}

/// Returns the hardware address of who has an address, which one network has once because it has the address once. It stays
/// when another VM takes the address over: whoever spoke to the one before goes on sending there for half a minute. A VM with
/// several networks has one card for all, and the hardware address of its first one.
pub(crate) fn hardware_address(ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        // Refused long before: the cloud speaks IPv4.
        IpAddr::V6(_) => [0; 4],
    };
    [0x52, 0x54, a, b, c, d]
}

/// Returns the address of a director as a VM with a network of its own reaches it, where there is neither a name service
/// nor IPv6; none if there is no such way.
pub(crate) fn director_address(endpoint: &str) -> Option<SocketAddr> {
    let numeric = endpoint.replace("localhost:", "127.0.0.1:");
    numeric.parse().ok().filter(SocketAddr::is_ipv4)
}

/// Returns the directors that VMs of a rung can't reach.
pub(crate) fn out_of_reach(endpoints: &[String], rung: Rung) -> Vec<&str> {
    // Machines have somebody on the host open their connections, who knows names.
    let finds_none = has_own_network(rung) && rung != Rung::Qemu;
    let beyond = |endpoint: &&str| finds_none && director_address(endpoint).is_none();
    endpoints.iter().map(String::as_str).filter(beyond).collect()
}

/// Picks an address for a dynamic network: by the agent's id, so that a repeat mostly picks the same.
fn dynamic(rung: Rung, agent: &AgentId, used: &BTreeSet<IpAddr>) -> Result<Link, HostError> {
    let first_octet = if has_own_network(rung) { 10 } else { 127 };
    let start = agent.as_str().bytes().fold(5381_u32, |h, b| h.wrapping_mul(33) ^ u32::from(b));
    // A /16 without its first and last addresses; .0.1 is the gateway.
    let host = (0..65_000_u32).map(|n| 2 + (start % 65_000 + n) % 65_000);
    let free = host
        .map(|h| IpAddr::from([first_octet, 254, (h >> 8) as u8, (h & 0xff) as u8]))
        .find(|ip| !used.contains(ip));
    let full = || HostError::refused(CpiErrorKind::VmCreationFailed, "no dynamic address is free");
    let gateway = Some(IpAddr::from([first_octet, 254, 0, 1]));
    Ok(Link { ip: free.ok_or_else(full)?, prefix_bits: 16, gateway, is_default: true })
}

fn mask_bits(netmask: Option<&str>) -> Option<u8> {
    let mask = u32::from(netmask?.parse::<Ipv4Addr>().ok()?);
    Some(mask.leading_ones() as u8)
}

#[cfg(test)]
mod tests {
    use model::instance::AddressKind;
    use serde_json::json;

    use super::*;

    fn network(kind: NetworkKind, ip: Option<&str>) -> NetworkSettings {
        NetworkSettings {
            name: "net".into(),
            kind,
            ip: ip.map(|ip| ip.parse().unwrap()),
            address: AddressKind::Automatic,
            prefix: "32".into(),
            netmask: Some("255.255.0.0".into()),
            gateway: Some(IpAddr::from([10, 0, 0, 1])),
            dns: vec![],
            defaults: vec!["gateway".into()],
            cloud_properties: json!({}),
            nic_group: None,
        }
    }

    fn give(kind: NetworkKind, ip: Option<&str>, rung: Rung, used: &[&str]) -> Result<Vec<Link>, String> {
        let used = used.iter().map(|ip| ip.parse().unwrap()).collect();
        links(&[network(kind, ip)], rung, &"a".into(), &used).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manual_address_comes_with_its_subnet() {
        let links = give(NetworkKind::Manual, Some("10.0.3.4"), Rung::Namespaces, &[]).unwrap();
        let gateway = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(links, [Link { ip: [10, 0, 3, 4].into(), prefix_bits: 16, gateway, is_default: true }]);
    }

    #[test]
    fn each_rung_refuses_what_it_cannot_reach() {
        let error = give(NetworkKind::Manual, Some("10.0.0.4"), Rung::Process, &[]).unwrap_err();
        assert!(error.contains("use a subnet of 127.0.0.0/8"), "{error}");
        let error = give(NetworkKind::Manual, Some("127.0.0.4"), Rung::Namespaces, &[]).unwrap_err();
        assert!(error.contains("outside 127.0.0.0/8"), "{error}");
        let error = give(NetworkKind::Manual, Some("fd00::1"), Rung::Namespaces, &[]).unwrap_err();
        assert!(error.contains("IPv4 only"), "{error}");
        give(NetworkKind::Manual, None, Rung::Process, &[]).unwrap_err();
    }

    #[test]
    fn only_directors_at_an_ipv4_address_are_within_reach_of_a_network_of_its_own() {
        let all = ["10.0.0.6:1", "localhost:2", "d1.example:3", "[::1]:4"].map(str::to_owned);
        assert_eq!(out_of_reach(&all, Rung::Namespaces), ["d1.example:3", "[::1]:4"]);
        assert_eq!(out_of_reach(&all, Rung::Process), [""; 0]);
        assert_eq!(out_of_reach(&all, Rung::Qemu), [""; 0]);
    }

    #[test]
    fn an_address_in_use_is_refused_or_passed_over() {
        give(NetworkKind::Manual, Some("127.0.0.4"), Rung::Process, &["127.0.0.4"]).unwrap_err();
        let first = give(NetworkKind::Dynamic, None, Rung::Process, &[]).unwrap()[0].ip;
        let second = give(NetworkKind::Dynamic, None, Rung::Process, &[&first.to_string()]).unwrap()[0].ip;
        assert_ne!(first, second);
        assert!(give(NetworkKind::Vip, Some("1.2.3.4"), Rung::Process, &[]).unwrap().is_empty());
    }
}
