//! Listed addresses of subnets that span several zones: which zone each of them serves.
//!
//! All networks of a group must offer every zone equally many addresses. One network, the most constrained, leads: its
//! addresses are dealt out by trial, the emptiest zone first, and for the others a matching shows whether they can
//! follow.

use std::collections::BTreeSet;

use model::AzName;

use crate::statics::List;

/// Dead ends after which the search gives up. Few lists have any; one made to have many must not stop the planner.
const DEAD_ENDS_MAX: usize = 50_000;

/// How many addresses serve each zone, by the zone's position.
type Counts = Vec<usize>;

/// A network's addresses by number.
struct Supply {
    /// Addresses that serve one zone only.
    fixed: Counts,
    /// The zones that each of the others could serve.
    open: Vec<Vec<usize>>,
}

/// Fixes every address to one zone so that all lists agree; changes nothing and returns false if that is impossible.
pub(crate) fn settle(lists: &mut [List<'_>]) -> bool {
    let mut zones: Vec<Option<AzName>> = Vec::new();
    for az in lists.iter().flat_map(|l| &l.listed).flat_map(|l| &l.azs) {
        if !zones.contains(az) {
            zones.push(az.clone());
        }
    }
    let supplies: Vec<Supply> = lists.iter().map(|list| Supply::of(list, &zones)).collect();
    let Some(choices) = search(&supplies) else { return false };
    for (list, chosen) in lists.iter_mut().zip(choices) {
        let open = list.listed.iter_mut().filter(|l| l.azs.len() > 1);
        open.zip(chosen).for_each(|(entry, zone)| entry.azs = vec![zones[zone].clone()]);
    }
    true
}

impl Supply {
    fn of(list: &List<'_>, zones: &[Option<AzName>]) -> Self {
        let mut supply = Self { fixed: vec![0; zones.len()], open: Vec::new() };
        for entry in &list.listed {
            let serves: Vec<usize> =
                entry.azs.iter().filter_map(|az| zones.iter().position(|z| z == az)).collect();
            match serves[..] {
                [zone] => supply.fixed[zone] += 1,
                _ => supply.open.push(serves),
            }
        }
        supply
    }

    /// The most addresses that could serve a zone.
    fn most(&self, zone: usize) -> usize {
        self.fixed[zone] + self.open.iter().filter(|zones| zones.contains(&zone)).count()
    }

    /// Finds a zone for every open address so that each zone has as many as `wanted`.
    fn follow(&self, wanted: &Counts) -> Option<Vec<usize>> {
        let mut room = Vec::with_capacity(wanted.len());
        for (wanted, fixed) in wanted.iter().zip(&self.fixed) {
            room.push(wanted.checked_sub(*fixed)?);
        }
        let mut matching = Matching { open: &self.open, room, at: vec![Vec::new(); wanted.len()] };
        for address in 0..self.open.len() {
            matching.place(address, &mut BTreeSet::new()).then_some(())?;
        }
        let mut chosen = vec![0; self.open.len()];
        for (zone, addresses) in matching.at.iter().enumerate() {
            addresses.iter().for_each(|address| chosen[*address] = zone);
        }
        Some(chosen)
    }
}

/// Open addresses at zones with limited room.
struct Matching<'a> {
    open: &'a [Vec<usize>],
    room: Counts,
    at: Vec<Vec<usize>>,
}

impl Matching<'_> {
    /// Finds a zone for an address, if need be by moving another one on. No deeper than there are zones.
    fn place(&mut self, address: usize, tried: &mut BTreeSet<usize>) -> bool {
        let open = self.open;
        let mut zones = open[address].clone();
        zones.sort_by_key(|zone| self.at[*zone].len());
        if let Some(zone) = zones.iter().find(|zone| self.at[**zone].len() < self.room[**zone]) {
            self.at[*zone].push(address);
            return true;
        }
        for zone in zones {
            if !tried.insert(zone) {
                continue;
            }
            for position in 0..self.at[zone].len() {
                if self.place(self.at[zone][position], tried) {
                    self.at[zone][position] = address;
                    return true;
                }
            }
        }
        false
    }
}

/// Returns a zone for each open address of each network.
fn search(supplies: &[Supply]) -> Option<Vec<Vec<usize>>> {
    let leader = (0..supplies.len()).min_by_key(|at| supplies[*at].open.len())?;
    let leading = &supplies[leader];
    let others = || supplies.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, supply)| supply);
    // More than the others can have in a zone makes no sense.
    let most: Counts = (0..leading.fixed.len())
        .map(|zone| others().map(|other| other.most(zone)).min().unwrap_or(usize::MAX))
        .collect();
    let mut counts = leading.fixed.clone();
    let mut chosen: Vec<usize> = Vec::new();
    // What has not been tried yet, for each address so far and the next one.
    let mut untried: Vec<Vec<usize>> = vec![emptiest_last(leading, 0, &counts)];
    let mut dead_ends: BTreeSet<(usize, Counts)> = BTreeSet::new();
    loop {
        if chosen.len() == leading.open.len() {
            let follow = |(at, supply): (usize, &Supply)| match at == leader {
                true => Some(chosen.clone()),
                false => supply.follow(&counts),
            };
            if let Some(choices) = supplies.iter().enumerate().map(follow).collect() {
                return Some(choices);
            }
        }
        let next = untried.last_mut().and_then(Vec::pop);
        match next {
            Some(zone) if counts[zone] < most[zone] => {
                counts[zone] += 1;
                if dead_ends.contains(&(chosen.len() + 1, counts.clone())) {
                    counts[zone] -= 1;
                    continue;
                }
                chosen.push(zone);
                untried.push(emptiest_last(leading, chosen.len(), &counts));
            }
            Some(_) => {}
            None => {
                dead_ends.insert((chosen.len(), counts.clone()));
                untried.pop();
                counts[chosen.pop().filter(|_| dead_ends.len() < DEAD_ENDS_MAX)?] -= 1;
            }
        }
    }
}

/// The zones that the address at `at` could serve, the one to try first at the end.
fn emptiest_last(supply: &Supply, at: usize, counts: &Counts) -> Vec<usize> {
    let mut zones = supply.open.get(at).cloned().unwrap_or_default();
    zones.reverse();
    zones.sort_by_key(|zone| std::cmp::Reverse(counts[*zone]));
    zones
}
