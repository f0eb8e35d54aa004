//! Addresses: each has one holder in the whole director.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::plan::Reservation;
use model::*;

use super::tx::Tx;
use crate::command::Refusal;
use crate::records::AddressRecord;
use crate::tables::*;

/// Takes an address for an instance; fine if the instance holds it already.
pub(super) fn reserve(
    tx: &mut Tx<'_>,
    wanted: &Reservation,
    deployment: DeploymentName,
    slug: String,
) -> Result<(), Refusal> {
    let held = tx.get(&ADDRESSES, &wanted.ip);
    if let Some(holder) = held.filter(|held| held.instance != wanted.instance) {
        return Err(Refusal::AddressTaken { ip: wanted.ip, holder: holder.slug });
    }
    let record = AddressRecord {
        ip: wanted.ip,
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

/// Frees an instance's addresses except those in `kept`.
pub(super) fn release(tx: &mut Tx<'_>, instance: &InstanceId, kept: &BTreeSet<IpAddr>) {
    let held: Vec<IpAddr> = tx.rows_of(&ADDRESSES_OF, instance).map(|((_, ip), ())| ip).collect();
    for ip in held.into_iter().filter(|ip| !kept.contains(ip)) {
        tx.delete(&ADDRESSES, &ip);
        tx.delete(&ADDRESSES_OF, &(instance.clone(), ip));
    }
}
