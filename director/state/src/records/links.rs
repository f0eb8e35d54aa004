//! Links, as they can be asked for: a number each, which stays the same over deploys.

use model::link::{LinkOffer, LinkOwner, LinkPlace};
use model::*;
use serde::{Deserialize, Serialize};

/// A link that is offered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkProvider {
    /// Its number.
    pub id: LinkProviderId,
    /// The deployment that offers it.
    pub deployment: DeploymentName,
    /// The offer, as the last successful deploy has planned it.
    pub offer: LinkOffer,
}

/// A link that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkConsumer {
    /// Its number.
    pub id: LinkConsumerId,
    /// The deployment that wants it; of somebody outside, the one that offers it.
    pub deployment: DeploymentName,
    /// Who wants it.
    pub owner: LinkOwner,
    /// The link's name in the release.
    pub name: String,
    /// The name of what is asked for.
    pub alias: String,
    /// Its type.
    pub kind: String,
    /// Whether it can do without.
    pub optional: bool,
}

/// A link that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// Its consumer's deployment.
    pub deployment: DeploymentName,
    /// Its name, as its consumer says it.
    pub name: String,
    /// Who consumes it.
    pub consumer: LinkConsumerId,
    /// Who provides it. That one may be gone by now; absent if nobody knew it when the link was made.
    pub provider: Option<LinkProviderId>,
    /// Where the consumer finds it.
    pub place: LinkPlace,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The numbers of all links of a deployment, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkNumbers {
    pub providers: Vec<LinkProviderId>,
    pub consumers: Vec<LinkConsumerId>,
    pub links: Vec<LinkId>,
}
