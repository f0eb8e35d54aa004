//! Addresses: who holds which in the whole director, and the next free one (`spec/manifest.md` §6.4).
//!
//! Invariant: an address is given to one instance, whatever network it is taken in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::cloud_config::{Network, Subnet};
use model::instance::AddressKind;
use model::manifest::network::with_prefix;
use model::plan::Reservation;
use model::task::TaskError;
use model::*;

use crate::input::HeldAddress;

struct Holder {
    instance: Option<InstanceId>,
    label: String,
}

/// Everything that is held, and what this plan adds.
pub(crate) struct AddressBook {
    held: BTreeMap<IpAddr, Holder>,
    /// How far each subnet was searched: addresses are never given back while planning.
    cursors: BTreeMap<(NetworkName, usize), u128>,
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

impl AddressBook {
    pub(crate) fn new(held: &[HeldAddress]) -> Self {
        let holder = |h: &HeldAddress| {
            let label = match &h.instance {
                Some(_) => format!("instance '{}' from deployment '{}'", h.holder, h.deployment),
                None => format!("orphaned instance '{}' from deployment '{}'", h.holder, h.deployment),
            };
            Holder { instance: h.instance.clone(), label }
        };
        Self {
            held: held.iter().map(|h| (h.ip, holder(h))).collect(),
            cursors: BTreeMap::new(),
            new: Vec::new(),
        }
    }

    /// Returns the addresses that were taken since.
    pub(crate) fn into_reservations(self) -> Vec<Reservation> {
        self.new
    }

    /// Takes an address that the manifest names (130008 if somebody else has it).
    pub(crate) fn take_static(
        &mut self,
        ip: IpAddr,
        network: &NetworkName,
        who: &Seeker<'_>,
    ) -> Result<(), TaskError> {
        match self.held.get(&ip) {
            Some(holder) if holder.instance.as_ref() == Some(who.id) => Ok(()),
            Some(holder) => Err(TaskError::new(
                ErrorCode::NetworkReservationAlreadyInUse,
                format!(
                    "Failed to reserve IP '{}' for instance '{}': already reserved by {}",
                    with_prefix(ip),
                    who.label,
                    holder.label
                ),
            )),
            None => {
                self.take(ip, network, AddressKind::Static, who);
                Ok(())
            }
        }
    }

    /// Keeps an address that the instance had in this or another network, if this one may give it out.
    pub(crate) fn keep_automatic(&mut self, ip: IpAddr, network: &Network, who: &Seeker<'_>) -> bool {
        let own = self.held.get(&ip).is_some_and(|h| h.instance.as_ref() == Some(who.id));
        let subnet = network.subnets.iter().find(|s| s.contains(ip) && s.serves(who.az));
        own && subnet.is_some_and(|s| is_automatic(s, ip))
    }

    /// Takes the lowest free address in the subnets of the instance's zone (130011 if there is none).
    pub(crate) fn take_automatic(
        &mut self,
        network: &Network,
        who: &Seeker<'_>,
    ) -> Result<(IpAddr, usize), TaskError> {
        for (at, subnet) in network.subnets.iter().enumerate().filter(|(_, s)| s.serves(who.az)) {
            if let Some(ip) = self.next_free(network, at, subnet) {
                self.take(ip, &network.name, AddressKind::Automatic, who);
                return Ok((ip, at));
            }
        }
        Err(TaskError::new(
            ErrorCode::NetworkReservationNotEnoughCapacity,
            format!(
                "Failed to reserve IP for '{}' for manual network '{}': no more available",
                who.label, network.name
            ),
        ))
    }

    fn next_free(&mut self, network: &Network, at: usize, subnet: &Subnet) -> Option<IpAddr> {
        let (range, _) = subnet.range?;
        let cursor = self.cursors.entry((network.name.clone(), at)).or_insert(range.first);
        while *cursor <= range.last {
            let ip = range.family.address(*cursor);
            // Whole blocks are stepped over at once: a subnet of IPv6 can reserve more than anybody can count to.
            let blocked = subnet.reserved.iter().chain(&subnet.statics).find(|b| b.contains(ip));
            match blocked {
                Some(block) => *cursor = block.last.checked_add(1)?,
                None if self.held.contains_key(&ip) => *cursor += 1,
                None => return Some(ip),
            }
        }
        None
    }

    fn take(&mut self, ip: IpAddr, network: &NetworkName, kind: AddressKind, who: &Seeker<'_>) {
        let slug = who.label.split(' ').next().unwrap_or_default();
        let label = format!("instance '{slug}' from deployment '{}'", who.deployment);
        self.held.insert(ip, Holder { instance: Some(who.id.clone()), label });
        self.new.push(Reservation { ip, network: network.clone(), instance: who.id.clone(), kind });
    }
}

/// Returns whether a subnet gives this address out by itself.
pub(crate) fn is_automatic(subnet: &Subnet, ip: IpAddr) -> bool {
    !subnet.is_reserved(ip) && !subnet.is_static(ip)
}
