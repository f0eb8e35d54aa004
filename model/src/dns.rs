//! What DNS names tell by number instead of by name: zones, networks, instance groups, links and instances; and the
//! records that the names are answered from.

mod records;

pub use records::{Alias, Record, Records, UnreadableRecords};

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// Something that has a number in DNS names, unique in the director, for as long as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsSubject {
    /// A zone.
    Zone(AzName),
    /// A network.
    Network(NetworkName),
    /// An instance group of a deployment.
    Group(DeploymentName, GroupName),
    /// A link that a deployment provides, by [`ProvidedName::group_name`].
    Link(DeploymentName, String),
    /// An instance of a deployment.
    Instance(DeploymentName, InstanceId),
}

/// A link by the name that consumers know it by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProvidedName {
    /// The alias that the manifest gives it, or the name in the release.
    pub name: String,
    /// Its type.
    pub kind: String,
}

/// Another name for what a link leads to, as the manifest gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAlias {
    /// The name; with a placeholder, its first label is `_`.
    pub domain: String,
    /// How those are to be that are answered with.
    #[serde(default)]
    pub health_filter: Option<String>,
    /// Whether the first question waits for the instances' health.
    #[serde(default)]
    pub initial_health_check: Option<String>,
    /// What stands for `_`.
    #[serde(default)]
    pub placeholder_type: Option<String>,
}

impl ProvidedName {
    /// Returns the name of the group that its providers form in DNS.
    pub fn group_name(&self) -> String {
        format!("{}-{}", self.name, self.kind)
    }
}
