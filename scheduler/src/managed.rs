//! Networks that directors have made: which ones a deployment uses, and what clouds are asked for.

use std::collections::BTreeSet;

use model::NetworkName;
use model::cloud_config::Network;
use model::managed_network::SubnetWish;
use model::task::TaskError;

use crate::documents::{self, Documents};
use crate::input::PlanInput;

/// A network that must be there before a deploy can be drafted.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedNetwork {
    /// Its name.
    pub name: NetworkName,
    /// What each of its subnets is to be, if it is not there yet.
    pub subnets: Vec<SubnetWish>,
}

/// Returns the networks that directors make and that a deploy uses, whether they are there or not.
pub fn managed_networks(input: &PlanInput<'_>) -> Result<Vec<WantedNetwork>, TaskError> {
    // Most configs have none, and reading a large manifest twice takes time.
    let is_mentioned = input.configs.iter().any(|config| config.content.contains("managed"));
    if input.managed_networks.is_none() || !is_mentioned {
        return Ok(Vec::new());
    }
    let documents = documents::read(input)?;
    let wanted = |network: &Network| WantedNetwork {
        name: network.name.clone(),
        subnets: network.subnets.iter().filter_map(|subnet| subnet.wish.clone()).collect(),
    };
    Ok(used(&documents).map(wanted).collect())
}

/// Returns the managed networks of groups, and the one that packages are compiled in.
pub(crate) fn used(documents: &Documents) -> impl Iterator<Item = &Network> {
    let groups = documents.manifest.groups.iter().flat_map(|group| &group.networks);
    let mut names: BTreeSet<&NetworkName> = groups.map(|network| &network.name).collect();
    names.insert(&documents.cloud.compilation.network);
    let managed =
        documents.cloud.networks.iter().filter(|network| network.managed && !network.subnets.is_empty());
    managed.filter(move |network| names.contains(&network.name))
}

/// Fails where addresses are to be chosen that only a cloud can tell, which was not asked.
pub(crate) fn check_made(documents: &Documents) -> Result<(), TaskError> {
    for network in used(documents) {
        let unknown = network.subnets.iter().filter(|subnet| subnet.range.is_none());
        if let Some(wish) = unknown.filter_map(|subnet| subnet.wish.as_ref()).next() {
            return Err(TaskError::plain(format!(
                "Network '{}' has not been made yet, and its subnet '{}' has no 'range': which addresses it has will be known \
                 once it has been deployed",
                network.name, wish.name
            )));
        }
    }
    Ok(())
}
