//! Which variables a deploy uses: what its documents, specs and links refer to.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::{InstanceSpec, provider_of};
use model::interpolate::names_in;
use model::manifest::variable::absolute_name;
use model::*;
use serde_json::Value;

use crate::input::PlanInput;

/// Absolute names of variables. What is no name is not in here: it fails where it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Those that the deployment itself uses.
    pub own: BTreeSet<VariableName>,
    /// Those in links from other deployments, by deployment: the versions are the provider's.
    pub linked: BTreeMap<DeploymentName, BTreeSet<VariableName>>,
}

impl References {
    /// Collects the names in specs, beside those that were needed to read the documents.
    pub(crate) fn of<'s>(
        input: &PlanInput<'_>,
        early: BTreeSet<VariableName>,
        specs: impl Iterator<Item = &'s InstanceSpec>,
    ) -> Self {
        let mut found = Self { own: early, linked: BTreeMap::new() };
        let own = input.deployment.name;
        let absolute = |deployment: &DeploymentName, value: &Value| {
            let names = names_in(value).into_iter();
            let absolute = names.filter_map(|name| {
                absolute_name(&name, &input.director.name, deployment.as_str()).ok().map(VariableName::new)
            });
            absolute.collect::<Vec<_>>()
        };
        for spec in specs {
            let disks = spec.disks().map(|disk| &disk.cloud_properties);
            let values = [&spec.cloud_properties, &spec.env].into_iter().chain(disks);
            let values = values.chain(spec.networks.iter().map(|network| &network.cloud_properties));
            let values = values.chain(spec.jobs.iter().map(|job| &job.properties));
            values.for_each(|value| found.own.extend(absolute(own, value)));
            for link in spec.jobs.iter().flat_map(|job| job.links.values()) {
                match provider_of(link).filter(|provider| provider != own) {
                    None => found.own.extend(absolute(own, link)),
                    Some(provider) => {
                        let names = absolute(&provider, link);
                        if !names.is_empty() {
                            found.linked.entry(provider).or_default().extend(names);
                        }
                    }
                }
            }
        }
        found
    }
}
