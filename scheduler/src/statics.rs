//! Placement with static addresses: the addresses decide the zones (`spec/manifest.md` §5.2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::cloud_config::CloudConfig;
use model::instance::NetworkKind;
use model::manifest::InstanceGroup;
use model::manifest::network::with_prefix;
use model::task::TaskError;
use model::*;

use crate::placement::{Existing, Placement, Slot};

/// A listed address that nobody has taken yet, or has.
#[derive(Clone, Debug)]
struct Listed {
    ip: IpAddr,
    /// Zones it could serve; `None` alone for networks without zones.
    azs: Vec<Option<AzName>>,
    claimed: bool,
}

/// Listed addresses by network, networks in manifest order.
struct Lists {
    networks: Vec<(NetworkName, Vec<Listed>)>,
}

/// Returns whether placement must follow static addresses: any network but a vip lists some.
pub(crate) fn applies(group: &InstanceGroup) -> bool {
    group.networks.iter().any(|n| n.kind != NetworkKind::Vip && n.static_ips.is_some())
}

/// Places a group whose networks list addresses. `existing` is in the order of index.
pub(crate) fn place(
    group: &InstanceGroup,
    existing: &[Existing<'_>],
    cloud: &CloudConfig,
) -> Result<Placement, TaskError> {
    let mut lists = Lists::read(group, cloud)?;
    let mut slots: Vec<Slot> = Vec::new();
    let mut waiting = Vec::new();
    for (at, known) in existing.iter().enumerate() {
        match lists.keep(known)? {
            statics if statics.is_empty() => waiting.push(at),
            statics => slots.push(Slot { existing: Some(at), az: known.az.clone(), statics }),
        }
    }
    lists.settle_zones(&slots)?;
    for slot in &mut slots {
        lists.complete(slot)?;
    }
    let mut obsolete = Vec::new();
    for at in waiting {
        let mut slot = Slot { existing: Some(at), az: existing[at].az.clone(), statics: BTreeMap::new() };
        let free = slots.len() < group.instances as usize && lists.all_offer(&slot.az);
        if free {
            lists.complete(&mut slot)?;
            slots.push(slot);
        } else {
            obsolete.push(at);
        }
    }
    while slots.len() < group.instances as usize {
        let az = lists.next_zone().ok_or_else(cannot_distribute)?;
        let mut slot = Slot { existing: None, az, statics: BTreeMap::new() };
        lists.complete(&mut slot)?;
        slots.push(slot);
    }
    Ok(Placement { slots, obsolete })
}

fn cannot_distribute() -> TaskError {
    TaskError::new(
        ErrorCode::NetworkReservationCannotDistribute,
        "Failed to distribute static IPs to satisfy existing instance reservations",
    )
}

impl Lists {
    fn read(group: &InstanceGroup, cloud: &CloudConfig) -> Result<Self, TaskError> {
        let mut networks = Vec::new();
        for network in group.networks.iter().filter(|n| n.kind != NetworkKind::Vip) {
            let Some(ips) = &network.static_ips else { continue };
            let subnets = cloud.network(network.name.as_str()).map_or(&[][..], |n| &n.subnets);
            let mut listed = Vec::with_capacity(ips.len());
            for ip in ips {
                let subnet = subnets.iter().find(|s| s.is_static(*ip)).ok_or_else(|| {
                    TaskError::new(
                        ErrorCode::JobNetworkInstanceIpMismatch,
                        format!(
                            "Instance group '{}' with network '{}' declares static ip '{}', which belongs to no subnet",
                            group.name,
                            network.name,
                            with_prefix(*ip)
                        ),
                    )
                })?;
                let azs: Vec<Option<AzName>> = match &subnet.azs {
                    None => vec![None],
                    Some(azs) => azs.iter().filter(|az| group.azs.contains(az)).cloned().map(Some).collect(),
                };
                if azs.is_empty() {
                    // An instance that still holds the address is the better explanation; see `keep`.
                    listed.push(Listed { ip: *ip, azs, claimed: false });
                    continue;
                }
                listed.push(Listed { ip: *ip, azs, claimed: false });
            }
            networks.push((network.name.clone(), listed));
        }
        for (_, listed) in &networks {
            if let Some(lost) = listed.iter().find(|l| l.azs.is_empty()) {
                return Err(TaskError::new(
                    ErrorCode::JobStaticIpsFromInvalidAvailabilityZone,
                    format!(
                        "Instance group '{}' declares static ip '{}' which does not belong to any of the instance group's availability zones.",
                        group.name,
                        with_prefix(lost.ip)
                    ),
                ));
            }
        }
        Ok(Self { networks })
    }

    /// Gives an existing instance those listed addresses that it already has.
    fn keep(&mut self, known: &Existing<'_>) -> Result<BTreeMap<NetworkName, IpAddr>, TaskError> {
        let mut kept = BTreeMap::new();
        let held = known.instance.spec.networks.iter().filter(|n| n.kind == NetworkKind::Manual);
        for (ip, name) in held.filter_map(|n| Some((n.ip?, &n.name))) {
            let Some((network, listed)) = self.networks.iter_mut().find(|(n, _)| n == name) else { continue };
            let Some(entry) = listed.iter_mut().find(|l| l.ip == ip && !l.claimed) else { continue };
            let serves = entry.azs.contains(&known.az) || entry.azs == [None];
            if !serves {
                return Err(TaskError::new(
                    ErrorCode::NetworkReservationCannotDistribute,
                    format!(
                        "Existing instance '{}/{}' is using IP '{}' in availability zone '{}'",
                        known.instance.spec.group,
                        known.instance.spec.index,
                        with_prefix(ip),
                        known.az.as_ref().map_or("", AzName::as_str)
                    ),
                ));
            }
            entry.claimed = true;
            kept.insert(network.clone(), ip);
        }
        Ok(kept)
    }

    /// Fixes every address that could serve several zones to one of them, so that all networks offer each zone the
    /// same number of addresses. Addresses that are taken count for the zone of their instance.
    fn settle_zones(&mut self, slots: &[Slot]) -> Result<(), TaskError> {
        let mut counts: Vec<BTreeMap<Option<AzName>, usize>> = vec![BTreeMap::new(); self.networks.len()];
        for (at, (network, listed)) in self.networks.iter_mut().enumerate() {
            for entry in listed.iter_mut() {
                let taken_by = slots.iter().find(|s| s.statics.get(network) == Some(&entry.ip));
                if let (true, Some(slot)) = (entry.claimed, taken_by) {
                    entry.azs = vec![slot.az.clone()];
                }
                if let [az] = &entry.azs[..] {
                    *counts[at].entry(az.clone()).or_default() += 1;
                }
            }
        }
        // The most constrained network goes first: its counts are what the others must match.
        let mut order: Vec<usize> = (0..self.networks.len()).collect();
        order.sort_by_key(|at| self.networks[*at].1.iter().filter(|l| l.azs.len() > 1).count());
        let mut wanted: Option<BTreeMap<Option<AzName>, usize>> = None;
        for at in order {
            let (_, listed) = &mut self.networks[at];
            for entry in listed.iter_mut().filter(|l| l.azs.len() > 1) {
                let count = |az: &Option<AzName>| counts[at].get(az).copied().unwrap_or(0);
                let lacks = |az: &&Option<AzName>| {
                    wanted.as_ref().is_none_or(|w| count(az) < w.get(*az).copied().unwrap_or(0))
                };
                let az = entry.azs.iter().filter(lacks).min_by_key(|az| count(az)).cloned();
                let az = az.ok_or_else(cannot_distribute)?;
                *counts[at].entry(az.clone()).or_default() += 1;
                entry.azs = vec![az];
            }
            let zoned = |c: &BTreeMap<Option<AzName>, usize>| !c.contains_key(&None);
            match &wanted {
                Some(wanted) if zoned(&counts[at]) && *wanted != counts[at] => {
                    return Err(cannot_distribute());
                }
                None if zoned(&counts[at]) => wanted = Some(counts[at].clone()),
                _ => {}
            }
        }
        Ok(())
    }

    fn offers(listed: &[Listed], az: &Option<AzName>) -> Option<usize> {
        listed.iter().position(|l| !l.claimed && (l.azs.contains(az) || l.azs == [None]))
    }

    fn all_offer(&self, az: &Option<AzName>) -> bool {
        self.networks.iter().all(|(_, listed)| Self::offers(listed, az).is_some())
    }

    /// Takes an address in the slot's zone on every network where it has none yet.
    fn complete(&mut self, slot: &mut Slot) -> Result<(), TaskError> {
        for (network, listed) in &mut self.networks {
            if slot.statics.contains_key(network) {
                continue;
            }
            let at = Self::offers(listed, &slot.az).ok_or_else(cannot_distribute)?;
            listed[at].claimed = true;
            slot.statics.insert(network.clone(), listed[at].ip);
        }
        Ok(())
    }

    /// The zone of the next new instance: that of the first free address on the first network.
    fn next_zone(&self) -> Option<Option<AzName>> {
        let (_, listed) = self.networks.first()?;
        listed.iter().find(|l| !l.claimed).and_then(|l| l.azs.first().cloned())
    }
}

/// Assigns a vip network's addresses: kept where an instance has one of them, else in manifest order.
pub(crate) fn assign_vips(group: &InstanceGroup, existing: &[Existing<'_>], slots: &mut [Slot]) {
    for network in group.networks.iter().filter(|n| n.kind == NetworkKind::Vip) {
        let Some(ips) = &network.static_ips else { continue };
        let mut free: BTreeSet<IpAddr> = ips.iter().copied().collect();
        let held = |slot: &Slot| {
            let networks = &existing[slot.existing?].instance.spec.networks;
            networks.iter().find(|n| n.name == network.name).and_then(|n| n.ip)
        };
        for slot in slots.iter_mut() {
            if let Some(ip) = held(slot).filter(|ip| free.remove(ip)) {
                slot.statics.insert(network.name.clone(), ip);
            }
        }
        let mut rest = ips.iter().filter(|ip| free.contains(ip));
        for slot in slots.iter_mut().filter(|s| !s.statics.contains_key(&network.name)) {
            if let Some(ip) = rest.next() {
                slot.statics.insert(network.name.clone(), *ip);
            }
        }
    }
}
