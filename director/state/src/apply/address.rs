//! Addresses: each has one holder in the whole director.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::instance::Vm;
use model::ip::Block;
use model::plan::Reservation;
use model::*;

use super::tx::Tx;
use crate::command::Refusal;
use crate::records::AddressRecord;
use crate::tables::*;

/// Takes an address, or the block that begins there, for an instance; fine if the instance holds it already.
pub(super) fn reserve(
    tx: &mut Tx<'_>,
    wanted: &Reservation,
    deployment: DeploymentName,
    slug: String,
) -> Result<(), Refusal> {
    if let Some(holder) = holder(tx, wanted) {
        return Err(Refusal::AddressTaken { ip: wanted.ip, holder: holder.slug });
    }
    let record = AddressRecord {
        ip: wanted.ip,
        prefix: wanted.prefix,
        network: wanted.network.clone(),
        kind: wanted.kind,
        instance: wanted.instance.clone(),
        deployment,
        slug,
        orphan: None,
    };
    tx.put(&ADDRESSES, &wanted.ip, &record);
    tx.put(&ADDRESSES_OF, &(wanted.instance.clone(), wanted.ip), &());
    Ok(())
}

/// Returns another instance's hold on any of these addresses. Of the rows before, only the last can reach that far:
/// no two holders overlap. (One instance's may, while it changes from addresses to blocks.)
fn holder(tx: &Tx<'_>, wanted: &Reservation) -> Option<AddressRecord> {
    let block = Block::starting(wanted.ip, wanted.prefix);
    let last = block.family.address(block.last);
    let others = |held: &AddressRecord| held.orphan.is_some() || held.instance != wanted.instance;
    let before = tx.rows_before(&ADDRESSES, &wanted.ip).map(|(_, held)| held).find(others);
    let within =
        tx.rows_from(&ADDRESSES, &wanted.ip).map(|(_, held)| held).take_while(|held| held.ip <= last);
    let mut nearby = before.into_iter().chain(within).filter(others);
    nearby.find(|held| Block::starting(held.ip, held.prefix).overlaps(&block))
}

/// Leaves the addresses of an instance's VM to the VM alone.
pub(super) fn leave_to_orphan(tx: &mut Tx<'_>, vm: &Vm) {
    for ip in vm.networks.iter().filter_map(|network| network.ip) {
        let held = tx.get(&ADDRESSES, &ip);
        if let Some(held) = held.filter(|held| held.orphan.is_none() && held.instance == vm.instance) {
            tx.delete(&ADDRESSES_OF, &(vm.instance.clone(), ip));
            tx.put(&ADDRESSES, &ip, &AddressRecord { orphan: Some(vm.agent.clone()), ..held });
        }
    }
}

/// Frees the addresses of an orphaned VM.
pub(super) fn release_orphan(tx: &mut Tx<'_>, vm: &Vm) {
    for ip in vm.networks.iter().filter_map(|network| network.ip) {
        if tx.get(&ADDRESSES, &ip).is_some_and(|held| held.orphan.as_ref() == Some(&vm.agent)) {
            tx.delete(&ADDRESSES, &ip);
        }
    }
}

/// Frees an instance's addresses except those in `kept`.
pub(super) fn release(tx: &mut Tx<'_>, instance: &InstanceId, kept: &BTreeSet<IpAddr>) {
    let held: Vec<IpAddr> = tx.rows_of(&ADDRESSES_OF, instance).map(|((_, ip), ())| ip).collect();
    for ip in held.into_iter().filter(|ip| !kept.contains(ip)) {
        tx.delete(&ADDRESSES, &ip);
        tx.delete(&ADDRESSES_OF, &(instance.clone(), ip));
    }
}
