//! Networks that directors have made: filed before a cloud is asked, used by deployments, orphaned when nobody uses them,
//! retired before they are deleted.

use std::collections::BTreeMap;

use model::instance::NetworkKind;
use model::managed_network::{MadeSubnet, ManagedNetwork, ManagedSubnet};
use model::*;
use serde_json::Value;

use super::event::{Audit, audit};
use super::task;
use super::tx::{Tx, invalid, not_found};
use crate::command::{Outcome, Refusal};
use crate::records::SubnetIntent;
use crate::rows::TaskRow;
use crate::tables::*;

/// `NetworkTake`.
pub(super) fn take(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    name: &NetworkName,
    subnets: &[SubnetIntent],
) -> Result<Outcome, Refusal> {
    let task = task::working(tx, by)?;
    let Some(deployment) = task.deployment.clone().filter(|deployment| tx.has(&DEPLOYMENTS, deployment))
    else {
        return Err(invalid(format!("network {name}"), "only deployments use networks"));
    };
    if !tx.state().makes_networks() {
        return Err(invalid(format!("network {name}"), "directors make none"));
    }
    let known = tx.get(&NETWORKS, name);
    let is_new = known.is_none();
    let mut network = known.unwrap_or_else(|| ManagedNetwork {
        name: name.clone(),
        kind: NetworkKind::Manual,
        created_at: tx.at,
        deployments: Default::default(),
        orphaned_at: None,
        retired_by: None,
        subnets: Vec::new(),
    });
    if let Some(other) = tx.state().at_work_on(&network, task.id) {
        let by = format!("task {other}");
        return Err(Refusal::InUse { what: "network".into(), name: name.to_string(), by });
    }
    if network.retired_by.is_some() {
        return Err(invalid(format!("network {name}"), "its deletion was begun, and has not ended"));
    }
    network.deployments.insert(deployment);
    let was_orphaned = network.orphaned_at.take().is_some();
    for intent in subnets {
        match network.subnets.iter_mut().find(|subnet| subnet.name == intent.name) {
            Some(subnet) if subnet.made.is_none() => subnet.task = task.id,
            Some(_) => {}
            None => network.subnets.push(ManagedSubnet {
                name: intent.name.clone(),
                id: intent.id.clone(),
                cpi: intent.cpi.clone(),
                task: task.id,
                made: None,
            }),
        }
    }
    tx.put(&NETWORKS, name, &network);
    if is_new || was_orphaned {
        tell(tx, &task, if is_new { "create" } else { "unorphan" }, NETWORK, name.to_string(), None);
    }
    Ok(Outcome::Done)
}

/// `SubnetPut`. A subnet that is not there (any more) is fine only if it is to go: the first answer may have been lost.
pub(super) fn subnet_put(
    tx: &mut Tx<'_>,
    by: (TaskId, Epoch),
    (name, id): (&NetworkName, &SubnetId),
    made: Option<&MadeSubnet>,
) -> Result<Outcome, Refusal> {
    let task = task::working(tx, by)?;
    let mut network = match (tx.get(&NETWORKS, name), made) {
        (Some(network), _) => network,
        (None, None) => return Ok(Outcome::Done),
        (None, Some(_)) => return Err(not_found(NETWORK, name.as_str())),
    };
    let Some(at) = network.subnets.iter().position(|subnet| subnet.id == *id) else {
        return if made.is_none() { Ok(Outcome::Done) } else { Err(not_found(SUBNET, id.as_str())) };
    };
    let full_name = format!("{name}/{}", network.subnets[at].name);
    match made {
        Some(made) if network.subnets[at].made.as_ref() == Some(made) => return Ok(Outcome::Done),
        Some(made) => {
            network.subnets[at].made = Some(made.clone());
            tell(tx, &task, "create", SUBNET, full_name, Some(&made.cid));
        }
        None => {
            let gone = network.subnets.remove(at);
            if let Some(made) = &gone.made {
                tell(tx, &task, "delete", SUBNET, full_name, Some(&made.cid));
            }
        }
    }
    match network.subnets.is_empty() && network.retired_by.is_some() {
        true => {
            tx.delete(&NETWORKS, name);
            tell(tx, &task, "delete", NETWORK, name.to_string(), None);
        }
        false => tx.put(&NETWORKS, name, &network),
    }
    Ok(Outcome::Done)
}

/// `NetworkRetire`.
pub(super) fn retire(tx: &mut Tx<'_>, by: (TaskId, Epoch), name: &NetworkName) -> Result<Outcome, Refusal> {
    let task = task::working(tx, by)?;
    let mut network = tx.need(&NETWORKS, name, NETWORK)?;
    let in_use = |by: String| Refusal::InUse { what: NETWORK.into(), name: name.to_string(), by };
    if let Some(deployment) = network.deployments.first() {
        return Err(in_use(format!("deployment {deployment}")));
    }
    if let Some(other) = tx.state().at_work_on(&network, task.id) {
        return Err(in_use(format!("task {other}")));
    }
    // Somebody may have taken the word `managed` away, or a VM may be an orphan that keeps its addresses.
    if let Some((_, held)) = tx.rows(&ADDRESSES).find(|(_, held)| held.network == *name) {
        return Err(in_use(format!("{} with address {}", held.slug, held.ip)));
    }
    match network.subnets.is_empty() {
        true => {
            tx.delete(&NETWORKS, name);
            tell(tx, &task, "delete", NETWORK, name.to_string(), None);
        }
        false => {
            network.retired_by = Some(task.id);
            tx.put(&NETWORKS, name, &network);
        }
    }
    Ok(Outcome::Done)
}

/// A deployment uses these networks from here on, and no others.
pub(super) fn keep_only(tx: &mut Tx<'_>, task: &TaskRow, deployment: &DeploymentName, used: &[NetworkName]) {
    let is_left =
        |network: &ManagedNetwork| network.deployments.contains(deployment) && !used.contains(&network.name);
    let left: Vec<ManagedNetwork> = tx.rows(&NETWORKS).map(|(_, network)| network).filter(is_left).collect();
    for mut network in left {
        network.deployments.remove(deployment);
        if network.deployments.is_empty() {
            network.orphaned_at = Some(tx.at);
            for subnet in &network.subnets {
                let cid = subnet.made.as_ref().map(|made| &made.cid);
                tell(tx, task, "orphan", SUBNET, format!("{}/{}", network.name, subnet.name), cid);
            }
            tell(tx, task, "orphan", NETWORK, network.name.to_string(), None);
        }
        tx.put(&NETWORKS, &network.name.clone(), &network);
    }
}

const NETWORK: &str = "network";
const SUBNET: &str = "subnet";

fn tell(
    tx: &mut Tx<'_>,
    task: &TaskRow,
    action: &str,
    object_type: &str,
    name: String,
    cid: Option<&SubnetCid>,
) {
    let cid = cid.map(|cid| ("cid".to_owned(), Value::from(cid.as_str())));
    let context: BTreeMap<String, Value> = cid.into_iter().collect();
    let object_name = Some(name);
    audit(tx, Audit { task: Some(task), action, object_type, object_name, context, ..Audit::default() });
}
