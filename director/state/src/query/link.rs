//! Links that are offered, wanted and there.

use model::*;

use super::State;
use crate::records::{Link, LinkConsumer, LinkNumbers, LinkProvider};
use crate::tables::*;

impl<'a> State<'a> {
    /// Returns a link that is offered.
    pub fn link_provider(&self, id: LinkProviderId) -> Option<LinkProvider> {
        LINK_PROVIDERS.get(self.kv, &id)
    }

    /// Returns a link that is wanted.
    pub fn link_consumer(&self, id: LinkConsumerId) -> Option<LinkConsumer> {
        LINK_CONSUMERS.get(self.kv, &id)
    }

    /// Returns a link that is there.
    pub fn link(&self, id: LinkId) -> Option<Link> {
        LINKS.get(self.kv, &id)
    }

    /// Returns what a deployment offers, by number.
    pub fn link_providers(
        &self,
        deployment: &DeploymentName,
    ) -> impl Iterator<Item = LinkProvider> + use<'a> {
        let (kv, numbers) = (self.kv, self.link_numbers(deployment));
        numbers.providers.into_iter().filter_map(move |id| LINK_PROVIDERS.get(kv, &id))
    }

    /// Returns what a deployment wants, by number.
    pub fn link_consumers(
        &self,
        deployment: &DeploymentName,
    ) -> impl Iterator<Item = LinkConsumer> + use<'a> {
        let (kv, numbers) = (self.kv, self.link_numbers(deployment));
        numbers.consumers.into_iter().filter_map(move |id| LINK_CONSUMERS.get(kv, &id))
    }

    /// Returns the links of a deployment, by number.
    pub fn links(&self, deployment: &DeploymentName) -> impl Iterator<Item = Link> + use<'a> {
        let (kv, numbers) = (self.kv, self.link_numbers(deployment));
        numbers.links.into_iter().filter_map(move |id| LINKS.get(kv, &id))
    }

    fn link_numbers(&self, deployment: &DeploymentName) -> LinkNumbers {
        LINKS_OF.get(self.kv, deployment).unwrap_or_default()
    }
}
