//! Numbers in DNS names, and the records that names are answered from.

use std::collections::{BTreeMap, BTreeSet};

use model::dns::{Alias, DnsSubject, LinkAlias, ProvidedName, Record};
use model::fields::canonical;
use model::instance::{Instance, NetworkSettings};
use model::*;
use serde::Deserialize;

use super::State;
use crate::kv::Direction;
use crate::records::DnsBlob;
use crate::tables::*;

/// Returns the counter that a subject's number comes from. Groups and links are told apart by number alone, so they
/// share one.
pub(crate) fn dns_counter(subject: &DnsSubject) -> &'static str {
    match subject {
        DnsSubject::Zone(_) => "dns_zones",
        DnsSubject::Network(_) => "dns_networks",
        DnsSubject::Group(..) | DnsSubject::Link(..) => "dns_groups",
        DnsSubject::Instance(..) => "dns_instances",
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
        DnsSubject::Instance(deployment, id) => key(deployment, "instance", id.as_str()),
    }
}

/// The records of all instances that have a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsRecords {
    /// One for each network of each instance, by deployment, group, index and id.
    pub records: Vec<Record>,
    /// Other names for links of what was deployed last with success.
    pub aliases: BTreeMap<String, Vec<Alias>>,
    /// What has no number yet, and is without it in the records.
    pub unnumbered: Vec<DnsSubject>,
}

impl DnsRecords {
    fn number(&mut self, known: &BTreeMap<DnsSubject, u32>, subject: DnsSubject) -> Option<String> {
        match known.get(&subject) {
            Some(number) => Some(number.to_string()),
            None => {
                self.unnumbered.push(subject);
                None
            }
        }
    }

    /// Adds the records of an instance. One with a name that DNS can't tell has none; planning has refused it.
    fn add(
        &mut self,
        known: &BTreeMap<DnsSubject, u32>,
        of: &Instance,
        vm: (&AgentId, &[NetworkSettings]),
        domain: &str,
    ) {
        let (spec, (agent, networks)) = (&of.spec, vm);
        let deployment = &spec.deployment;
        let (Ok(group), Ok(label)) = (canonical(spec.group.as_str()), canonical(deployment.as_str())) else {
            return;
        };
        let links: BTreeSet<String> =
            spec.jobs.iter().flat_map(|job| &job.provides).map(|link| link.group_name()).collect();
        let own = DnsSubject::Group(deployment.clone(), spec.group.clone());
        let subjects: Vec<DnsSubject> = [own]
            .into_iter()
            .chain(links.into_iter().map(|link| DnsSubject::Link(deployment.clone(), link)))
            .collect();
        let group_ids: Vec<String> =
            subjects.into_iter().filter_map(|subject| self.number(known, subject)).collect();
        let num_id = self.number(known, DnsSubject::Instance(deployment.clone(), spec.id.clone()));
        let az_id = spec.az.as_ref().and_then(|az| self.number(known, DnsSubject::Zone(az.clone())));
        for settings in networks {
            let (Some(ip), Ok(network)) = (settings.ip, canonical(settings.name.as_str())) else { continue };
            let network_id = self.number(known, DnsSubject::Network(settings.name.clone()));
            self.records.push(Record {
                id: spec.id.to_string(),
                num_id: num_id.clone(),
                group: group.clone(),
                group_ids: group_ids.clone(),
                az: spec.az.as_ref().map(ToString::to_string),
                az_id: az_id.clone(),
                network,
                network_id,
                deployment: label.clone(),
                ip: Some(ip),
                domain: domain.to_owned(),
                agent_id: Some(agent.to_string()),
                index: spec.index,
            });
        }
    }
}

impl State<'_> {
    /// Returns the DNS records of all instances that have a VM. Reads all of them.
    pub fn dns_records(&self, domain: &str) -> DnsRecords {
        let mut found = DnsRecords::default();
        let mut ids: BTreeMap<DeploymentName, Vec<InstanceId>> = BTreeMap::new();
        for ((deployment, id), ()) in INSTANCES_OF.rows(self.kv, Direction::Forward) {
            ids.entry(deployment).or_default().push(id);
        }
        for (deployment, ids) in ids {
            let known: BTreeMap<DnsSubject, u32> = self.dns_numbers(&deployment).into_iter().collect();
            self.add_aliases(&mut found, &known, &deployment, domain);
            let mut instances: Vec<Instance> = ids.iter().filter_map(|id| self.instance(id)).collect();
            instances.retain(|instance| !instance.compilation);
            instances.sort_by(|a, b| {
                let key = |of: &Instance| (of.spec.group.clone(), of.spec.index, of.spec.id.clone());
                key(a).cmp(&key(b))
            });
            for instance in instances {
                let vm = self.active_vm(&instance.spec.id).filter(|vm| vm.is_current() && vm.cid.is_some());
                if let Some(vm) = vm {
                    found.add(&known, &instance, (&vm.agent, &vm.networks), domain);
                }
            }
        }
        found.unnumbered.sort();
        found.unnumbered.dedup();
        found
    }

    /// Adds the aliases of a deployment's links. They are in what the planner keeps of them, which nobody else need understand.
    fn add_aliases(
        &self,
        found: &mut DnsRecords,
        known: &BTreeMap<DnsSubject, u32>,
        of: &DeploymentName,
        domain: &str,
    ) {
        #[derive(Deserialize)]
        struct Links {
            providers: Vec<Provider>,
        }
        #[derive(Deserialize)]
        struct Provider {
            name: String,
            alias: Option<String>,
            kind: String,
            #[serde(default)]
            aliases: Vec<LinkAlias>,
        }
        let links = self.deployment(of).and_then(|deployment| deployment.record).map(|record| record.links);
        let Some(Ok(links)) = links.map(Links::deserialize) else { return };
        for Provider { name, alias, kind, aliases } in links.providers {
            if aliases.is_empty() {
                continue;
            }
            let link = ProvidedName { name: alias.unwrap_or(name), kind };
            let Some(group_id) = found.number(known, DnsSubject::Link(of.clone(), link.group_name())) else {
                continue;
            };
            for LinkAlias { domain: alias, health_filter, initial_health_check, placeholder_type } in aliases
            {
                let target = Alias {
                    root_domain: domain.to_owned(),
                    group_id: group_id.clone(),
                    health_filter,
                    initial_health_check,
                    placeholder_type,
                };
                let targets = found.aliases.entry(alias).or_default();
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
    }

    /// Returns the newest document of DNS records.
    pub fn dns_blob(&self) -> Option<DnsBlob> {
        DNS_BLOBS.rows(self.kv, Direction::Reverse).next().map(|(_, row)| row)
    }

    /// Returns all documents of DNS records, the oldest first.
    pub fn dns_blobs(&self) -> Vec<DnsBlob> {
        DNS_BLOBS.rows(self.kv, Direction::Forward).map(|(_, row)| row).collect()
    }

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

    /// Returns the numbers of zones and networks, and those of a deployment's groups, links and instances.
    pub fn dns_numbers(&self, deployment: &DeploymentName) -> Vec<(DnsSubject, u32)> {
        let shared = DNS_NUMBERS.rows_of(self.kv, &DeploymentName::default(), Direction::Forward);
        let own = DNS_NUMBERS.rows_of(self.kv, deployment, Direction::Forward);
        let read = |((deployment, kind, name), number): ((DeploymentName, String, String), u32)| {
            let subject = match kind.as_str() {
                "zone" => DnsSubject::Zone(name.into()),
                "network" => DnsSubject::Network(name.into()),
                "group" => DnsSubject::Group(deployment, name.into()),
                "instance" => DnsSubject::Instance(deployment, name.into()),
                _ => DnsSubject::Link(deployment, name),
            };
            (subject, number)
        };
        shared.chain(own).map(read).collect()
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
