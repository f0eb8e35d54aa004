//! Numbers in DNS names.

use std::collections::BTreeMap;

use model::dns::DnsSubject;
use model::*;

use super::State;
use crate::kv::Direction;
use crate::tables::*;

/// Returns the counter that a subject's number comes from. Groups and links are told apart by number alone, so they
/// share one.
pub(crate) fn dns_counter(subject: &DnsSubject) -> &'static str {
    match subject {
        DnsSubject::Zone(_) => "dns_zones",
        DnsSubject::Network(_) => "dns_networks",
        DnsSubject::Group(..) | DnsSubject::Link(..) => "dns_groups",
    }
}

/// Under what a subject's number is filed.
pub(crate) fn dns_key(subject: &DnsSubject) -> (DeploymentName, String, String) {
    let key = |deployment: &DeploymentName, kind: &str, name: &str| {
        (deployment.clone(), kind.to_owned(), name.to_owned())
    };
    match subject {
        DnsSubject::Zone(az) => key(&DeploymentName::default(), "zone", az.as_str()),
        DnsSubject::Network(network) => key(&DeploymentName::default(), "network", network.as_str()),
        DnsSubject::Group(deployment, group) => key(deployment, "group", group.as_str()),
        DnsSubject::Link(deployment, link) => key(deployment, "link", link),
    }
}

impl State<'_> {
    /// Returns the number of a subject.
    pub fn dns_number(&self, subject: &DnsSubject) -> Option<u32> {
        DNS_NUMBERS.get(self.kv, &dns_key(subject))
    }

    /// Returns the numbers that those of the subjects that have none yet would get from the next plan.
    pub fn dns_numbers_if_next(&self, subjects: &[DnsSubject]) -> Vec<(DnsSubject, u32)> {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let mut found = Vec::new();
        for subject in subjects.iter().filter(|subject| self.dns_number(subject).is_none()) {
            let counter = dns_counter(subject);
            let given = || COUNTERS.get(self.kv, &counter.to_owned()).unwrap_or_default();
            let number = last.entry(counter).or_insert_with(given);
            *number += 1;
            found.push((subject.clone(), u32::try_from(*number).unwrap_or(u32::MAX)));
        }
        found
    }

    /// Returns the numbers of zones and networks, and those of a deployment's groups and links.
    pub fn dns_numbers(&self, deployment: &DeploymentName) -> Vec<(DnsSubject, u32)> {
        let shared = DNS_NUMBERS.rows_of(self.kv, &DeploymentName::default(), Direction::Forward);
        let own = DNS_NUMBERS.rows_of(self.kv, deployment, Direction::Forward);
        let read = |((deployment, kind, name), number): ((DeploymentName, String, String), u32)| {
            let subject = match kind.as_str() {
                "zone" => DnsSubject::Zone(name.into()),
                "network" => DnsSubject::Network(name.into()),
                "group" => DnsSubject::Group(deployment, name.into()),
                _ => DnsSubject::Link(deployment, name),
            };
            (subject, number)
        };
        shared.chain(own).map(read).collect()
    }
}
