//! Links as they can be asked for: who offers one, who wants one, and what connects them.
//!
//! Not here: what a link tells the templates of its consumer, which the planner puts into instances.

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// What kind of thing offers or wants a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkOwnerKind {
    /// A job of an instance group.
    Job,
    /// The manifest, which says by hand what a job is to be told.
    Manual,
    /// A variable whose certificate is named after a link.
    Variable,
    /// Somebody outside, who was connected by request.
    External,
    /// A disk that has a name; it is called after its instance group.
    Disk,
}

impl LinkOwnerKind {
    /// Returns the kind as operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Manual => "manual",
            Self::Variable => "variable",
            Self::External => "external",
            Self::Disk => "disk",
        }
    }
}

/// Who offers or wants a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkOwner {
    /// What kind of thing it is.
    pub kind: LinkOwnerKind,
    /// The job, the variable, or what somebody outside calls itself. Where the manifest gives a link by hand, the job that
    /// it is given to.
    pub name: String,
    /// Its instance group, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
}

impl LinkOwner {
    /// Returns whether this is what the other one is called by now: it may have moved here from one of these groups.
    pub fn was(&self, other: &Self, former_groups: &[GroupName]) -> bool {
        let is_same_group =
            self.group == other.group || other.group.as_ref().is_some_and(|g| former_groups.contains(g));
        self.kind == other.kind && self.name == other.name && is_same_group
    }
}

/// Where whoever consumes a link finds what is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkPlace {
    /// At the address that the manifest gives, if it gives one; a disk has none.
    ByHand {
        /// The address, as it was written.
        address: Option<String>,
    },
    /// At the instances of a group, by their common name in DNS.
    Group {
        /// Their deployment.
        deployment: DeploymentName,
        /// Their group.
        group: GroupName,
        /// The network that they are reached in.
        network: NetworkName,
        /// The root of DNS.
        domain: String,
        /// Whether names tell groups and networks by number.
        short_names: bool,
        /// The group of the link in DNS, where names are the links' and not the instance groups'.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link_group: Option<String>,
    },
}

impl LinkPlace {
    /// Returns the place with another network, if one is given and it has any.
    #[must_use]
    pub fn in_network(self, wanted: Option<&NetworkName>) -> Self {
        match (self, wanted) {
            (Self::Group { deployment, group, domain, short_names, link_group, .. }, Some(wanted)) => {
                let network = wanted.clone();
                Self::Group { deployment, group, network, domain, short_names, link_group }
            }
            (place, _) => place,
        }
    }
}

/// A link that a deployment offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkOffer {
    /// Who offers it.
    pub owner: LinkOwner,
    /// Groups that the owner was in before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_groups: Vec<GroupName>,
    /// The link's name in the release.
    pub name: String,
    /// The name that the manifest gives it, or the same.
    pub alias: String,
    /// Its type.
    pub kind: String,
    /// Whether others than its own deployment may be connected to it.
    pub shared: bool,
    /// Networks that its instances are in.
    pub networks: Vec<NetworkName>,
    /// Where it is found.
    pub place: LinkPlace,
}

/// A link that a deployment wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkWant {
    /// Who wants it.
    pub owner: LinkOwner,
    /// Groups that the owner was in before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_groups: Vec<GroupName>,
    /// The link's name in the release.
    pub name: String,
    /// The name of what it is connected to, as the manifest gives it, or the same.
    pub alias: String,
    /// Its type.
    pub kind: String,
    /// Whether it can do without.
    pub optional: bool,
    /// What it is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LinkSource>,
}

/// What a link that is wanted is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSource {
    /// Whose offer it is.
    pub deployment: DeploymentName,
    /// Who offers it.
    pub owner: LinkOwner,
    /// The offer's name in the release.
    pub name: String,
    /// Where the consumer finds it.
    pub place: LinkPlace,
}

/// All links of a deployment, as a deploy has planned them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// What it offers, in the manifest's order.
    pub offers: Vec<LinkOffer>,
    /// What it wants, in the manifest's order.
    pub wants: Vec<LinkWant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(kind: LinkOwnerKind, group: &str) -> LinkOwner {
        LinkOwner { kind, name: "server".into(), group: Some(group.into()) }
    }

    #[test]
    fn an_owner_that_moved_is_known_by_the_group_that_it_came_from() {
        let (here, there) = (owner(LinkOwnerKind::Job, "new"), owner(LinkOwnerKind::Job, "old"));
        assert!(here.was(&here, &[]));
        assert!(!here.was(&there, &[]));
        assert!(here.was(&there, &["old".into()]));
        assert!(!here.was(&owner(LinkOwnerKind::Manual, "old"), &["old".into()]));
    }

    #[test]
    fn only_what_is_in_networks_can_be_had_in_another() {
        let by_hand = LinkPlace::ByHand { address: Some("db.example".into()) };
        assert_eq!(by_hand.clone().in_network(Some(&"n".into())), by_hand);
    }
}
