//! Ignored instances: what a deploy must leave as it is about them.

use std::collections::BTreeSet;

use model::instance::{NetworkKind, NetworkSettings};
use model::manifest::InstanceGroup;
use model::manifest::network::with_prefix;
use model::task::TaskError;
use model::*;

use crate::placement::Existing;

/// Refuses changes that would take an ignored instance, its zone, networks or addresses away (190020).
pub(crate) fn check(group: &InstanceGroup, existing: &[Existing<'_>]) -> Result<(), TaskError> {
    let ignored: Vec<&Existing<'_>> = existing.iter().filter(|e| e.instance.ignore).collect();
    check_places(group, &ignored)?;
    check_networks(group, &ignored)?;
    check_addresses(group, &ignored)
}

fn refused(message: String) -> TaskError {
    TaskError::new(ErrorCode::DeploymentIgnoredInstancesModification, message)
}

fn check_places(group: &InstanceGroup, ignored: &[&Existing<'_>]) -> Result<(), TaskError> {
    if ignored.len() > group.instances as usize {
        return Err(refused(format!(
            "Instance Group '{}' has {} ignored instance(s). {} instance(s) of that instance group were requested. Deleting ignored instances is not allowed.",
            group.name,
            ignored.len(),
            group.instances
        )));
    }
    let gone: BTreeSet<&str> = ignored
        .iter()
        .filter_map(|e| e.az.as_ref())
        .filter(|az| !group.azs.contains(az))
        .map(AzName::as_str)
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "Instance Group '{}' no longer contains AZs {:?} where ignored instance(s) exist.",
        group.name,
        gone.iter().collect::<Vec<_>>()
    )))
}

fn check_networks(group: &InstanceGroup, ignored: &[&Existing<'_>]) -> Result<(), TaskError> {
    let wanted: BTreeSet<&NetworkName> = group.networks.iter().map(|n| &n.name).collect();
    let differs = |e: &&&Existing<'_>| {
        let has: BTreeSet<&NetworkName> = e.instance.spec.networks.iter().map(|n| &n.name).collect();
        has != wanted
    };
    match ignored.iter().find(differs) {
        Some(_) => Err(refused(format!(
            "In instance group '{}', which contains ignored vms, an attempt was made to modify the networks. This operation is not allowed.",
            group.name
        ))),
        None => Ok(()),
    }
}

/// Where addresses are listed, the lists must still have those of ignored instances.
fn check_addresses(group: &InstanceGroup, ignored: &[&Existing<'_>]) -> Result<(), TaskError> {
    let is_lost = |settings: &&NetworkSettings| {
        let mut entries = group.networks.iter().filter(|n| n.name == settings.name);
        let listed = |ips: &Vec<std::net::IpAddr>| {
            settings.kind != NetworkKind::Dynamic && settings.ip.is_some_and(|ip| ips.contains(&ip))
        };
        !entries.any(|entry| entry.static_ips.as_ref().is_none_or(listed))
    };
    for known in ignored {
        if let Some(lost) = known.instance.spec.networks.iter().find(is_lost) {
            return Err(refused(format!(
                "In instance group '{}', the static IPs of network '{}' no longer list '{}', which the ignored instance '{}' uses. This operation is not allowed.",
                group.name,
                lost.name,
                lost.ip.map(with_prefix).unwrap_or_default(),
                known.instance.slug()
            )));
        }
    }
    Ok(())
}
