//! Numbers in DNS names, as templates see them: `link('x').address(azs: […])`, and `.bosh/links.json`.
//!
//! Not here: giving numbers, which the state does when it accepts a plan. Until then a plan is rendered with the numbers
//! that it would get if it were accepted next.

use std::collections::{BTreeMap, BTreeSet};

use model::DeploymentName;
use model::dns::DnsSubject;
use model::instance::{InstanceSpec, JobSpec};
use release::render::{DnsIds, GroupDnsId, LinkGroup};
use state::State;

/// Numbers by what has them.
pub(crate) struct Numbers(BTreeMap<DnsSubject, u32>);

impl Numbers {
    /// Reads what the templates of these instances may ask for; `planned` are subjects that have none yet.
    pub fn read(state: &State<'_>, specs: &[&InstanceSpec], planned: &[DnsSubject]) -> Self {
        let mut deployments: BTreeSet<DeploymentName> = BTreeSet::new();
        for spec in specs {
            deployments.insert(spec.deployment.clone());
            let links = spec.jobs.iter().flat_map(|job| job.links.values());
            deployments.extend(links.filter_map(|link| Some(link["deployment_name"].as_str()?.into())));
        }
        let known = deployments.iter().flat_map(|deployment| state.dns_numbers(deployment));
        Self(state.dns_numbers_if_next(planned).into_iter().chain(known).collect())
    }

    /// Returns them in the form in which templates are given them.
    pub fn ids(&self) -> DnsIds {
        let mut ids = DnsIds::default();
        for (subject, id) in &self.0 {
            let group = |kind: &str, deployment: &DeploymentName, name: &str| GroupDnsId {
                kind: kind.to_owned(),
                name: name.to_owned(),
                deployment: deployment.to_string(),
                id: *id,
            };
            match subject {
                DnsSubject::Zone(az) => {
                    ids.azs.insert(az.to_string(), *id);
                }
                DnsSubject::Network(network) => {
                    ids.networks.insert(network.to_string(), *id);
                }
                DnsSubject::Group(of, name) => ids.groups.push(group("instance-group", of, name.as_str())),
                DnsSubject::Link(of, name) => ids.groups.push(group("link", of, name)),
                // Templates ask for groups.
                DnsSubject::Instance(..) => {}
            }
        }
        ids
    }

    /// Returns the groups of the links that a job provides. One that was planned before there were numbers has none.
    pub fn links_of(&self, spec: &InstanceSpec, job: &JobSpec) -> Vec<LinkGroup> {
        let group = |link: &model::dns::ProvidedName| {
            let number = self.0.get(&DnsSubject::Link(spec.deployment.clone(), link.group_name()))?;
            Some(LinkGroup { name: link.name.clone(), kind: link.kind.clone(), group: number.to_string() })
        };
        job.provides.iter().filter_map(group).collect()
    }
}
