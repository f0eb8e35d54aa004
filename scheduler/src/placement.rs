//! Placement without static addresses: which instance goes to, or stays in, which zone.
//!
//! The tie-breaks are BOSH's to the letter: another choice would recreate the VMs of a deployment that moves here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use model::instance::Instance;
use model::manifest::InstanceGroup;
use model::*;

use crate::chance::Ids;

/// An instance that was there before, as placement sees it.
#[derive(Clone, Debug)]
pub(crate) struct Existing<'a> {
    pub(crate) instance: &'a Instance,
    /// Its zone; one that it adopts by migration counts.
    pub(crate) az: Option<AzName>,
    /// Whether it has any disk record: then it is never moved for balance.
    pub(crate) has_disk: bool,
    /// Whether it comes from a group of another name.
    pub(crate) migrated: bool,
}

/// A place in the new group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Position of the instance that takes it in the list of existing ones; none for a new instance.
    pub(crate) existing: Option<usize>,
    pub(crate) az: Option<AzName>,
    /// Addresses by network, for networks with static addresses.
    pub(crate) statics: BTreeMap<NetworkName, IpAddr>,
}

/// Who stays, who comes and who goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) slots: Vec<Slot>,
    /// Positions of existing instances that no slot took.
    pub(crate) obsolete: Vec<usize>,
}

/// Places a group without static addresses. `existing` is in the order of index, and its ignored instances were checked:
/// there is a place for each.
pub(crate) fn place(
    group: &InstanceGroup,
    existing: &[Existing<'_>],
    chance: Option<&mut dyn Ids>,
) -> Placement {
    let mut claimed = BTreeSet::new();
    let mut slots = Vec::with_capacity(group.instances as usize);
    let mut claim = |at: usize, az: Option<AzName>, slots: &mut Vec<Slot>| {
        claimed.insert(at);
        slots.push(Slot { existing: Some(at), az, statics: BTreeMap::new() });
    };
    for (at, known) in existing.iter().enumerate().filter(|(_, e)| e.instance.ignore) {
        claim(at, known.az.clone(), &mut slots);
    }
    if !group.azs.is_empty() {
        for (at, known) in existing.iter().enumerate().filter(|(_, e)| e.has_disk && !e.instance.ignore) {
            if slots.len() == group.instances as usize {
                break;
            }
            if known.az.as_ref().is_some_and(|az| group.azs.contains(az)) {
                claim(at, known.az.clone(), &mut slots);
            }
        }
    }
    let zones = if group.azs.is_empty() { vec![None] } else { group.azs.iter().cloned().map(Some).collect() };
    let mut spread = Spread::new(zones, existing, &claimed, &slots, chance);
    while slots.len() < group.instances as usize {
        let (at, az) = spread.next();
        claimed.extend(at);
        slots.push(Slot { existing: at, az, statics: BTreeMap::new() });
    }
    let obsolete = (0..existing.len()).filter(|at| !claimed.contains(at)).collect();
    Placement { slots, obsolete }
}

/// Fills the remaining slots one by one.
struct Spread<'c> {
    /// Zones by descending number of existing instances, equal ones in manifest order.
    zones: Vec<Zone>,
    chance: Option<&'c mut dyn Ids>,
}

struct Zone {
    name: Option<AzName>,
    placed: usize,
    unclaimed: VecDeque<usize>,
}

impl<'c> Spread<'c> {
    fn new(
        names: Vec<Option<AzName>>,
        existing: &[Existing<'_>],
        claimed: &BTreeSet<usize>,
        slots: &[Slot],
        chance: Option<&'c mut dyn Ids>,
    ) -> Self {
        let mut zones: Vec<(usize, Zone)> = names
            .into_iter()
            .map(|name| {
                let here = |at: &usize| existing[*at].az == name;
                let unclaimed = (0..existing.len()).filter(here).filter(|at| !claimed.contains(at)).collect();
                let placed = slots.iter().filter(|s| s.az == name).count();
                ((0..existing.len()).filter(here).count(), Zone { name, placed, unclaimed })
            })
            .collect();
        zones.sort_by_key(|(known, _)| std::cmp::Reverse(*known));
        Self { zones: zones.into_iter().map(|(_, zone)| zone).collect(), chance }
    }

    fn next(&mut self) -> (Option<usize>, Option<AzName>) {
        let fewest = self.zones.iter().map(|z| z.placed).min().unwrap_or(0);
        let mut tied = (0..self.zones.len()).filter(|i| self.zones[*i].placed == fewest).collect::<Vec<_>>();
        let with_unclaimed = tied.iter().copied().find(|i| !self.zones[*i].unclaimed.is_empty());
        let chosen = with_unclaimed.unwrap_or_else(|| {
            tied.sort_by(|a, b| self.zones[*a].name.cmp(&self.zones[*b].name));
            tied[self.chance.as_mut().map_or(0, |ids| draw(&ids.next(), tied.len()))]
        });
        let zone = &mut self.zones[chosen];
        zone.placed += 1;
        (zone.unclaimed.pop_front(), zone.name.clone())
    }
}

/// Turns a fresh UUID into a number below `bound`.
fn draw(uuid: &str, bound: usize) -> usize {
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    u32::from_str_radix(&digits, 16).map_or(0, |n| n as usize % bound.max(1))
}
