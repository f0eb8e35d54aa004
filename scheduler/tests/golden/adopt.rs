//! Takes over from the recording what was left to chance there, so that the next step starts from the same world.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::instance::{AddressKind, Instance, NetworkKind};
use model::*;
use serde_json::{Value, json};

use super::compare::{Labels, Verdict, list, same, text};
use super::render::render;
use super::world::World;

/// Gives new instances the addresses that the recording gave them, if as a whole they are the same ones.
pub fn addresses(
    world: &mut World,
    labels: &Labels,
    deployment: &DeploymentName,
    recorded: &Value,
) -> Verdict {
    let (mut ours, mut wanted) = (BTreeMap::new(), BTreeMap::new());
    let mut moves: Vec<(InstanceId, IpAddr, IpAddr)> = Vec::new();
    for row in list(&recorded["instances"]).iter().filter(|r| r["vm"].is_string()) {
        let Some(id) = labels.instances.get(&text(&row["instance"])) else { continue };
        let Some(instance) = world.instances.iter().find(|i| i.spec.id == *id) else { continue };
        let mut ips: Vec<IpAddr> = list(&row["ips"]).iter().filter_map(|v| text(v).parse().ok()).collect();
        for settings in instance.spec.networks.iter().filter(|n| n.kind != NetworkKind::Dynamic) {
            let Some(ip) = settings.ip else { continue };
            let mask = settings.netmask.as_ref().and_then(|m| m.parse().ok());
            let near = |other: &IpAddr| same_subnet(ip, *other, mask);
            let exact = ips.iter().position(|o| *o == ip);
            let at = exact.or_else(|| ips.iter().position(near));
            let other =
                at.map(|at| ips.remove(at)).ok_or(format!("{} has no {ip}: {ips:?}", row["instance"]))?;
            *ours.entry(ip).or_insert(0) += 1;
            *wanted.entry(other).or_insert(0) += 1;
            if other != ip {
                if settings.address == AddressKind::Static {
                    return Err(format!("{} has {ip}, not {other}", row["instance"]));
                }
                moves.push((id.clone(), ip, other));
            }
        }
    }
    same("addresses", ours, wanted)?;
    for (id, from, to) in &moves {
        let held = world.addresses.iter_mut().find(|a| a.ip == *from && a.instance.as_ref() == Some(id));
        // Marked, so that a later move cannot take it for an address of its own.
        held.ok_or("an address nobody holds")?.ip = *to;
        let change = |networks: &mut Vec<model::instance::NetworkSettings>| {
            networks.iter_mut().filter(|n| n.ip == Some(*from)).for_each(|n| n.ip = Some(*to));
        };
        world.vms.iter_mut().filter(|v| v.instance == *id).for_each(|v| change(&mut v.networks));
        change(&mut world.instance_mut(id).unwrap().spec.networks);
    }
    if !moves.is_empty() {
        rewrite_links(world, deployment, &moves);
    }
    Ok(())
}

/// Renames our instances so that their UUIDs sort as the recorded ones do: that is the order of updates in a zone.
pub fn ranks(world: &mut World, labels: &mut Labels, recorded: &Value) {
    for row in list(&recorded["instances"]) {
        let (Some(rank), Some(id)) =
            (row["uuid_rank"].as_u64(), labels.instances.get_mut(&text(&row["instance"])))
        else {
            continue;
        };
        let new = InstanceId::new(format!("{rank:08x}{}", &id.as_str()[8..]));
        world.rename(id, &new);
        *id = new;
    }
}

fn same_subnet(a: IpAddr, b: IpAddr, mask: Option<IpAddr>) -> bool {
    match (a, b, mask) {
        (IpAddr::V4(a), IpAddr::V4(b), Some(IpAddr::V4(mask))) => {
            u32::from(a) & u32::from(mask) == u32::from(b) & u32::from(mask)
        }
        _ => false,
    }
}

/// What templates saw of the addresses must follow, or the next deploy would find a difference that is not one.
fn rewrite_links(world: &mut World, deployment: &DeploymentName, moves: &[(InstanceId, IpAddr, IpAddr)]) {
    let rewrite = |value: &mut Value| {
        for member in value["instances"].as_array_mut().into_iter().flatten() {
            for (id, from, to) in moves {
                if member["id"] == id.as_str() && member["address"] == from.to_string() {
                    member["address"] = json!(to.to_string());
                }
            }
        }
    };
    let mut instances = std::mem::take(&mut world.instances);
    for Instance { spec, .. } in instances.iter_mut().filter(|i| i.spec.deployment == *deployment) {
        for job in &mut spec.jobs {
            job.links.values_mut().for_each(rewrite);
        }
        if spec.configuration_hash.is_some() {
            let hashes = render(spec, world);
            spec.configuration_hash = Some(hashes.configuration_hash);
            spec.template_hashes = hashes.template_hashes;
        }
    }
    world.instances = instances;
}
