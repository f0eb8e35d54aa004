//! Addresses: who holds which in the whole director, and the next free one.
//!
//! Invariant: an address is given to one instance, whatever network it is taken in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::cloud_config::{Network, Subnet};
use model::instance::{AddressKind, InstanceSpec, NetworkKind};
use model::ip::{self, Block};
use model::manifest::network::with_prefix;
use model::plan::Reservation;
use model::task::TaskError;
use model::*;

use crate::input::HeldAddress;
use crate::order;

struct Holder {
    instance: Option<InstanceId>,
    label: String,
    /// What it holds: one address, or a block that begins there.
    block: Block,
    prefix: Option<u8>,
}

/// Everything that is held, and what this plan adds.
pub(crate) struct AddressBook {
    /// By the first address. No two overlap, unless one instance holds both for a moment.
    held: BTreeMap<IpAddr, Holder>,
    /// What each instance held before this plan, and in which network.
    before: BTreeMap<InstanceId, Vec<(NetworkName, IpAddr)>>,
    /// How far each pool of each subnet was searched: addresses are never given back while planning.
    cursors: BTreeMap<(NetworkName, usize, usize), u128>,
    new: Vec<Reservation>,
}

/// For whom an address is sought, and what errors say about it.
pub(crate) struct Seeker<'a> {
    pub(crate) id: &'a InstanceId,
    /// `web/<uuid> (0)`.
    pub(crate) label: String,
    pub(crate) deployment: &'a DeploymentName,
    pub(crate) az: Option<&'a AzName>,
}

impl<'a> Seeker<'a> {
    pub(crate) fn of(spec: &'a InstanceSpec) -> Self {
        let label = order::label(spec);
        Self { id: &spec.id, label, deployment: &spec.deployment, az: spec.az.as_ref() }
    }
}

impl AddressBook {
    pub(crate) fn new(held: &[HeldAddress]) -> Self {
        let holder = |h: &HeldAddress| {
            let label = match &h.instance {
                Some(_) => format!("instance '{}' from deployment '{}'", h.holder, h.deployment),
                None => format!("orphaned instance '{}' from deployment '{}'", h.holder, h.deployment),
            };
            let block = Block::starting(h.ip, h.prefix);
            Holder { instance: h.instance.clone(), label, block, prefix: h.prefix }
        };
        let mut before: BTreeMap<InstanceId, Vec<(NetworkName, IpAddr)>> = BTreeMap::new();
        for (instance, h) in held.iter().filter_map(|h| Some((h.instance.clone()?, h))) {
            before.entry(instance).or_default().push((h.network.clone(), h.ip));
        }
        Self {
            held: held.iter().map(|h| (h.ip, holder(h))).collect(),
            before,
            cursors: BTreeMap::new(),
            new: Vec::new(),
        }
    }

    /// Returns the addresses that were taken since.
    pub(crate) fn into_reservations(self) -> Vec<Reservation> {
        self.new
    }

    /// Returns who holds any of these addresses, other than `but`.
    fn holder(&self, wanted: &Block, but: Option<&InstanceId>) -> Option<&Holder> {
        let first = wanted.family.address(wanted.first);
        let last = wanted.family.address(wanted.last);
        let before = self.held.range(..first).next_back();
        let within = self.held.range(first..=last);
        let mut others = before.into_iter().chain(within).map(|(_, holder)| holder);
        others.find(|h| h.block.overlaps(wanted) && (but.is_none() || h.instance.as_ref() != but))
    }

    /// Takes an address that the manifest names (130008 if somebody else has it); the whole block where the network
    /// gives blocks.
    pub(crate) fn take_static(
        &mut self,
        ip: IpAddr,
        prefix: Option<u8>,
        network: &NetworkName,
        who: &Seeker<'_>,
    ) -> Result<(), TaskError> {
        if let Some(holder) = self.holder(&Block::starting(ip, prefix), Some(who.id)) {
            return Err(TaskError::new(
                ErrorCode::NetworkReservationAlreadyInUse,
                format!(
                    "Failed to reserve IP '{}' for instance '{}': already reserved by {}",
                    assigned(ip, prefix),
                    who.label,
                    holder.label
                ),
            ));
        }
        let known = self.held.get(&ip);
        if !known.is_some_and(|h| h.instance.as_ref() == Some(who.id) && h.prefix == prefix) {
            self.take(ip, prefix, network, AddressKind::Static, who);
        }
        Ok(())
    }

    /// Returns the addresses that an instance held in a network before this plan. One that is down, or whose update
    /// failed, may hold some that its spec does not know of yet.
    pub(crate) fn held_before(&self, network: &NetworkName, instance: &InstanceId) -> Vec<IpAddr> {
        let held = self.before.get(instance).into_iter().flatten();
        held.filter(|(of, _)| of == network).map(|(_, ip)| *ip).collect()
    }

    /// Keeps an address that the instance had in this or another network, if this one may give it out.
    pub(crate) fn keep_automatic(&mut self, ip: IpAddr, network: &Network, who: &Seeker<'_>) -> bool {
        let Some(own) = self.held.get(&ip).filter(|h| h.instance.as_ref() == Some(who.id)) else {
            return false;
        };
        let gives = |subnet: &&Subnet| match network.kind {
            NetworkKind::Vip => subnet.is_static(ip),
            _ => subnet.contains(ip) && is_automatic(subnet, ip),
        };
        let serving = network.subnets.iter().filter(|s| s.serves(who.az) && s.prefix == own.prefix);
        serving.into_iter().any(|subnet| gives(&subnet))
    }

    /// Takes the lowest free address in the subnets of the instance's zone (130011 if there is none).
    pub(crate) fn take_automatic(
        &mut self,
        network: &Network,
        who: &Seeker<'_>,
    ) -> Result<IpAddr, TaskError> {
        for (at, subnet) in network.subnets.iter().enumerate().filter(|(_, s)| s.serves(who.az)) {
            if let Some(ip) = self.next_free(network, at, subnet) {
                self.take(ip, subnet.prefix, &network.name, AddressKind::Automatic, who);
                return Ok(ip);
            }
        }
        let kind = if network.kind == NetworkKind::Vip { "vip" } else { "manual" };
        Err(TaskError::new(
            ErrorCode::NetworkReservationNotEnoughCapacity,
            format!(
                "Failed to reserve IP for '{}' for {kind} network '{}': no more available",
                who.label, network.name
            ),
        ))
    }

    /// Returns the first address from which on there is room for what the subnet gives.
    fn next_free(&mut self, network: &Network, at: usize, subnet: &Subnet) -> Option<IpAddr> {
        // A vip network gives out what it lists, every other one what it does not.
        let pools: Vec<Block> = match network.kind {
            NetworkKind::Vip => subnet.statics.clone(),
            _ => subnet.range.iter().map(|(range, _)| *range).collect(),
        };
        let closed = |block: &Block| match network.kind {
            NetworkKind::Vip => None,
            _ => subnet.reserved.iter().chain(&subnet.statics).find(|b| b.overlaps(block)).copied(),
        };
        for (number, pool) in pools.iter().enumerate() {
            let bits = pool.family.bits();
            let host = ip::host_mask(bits.saturating_sub(subnet.prefix.map_or(bits, u32::from)));
            let cursor = (network.name.clone(), at, number);
            let mut from = self.cursors.get(&cursor).copied().unwrap_or(pool.first);
            while let Some(first) = ip::align(from, host).filter(|first| first | host <= pool.last) {
                let wanted = Block { family: pool.family, first, last: first | host };
                // Whole blocks are stepped over at once: a subnet of IPv6 can reserve more than anybody can count to.
                let taken = closed(&wanted).or_else(|| self.holder(&wanted, None).map(|h| h.block));
                let Some(taken) = taken else {
                    self.cursors.insert(cursor, first);
                    return Some(pool.family.address(first));
                };
                match taken.last.checked_add(1) {
                    Some(next) => from = next,
                    None => break,
                }
            }
            self.cursors.insert(cursor, from);
        }
        None
    }

    fn take(
        &mut self,
        ip: IpAddr,
        prefix: Option<u8>,
        network: &NetworkName,
        kind: AddressKind,
        who: &Seeker<'_>,
    ) {
        let slug = who.label.split(' ').next().unwrap_or_default();
        let label = format!("instance '{slug}' from deployment '{}'", who.deployment);
        let block = Block::starting(ip, prefix);
        self.held.insert(ip, Holder { instance: Some(who.id.clone()), label, block, prefix });
        let (network, instance) = (network.clone(), who.id.clone());
        self.new.push(Reservation { ip, network, instance, kind, prefix });
    }
}

/// Returns what an instance is given as messages show it: `10.0.0.5/32`.
fn assigned(ip: IpAddr, prefix: Option<u8>) -> String {
    prefix.map_or_else(|| with_prefix(ip), |prefix| format!("{ip}/{prefix}"))
}

/// Returns whether a subnet gives this address out by itself.
pub(crate) fn is_automatic(subnet: &Subnet, ip: IpAddr) -> bool {
    !subnet.is_reserved(ip) && !subnet.is_static(ip)
}
