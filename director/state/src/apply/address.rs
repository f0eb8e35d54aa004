//! Addresses: each has one holder in the whole director.

use std::collections::BTreeSet;
use std::net::IpAddr;

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
    let others = |held: &AddressRecord| held.instance != wanted.instance;
    let before = tx.rows_before(&ADDRESSES, &wanted.ip).map(|(_, held)| held).find(others);
    let within =
        tx.rows_from(&ADDRESSES, &wanted.ip).map(|(_, held)| held).take_while(|held| held.ip <= last);
    let mut nearby = before.into_iter().chain(within).filter(others);
    nearby.find(|held| Block::starting(held.ip, held.prefix).overlaps(&block))
}

/// Frees an instance's addresses except those in `kept`.
pub(super) fn release(tx: &mut Tx<'_>, instance: &InstanceId, kept: &BTreeSet<IpAddr>) {
    let held: Vec<IpAddr> = tx.rows_of(&ADDRESSES_OF, instance).map(|((_, ip), ())| ip).collect();
    for ip in held.into_iter().filter(|ip| !kept.contains(ip)) {
        tx.delete(&ADDRESSES, &ip);
        tx.delete(&ADDRESSES_OF, &(instance.clone(), ip));
    }
}
