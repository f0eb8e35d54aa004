//! When a deploy must be refused: said again in other words than the planner's, from the world and the manifest alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::instance::Instance;

use super::made_up::{Group, Statics};
use super::world::World;

/// Returns the numbers by which a deploy may be refused; none if it must be planned.
pub fn expected(world: &World, groups: &[Group]) -> BTreeSet<u32> {
    let mut codes = BTreeSet::new();
    let mut seen: BTreeSet<IpAddr> = BTreeSet::new();
    for (at, group) in groups.iter().enumerate() {
        let (name, before) = (group.name(at), group.other_name(at));
        let is_member = |i: &Instance| [name.as_str(), before.as_str()].contains(&i.spec.group.as_str());
        let members: Vec<&Instance> = world.instances.iter().filter(|i| is_member(i)).collect();
        let mut holders = BTreeSet::new();
        for ip in group.listed(at) {
            // An address has one holder, and changes hands only by way of being nobody's.
            let twice = !seen.insert(ip);
            let holder = world.addresses.iter().find(|a| a.ip == ip).and_then(|a| a.instance.as_ref());
            let member = members.iter().find(|i| holder == Some(&i.spec.id));
            // Whoever is down holds both what it had and what it will have; it can keep but one of them.
            let has_another = member.is_some() && !holders.insert(holder);
            if twice || has_another || (holder.is_some() && member.is_none()) {
                codes.insert(130008);
            }
            // Whoever has a listed address keeps it, so it must be where the address may be.
            if member.is_some_and(|i| !in_zone(i, group)) {
                codes.insert(130010);
            }
        }
        if spoils_ignored(&members, group, at) {
            codes.insert(190020);
        }
    }
    let is_wanted = |i: &Instance| {
        let mut names = groups.iter().enumerate().flat_map(|(at, g)| [g.name(at), g.other_name(at)]);
        names.any(|name| i.spec.group.as_str() == name)
    };
    if world.instances.iter().any(|i| i.ignore && !is_wanted(i)) {
        codes.insert(190021);
    }
    codes
}

fn in_zone(instance: &Instance, group: &Group) -> bool {
    instance.spec.az.as_ref().is_some_and(|az| group.zones().contains(&az.to_string()))
}

/// Whether an ignored instance would lose its place, its zone, a network or an address.
fn spoils_ignored(members: &[&Instance], group: &Group, at: usize) -> bool {
    let ignored: Vec<&&Instance> = members.iter().filter(|i| i.ignore).collect();
    let networks: BTreeSet<&str> = group.more.iter().copied().chain(["a"]).collect();
    let listed = group.listed(at);
    let spoiled = |i: &Instance| {
        let has: BTreeSet<&str> = i.spec.networks.iter().map(|n| n.name.as_str()).collect();
        let own = i.spec.networks.iter().find(|n| n.name.as_str() == "a").and_then(|n| n.ip);
        let unlisted = group.statics != Statics::Picked && !own.is_some_and(|ip| listed.contains(&ip));
        !in_zone(i, group) || has != networks || unlisted
    };
    ignored.len() > group.instances || ignored.into_iter().any(|i| spoiled(i))
}

/// Takes the marks off ignored instances whose group would get its other name: what happens to those is nobody's
/// promise.
pub fn forget_marks_of_renamed(world: &mut World, groups: &[Group]) {
    let others: Vec<String> = groups.iter().enumerate().map(|(at, g)| g.other_name(at)).collect();
    for instance in &mut world.instances {
        instance.ignore &= !others.iter().any(|name| instance.spec.group.as_str() == name);
    }
}
