//! Links: what one job tells another about itself.
//!
//! [`resolve`] decides who provides for whom, before anything is placed; [`content`] says what the consumer's
//! templates will see, once addresses are known; [`listed`] what operators can ask about,
//! and [`address`] where they find it.

pub(crate) mod address;
pub(crate) mod content;
pub(crate) mod listed;
pub(crate) mod resolve;

use model::dns::{LinkAlias, ProvidedName};
use model::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A link that some job offers, or a disk that has a name. Stored with the deployment, so that others can consume it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Provider {
    pub(crate) deployment: DeploymentName,
    pub(crate) group: GroupName,
    /// The job; of a disk, the group once more, as in BOSH.
    pub(crate) job: JobName,
    /// The link's name in the release.
    pub(crate) name: String,
    /// The name given by the manifest.
    pub(crate) alias: Option<String>,
    pub(crate) kind: String,
    pub(crate) shared: bool,
    pub(crate) networks: Vec<NetworkName>,
    /// Whether the manifest says that nobody consumes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) blocked: bool,
    /// What consumers see, for each network that addresses can be taken from; empty until addresses are known.
    #[serde(default)]
    pub(crate) content: Vec<(NetworkName, Value)>,
    /// The addresses behind the names in the content, by network and in the content's order; empty where that has no
    /// names. (Names can be made of what is in it.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ips: Vec<Addresses>,
    /// Other names in DNS for what it leads to. The state reads them from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<LinkAlias>,
    /// The disk that it is about, if it is no job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disk: Option<DiskName>,
}

/// The type of links that tell jobs of disks.
const DISK: &str = "disk";

/// The addresses of a group's instances in a network.
pub(crate) type Addresses = (NetworkName, Vec<Option<String>>);

impl Provider {
    /// Returns what a group offers because its instances have a disk of this name. It says what the disk is called, which
    /// is all that a job needs to find it; nobody is reached by it.
    pub(crate) fn of_disk(deployment: &DeploymentName, group: &GroupName, disk: &DiskName) -> Self {
        let content = json!({
            "deployment_name": deployment,
            "properties": { "name": disk },
            "networks": [],
            "instances": [],
        });
        Self {
            deployment: deployment.clone(),
            group: group.clone(),
            job: JobName::new(group.as_str()),
            name: disk.to_string(),
            alias: None,
            kind: DISK.into(),
            shared: false,
            networks: Vec::new(),
            blocked: false,
            content: vec![(NetworkName::default(), content)],
            ips: Vec::new(),
            aliases: Vec::new(),
            disk: Some(disk.clone()),
        }
    }

    /// The name by which consumers ask for it.
    pub(crate) fn called(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    /// Returns whether it can be meant by a consumer of this type.
    pub(crate) fn fits(&self, kind: &str) -> bool {
        self.kind == kind && !self.blocked
    }

    /// Returns the name and type that its group in DNS is named after.
    pub(crate) fn provided_name(&self) -> ProvidedName {
        ProvidedName { name: self.called().to_owned(), kind: self.kind.clone() }
    }
}

/// What a deployment's record keeps of its links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) providers: Vec<Provider>,
}

impl Stored {
    /// Reads what a record keeps; a record without links is an empty one.
    pub(crate) fn read(record: &model::plan::DeploymentRecord) -> Self {
        serde_json::from_value(record.links.clone()).unwrap_or_default()
    }
}
