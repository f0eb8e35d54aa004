//! Numbers in DNS names, given once, by kind, and never to anything else; and the documents that agents are given.

use std::collections::BTreeSet;

use model::dns::DnsSubject;
use model::*;

use super::tx::{Tx, invalid};
use crate::command::{DNS_BLOBS_KEPT, Outcome, Refusal};
use crate::query::{dns_counter, dns_key};
use crate::records::DnsBlob;
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

/// `DnsNumber`. What is of a deployment that was deleted meanwhile gets none: nobody would ever take it back. Instances may be
/// ones that are only planned.
pub(super) fn number_those_there(
    tx: &mut Tx<'_>,
    epoch: Epoch,
    subjects: &[DnsSubject],
) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let is_there = |subject: &&DnsSubject| match subject {
        DnsSubject::Zone(_) | DnsSubject::Network(_) => true,
        DnsSubject::Group(deployment, _)
        | DnsSubject::Link(deployment, _)
        | DnsSubject::Instance(deployment, _) => tx.has(&DEPLOYMENTS, deployment),
    };
    let there: Vec<DnsSubject> = subjects.iter().filter(is_there).cloned().collect();
    number(tx, &there);
    Ok(Outcome::Done)
}

/// Forgets the numbers of a deployment's groups, links and instances. Nobody else will get them.
pub(super) fn forget(tx: &mut Tx<'_>, deployment: &DeploymentName) {
    tx.delete_of(&DNS_NUMBERS, deployment);
}

/// Forgets the number of an instance.
pub(super) fn forget_instance(tx: &mut Tx<'_>, deployment: &DeploymentName, id: &InstanceId) {
    tx.delete(&DNS_NUMBERS, &dns_key(&DnsSubject::Instance(deployment.clone(), id.clone())));
}

/// `DnsPut`. Said again, it is fine.
pub(super) fn put(
    tx: &mut Tx<'_>,
    epoch: Epoch,
    (version, content, blob): (u64, &str, &BlobDigest),
) -> Result<Outcome, Refusal> {
    tx.fence(epoch)?;
    let last = tx.state().dns_blob();
    match &last {
        Some(last) if (last.version, &last.blob) == (version, blob) => return Ok(Outcome::Done),
        _ if version == last.as_ref().map_or(0, |last| last.version) + 1 => {}
        _ => return Err(invalid("version of DNS records", "it does not follow the last one")),
    }
    let row = DnsBlob { version, content: content.to_owned(), blob: blob.clone(), at: tx.at };
    tx.put(&DNS_BLOBS, &version, &row);
    Ok(Outcome::Done)
}

/// `DnsForget`. The blob of one that stays may be that of one that goes only by a defect; it stays then.
pub(super) fn forget_blobs(
    tx: &mut Tx<'_>,
    blobs: &[BlobDigest],
    before: Timestamp,
) -> Result<Outcome, Refusal> {
    let asked: BTreeSet<&BlobDigest> = blobs.iter().collect();
    let all = tx.state().dns_blobs();
    let old = all.len().saturating_sub(DNS_BLOBS_KEPT);
    let (old, kept) = all.split_at(old);
    for row in old.iter().filter(|row| row.at <= before && asked.contains(&row.blob)) {
        tx.delete(&DNS_BLOBS, &row.version);
        if kept.iter().all(|kept| kept.blob != row.blob) {
            tx.delete(&BLOBS, &row.blob);
        }
    }
    Ok(Outcome::Done)
}
