//! Numbers in DNS names: given once, by kind, and never to anything else.

use model::DeploymentName;
use model::dns::DnsSubject;

use super::tx::Tx;
use crate::query::{dns_counter, dns_key};
use crate::tables::*;

/// Gives a number to whatever has none yet.
pub(super) fn number(tx: &mut Tx<'_>, subjects: &[DnsSubject]) {
    for subject in subjects {
        let key = dns_key(subject);
        if tx.has(&DNS_NUMBERS, &key) {
            continue;
        }
        let number = u32::try_from(tx.next_number(dns_counter(subject))).unwrap_or(u32::MAX);
        tx.put(&DNS_NUMBERS, &key, &number);
    }
}

/// Forgets the numbers of a deployment's groups and links. Nobody else will get them.
pub(super) fn forget(tx: &mut Tx<'_>, deployment: &DeploymentName) {
    tx.delete_of(&DNS_NUMBERS, deployment);
}
