//! Deployment manifests: parsed, defaulted and checked against the cloud config and what was uploaded.
//!
//! The order of checks is contract: it decides which of several mistakes an operator is told first. Not here:
//! anything that needs to know the deployment's past (placement, addresses, changes); placeholders in properties and
//! envs stay unresolved. Read next: [`group`].

pub mod addon;
mod disk;
pub mod features;
pub mod group;
pub mod job;
pub mod network;
pub mod sources;
pub mod update;
pub mod variable;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cloud_config::CloudConfig;
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields, canonical, is_identifier};
use crate::ids::*;
use crate::task::TaskError;
pub use addon::Addon;
pub use features::Features;
pub use group::InstanceGroup;
pub use job::GroupJob;
pub use network::GroupNetwork;
pub use sources::{ManifestRelease, Stemcell, Stock};
pub use update::{Overrides, UpdateConfig};
pub use variable::VariableSpec;

/// A checked manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The deployment's name.
    pub name: DeploymentName,
    /// Releases, with `latest` resolved.
    pub releases: Vec<ManifestRelease>,
    /// Stemcells, with `latest` resolved.
    pub stemcells: Vec<Stemcell>,
    /// How instances are updated unless their group says otherwise.
    pub update: UpdateConfig,
    /// Instance groups in order.
    pub groups: Vec<InstanceGroup>,
    /// Addons of the manifest itself.
    pub addons: Vec<Addon>,
    /// Variables to generate.
    pub variables: Vec<VariableSpec>,
    /// Switches.
    pub features: Features,
    /// Tags of VMs and disks.
    pub tags: Vec<(String, String)>,
    /// Notes for the operator.
    pub warnings: Vec<String>,
}

/// What a manifest is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The cloud config.
    pub cloud: &'a CloudConfig,
    /// What was uploaded.
    pub stock: Stock<'a>,
    /// What the command line says about canaries and `max_in_flight`.
    pub overrides: Overrides<'a>,
}

const CLOUD_CONFIG_KEYS: [&str; 4] = ["vm_types", "azs", "disk_types", "compilation"];

const V1_KEYS: [(&str, ErrorCode, &str); 4] = [
    (
        "networks",
        ErrorCode::V1DeprecatedNetworks,
        "Deployment 'networks' are no longer supported. Networks must now be defined in a cloud-config.",
    ),
    (
        "disk_pools",
        ErrorCode::V1DeprecatedDiskPools,
        "Disk pools are no longer supported, please use disk types in a cloud-config instead",
    ),
    ("jobs", ErrorCode::V1DeprecatedJob, "Jobs are no longer supported, please use instance groups instead"),
    (
        "resource_pools",
        ErrorCode::V1DeprecatedResourcePools,
        "Resource pools are no longer supported, please use vm types in a cloud-config instead",
    ),
];

/// Refuses keys that belong into a cloud config or into the past. Comes before the cloud config is even read.
pub fn check_forbidden_keys(document: &Map<String, Value>) -> Checked<()> {
    for key in CLOUD_CONFIG_KEYS {
        if document.contains_key(key) {
            return Err(TaskError::new(
                ErrorCode::DeploymentInvalidProperty,
                format!(
                    "Deployment manifest contains '{key}' section, but this can only be set in a cloud-config."
                ),
            ));
        }
    }
    match V1_KEYS.iter().find(|(key, _, _)| document.contains_key(*key)) {
        Some((_, code, message)) => Err(TaskError::new(*code, *message)),
        None => Ok(()),
    }
}

/// Returns the deployment's name, which every caller needs before anything else.
pub fn name(document: &Map<String, Value>) -> Checked<DeploymentName> {
    Fields::new(document).text("name").map(DeploymentName::new)
}

/// Checks a deployment's name: variables and DNS names are made of it, so it must not look like two names in one.
pub fn check_name(name: &DeploymentName) -> Checked<()> {
    if !is_identifier(name.as_str()) {
        let shown: String = name.as_str().chars().take(200).collect();
        return Err(TaskError::new(
            ErrorCode::ValidationInvalidValue,
            format!(
                "Invalid deployment name '{shown}': it may have letters, digits and -_+., and 255 of them"
            ),
        ));
    }
    canonical(name.as_str()).map(drop)
}

impl Manifest {
    /// Checks a manifest whose parse-time placeholders are resolved.
    pub fn parse(document: &Map<String, Value>, context: &Context<'_>) -> Checked<Self> {
        let fields = Fields::new(document);
        let name = DeploymentName::new(fields.text("name")?);
        let stemcells = sources::parse_stemcells(&fields, context.stock)?;
        let properties = fields.mapping_or_empty("properties")?;
        let releases = sources::parse_releases(&fields, context.stock)?;
        let update = UpdateConfig::parse_top(fields.mapping("update")?, context.overrides)?;
        let variables = variable::parse_all(fields.list_or_empty("variables")?)?;
        let features = Features::parse(&fields)?;
        let scope = group::Scope {
            context,
            releases: &releases,
            stemcells: &stemcells,
            update: &update,
            properties: &properties,
        };
        let (mut groups, mut taken) = (Vec::new(), BTreeSet::new());
        for item in fields.list_or_empty("instance_groups")? {
            let group = InstanceGroup::parse(&Fields::of(item)?, &scope)?;
            if !taken.insert(canonical(group.name.as_str())?) {
                return Err(TaskError::new(
                    ErrorCode::DeploymentCanonicalJobNameTaken,
                    format!("Invalid instance group name '{}', canonical name already taken", group.name),
                ));
            }
            groups.push(group);
        }
        let addons = addon::parse_all(fields.list_or_empty("addons")?, addon::Level::Deployment)?;
        let tags = parse_tags(&fields)?;
        if stemcells.is_empty() {
            return Err(TaskError::new(
                ErrorCode::DeploymentNoStemcells,
                "Deployment must have at least one stemcell",
            ));
        }
        let mut warnings = Vec::new();
        if properties.as_object().is_some_and(|p| !p.is_empty()) {
            warnings.push(
                "Global 'properties' are deprecated. Please define 'properties' at the job level.".into(),
            );
        }
        Ok(Self { name, releases, stemcells, update, groups, addons, variables, features, tags, warnings })
    }

    /// Checks that every release and stemcell of the manifest was uploaded, used or not.
    pub fn check_sources(&self, stock: Stock<'_>) -> Checked<()> {
        for release in &self.releases {
            stock.release(&release.release)?;
        }
        self.stemcells.iter().try_for_each(|s| stock.stemcells(s).map(|_| ()))
    }
}

/// Reads `tags`, whose values may be any scalar.
pub fn parse_tags(fields: &Fields<'_>) -> Checked<Vec<(String, String)>> {
    let Some(tags) = fields.mapping_opt("tags")? else { return Ok(Vec::new()) };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(tags.iter().map(|(k, v)| (k.clone(), text(v))).collect())
}
