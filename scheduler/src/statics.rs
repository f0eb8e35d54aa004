//! Placement with static addresses: the addresses decide the zones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::cloud_config::{CloudConfig, Subnet};
use model::instance::NetworkKind;
use model::manifest::network::with_prefix;
use model::manifest::{GroupNetwork, InstanceGroup};
use model::task::TaskError;
use model::*;
use serde_json::Value;

use crate::address::AddressBook;
use crate::placement::{Existing, Placement, Slot};
use crate::zones;

/// An address that the manifest lists.
#[derive(Clone, Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) ip: IpAddr,
    /// Zones it could serve; `None` alone for networks without zones.
    pub(crate) azs: Vec<Option<AzName>>,
    pub(crate) claimed: bool,
    /// What the CPI is told of its subnet.
    cloud_properties: &'a Value,
}

/// A network with its listed addresses, in manifest order.
#[derive(Clone, Debug)]
pub(crate) struct List<'a> {
    network: &'a GroupNetwork,
    pub(crate) listed: Vec<Listed<'a>>,
}

/// All lists of a group, networks in manifest order.
struct Lists<'a>(Vec<List<'a>>);

/// Returns whether placement must follow static addresses: any network but a vip lists some.
pub(crate) fn applies(group: &InstanceGroup) -> bool {
    group.networks.iter().any(|n| n.kind != NetworkKind::Vip && n.static_ips.is_some())
}

/// Places a group whose networks list addresses. `existing` is in the order of index; its ignored instances were
/// checked: whatever they use is listed.
pub(crate) fn place(
    group: &InstanceGroup,
    existing: &[Existing<'_>],
    cloud: &CloudConfig,
    book: &AddressBook,
) -> Result<Placement, TaskError> {
    let mut lists = Lists::read(group, cloud)?;
    let mut slots: Vec<Slot> = Vec::new();
    let mut waiting = Vec::new();
    for (at, known) in existing.iter().enumerate() {
        match lists.keep(known, book)? {
            statics if statics.is_empty() => waiting.push(at),
            statics => slots.push(Slot { existing: Some(at), az: known.az.clone(), statics }),
        }
    }
    for slot in &mut slots {
        lists.complete(slot)?;
    }
    let mut obsolete = Vec::new();
    for at in waiting {
        let mut slot = Slot { existing: Some(at), az: existing[at].az.clone(), statics: BTreeMap::new() };
        let full = slots.len() >= group.instances as usize;
        if !full && lists.complete(&mut slot).is_ok() {
            slots.push(slot);
        } else {
            obsolete.push(at);
        }
    }
    lists.settle_zones(group, &slots)?;
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

impl<'a> Lists<'a> {
    fn read(group: &'a InstanceGroup, cloud: &'a CloudConfig) -> Result<Self, TaskError> {
        let mut lists = Vec::new();
        for network in group.networks.iter().filter(|n| n.kind != NetworkKind::Vip) {
            let Some(ips) = &network.static_ips else { continue };
            let subnets = cloud.network(network.name.as_str()).map_or(&[][..], |n| &n.subnets);
            let listed = ips.iter().map(|ip| Listed::read(*ip, group, network, subnets));
            lists.push(List { network, listed: listed.collect::<Result<_, _>>()? });
        }
        match lists.iter().flat_map(|l| &l.listed).find(|l| l.azs.is_empty()) {
            Some(lost) => Err(TaskError::new(
                ErrorCode::JobStaticIpsFromInvalidAvailabilityZone,
                format!(
                    "Instance group '{}' declares static ip '{}' which does not belong to any of the instance group's availability zones.",
                    group.name,
                    with_prefix(lost.ip)
                ),
            )),
            None => Ok(Self(lists)),
        }
    }

    /// Gives an existing instance those listed addresses that it already has: one in each network, first of all the
    /// one that it uses.
    fn keep(
        &mut self,
        known: &Existing<'_>,
        book: &AddressBook,
    ) -> Result<BTreeMap<NetworkName, IpAddr>, TaskError> {
        let mut kept = BTreeMap::new();
        let spec = &known.instance.spec;
        for List { network, listed } in &mut self.0 {
            let uses =
                spec.networks.iter().filter(|n| n.kind == NetworkKind::Manual && n.name == network.name);
            let held = book.held_before(&network.name, &spec.id);
            let own: Vec<IpAddr> = uses.filter_map(|n| n.ip).chain(held).collect();
            let entry = own.iter().find_map(|ip| listed.iter().position(|l| l.ip == *ip && !l.claimed));
            let Some(entry) = entry.map(|at| &mut listed[at]).filter(|_| !kept.contains_key(&network.name))
            else {
                continue;
            };
            if !entry.serves(&known.az) {
                return Err(TaskError::new(
                    ErrorCode::NetworkReservationCannotDistribute,
                    format!(
                        "Existing instance '{}/{}' is using IP '{}' in availability zone '{}'",
                        spec.group,
                        spec.index,
                        with_prefix(entry.ip),
                        known.az.as_ref().map_or("", AzName::as_str)
                    ),
                ));
            }
            entry.claimed = true;
            kept.insert(network.name.clone(), entry.ip);
        }
        Ok(kept)
    }

    /// Fixes every address that could serve several zones to one of them, so that all networks offer each zone the
    /// same number of addresses. Addresses that are taken count for the zone of their instance.
    fn settle_zones(&mut self, group: &InstanceGroup, slots: &[Slot]) -> Result<(), TaskError> {
        for List { network, listed } in &mut self.0 {
            for entry in listed.iter_mut().filter(|l| l.claimed) {
                let taken_by = slots.iter().find(|s| s.statics.get(&network.name) == Some(&entry.ip));
                if let Some(slot) = taken_by {
                    entry.azs = vec![slot.az.clone()];
                }
            }
        }
        let undecided = |list: &List<'_>| list.listed.iter().any(|l| l.azs.len() > 1);
        if !self.0.iter().any(undecided) || zones::settle(&mut self.0) {
            return Ok(());
        }
        Err(TaskError::new(
            ErrorCode::JobNetworkInstanceIpMismatch,
            format!(
                "Static IPs of instance group '{}' cannot be distributed over its availability zones so that all networks have equally many in each",
                group.name
            ),
        ))
    }

    /// Takes an address in the slot's zone on every network where it has none yet; none at all if one is missing.
    fn complete(&mut self, slot: &mut Slot) -> Result<(), TaskError> {
        let mut statics = slot.statics.clone();
        let mut claims = Vec::new();
        for (at, List { network, listed }) in self.0.iter().enumerate() {
            if statics.contains_key(&network.name) {
                continue;
            }
            let segment = self.segment(network, &statics);
            let fits = |l: &Listed<'_>| {
                !l.claimed && l.serves(&slot.az) && segment.is_none_or(|s| s == l.cloud_properties)
            };
            let entry = listed.iter().position(fits).ok_or_else(cannot_distribute)?;
            statics.insert(network.name.clone(), listed[entry].ip);
            claims.push((at, entry));
        }
        for (at, entry) in claims {
            self.0[at].listed[entry].claimed = true;
        }
        slot.statics = statics;
        Ok(())
    }

    /// Networks that share a network card take addresses in subnets of equal cloud properties: returns those of the
    /// one that was chosen first, if any.
    fn segment(&self, network: &GroupNetwork, statics: &BTreeMap<NetworkName, IpAddr>) -> Option<&'a Value> {
        let card = network.nic_group.as_ref()?;
        let beside = self.0.iter().filter(|l| l.network.nic_group.as_ref() == Some(card));
        beside.into_iter().find_map(|list| {
            let ip = statics.get(&list.network.name)?;
            list.listed.iter().find(|l| l.ip == *ip).map(|l| l.cloud_properties)
        })
    }

    /// The zone of the next new instance: that of the first free address on the first network.
    fn next_zone(&self) -> Option<Option<AzName>> {
        self.0.first()?.listed.iter().find(|l| !l.claimed).and_then(|l| l.azs.first().cloned())
    }
}

impl<'a> Listed<'a> {
    fn read(
        ip: IpAddr,
        group: &InstanceGroup,
        network: &GroupNetwork,
        subnets: &'a [Subnet],
    ) -> Result<Self, TaskError> {
        let subnet = subnets.iter().find(|s| s.is_static(ip)).ok_or_else(|| {
            TaskError::new(
                ErrorCode::JobNetworkInstanceIpMismatch,
                format!(
                    "Instance group '{}' with network '{}' declares static ip '{}', which belongs to no subnet",
                    group.name,
                    network.name,
                    with_prefix(ip)
                ),
            )
        })?;
        let azs = match &subnet.azs {
            None => vec![None],
            Some(azs) => azs.iter().filter(|az| group.azs.contains(az)).cloned().map(Some).collect(),
        };
        Ok(Self { ip, azs, claimed: false, cloud_properties: &subnet.cloud_properties })
    }

    fn serves(&self, az: &Option<AzName>) -> bool {
        self.azs.contains(az) || self.azs == [None]
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
