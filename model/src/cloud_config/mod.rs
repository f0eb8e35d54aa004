//! Cloud configs: zones, VM and disk types, networks and compilation, merged and checked.
//!
//! Not here: finding a free address (the planner's), resolving placeholders in cloud properties (done at the moment
//! of use). Read next: [`network`].

pub mod compilation;
pub mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::managed_network::ManagedNetwork;
use crate::task::TaskError;
pub use compilation::Compilation;
pub use network::{Network, Subnet};

/// An availability zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Az {
    /// Its name.
    pub name: AzName,
    /// What the CPI is told for every VM in it.
    pub cloud_properties: Value,
    /// The CPI that serves it.
    pub cpi: CpiName,
}

/// How large a VM should be, whatever its cloud calls that (`vm_resources`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmResources {
    /// Number of CPUs.
    pub cpu: u32,
    /// Memory in MiB.
    pub ram_mib: u64,
    /// Ephemeral disk in MiB.
    pub ephemeral_disk_mib: u64,
}

impl VmResources {
    /// Reads the `vm_resources` of `owner`, if it has any.
    pub(crate) fn parse(fields: &Fields<'_>, owner: &str) -> Checked<Option<Self>> {
        let Some(section) = fields.mapping_opt("vm_resources")? else { return Ok(None) };
        let fields = Fields::new(section);
        let size = |key: &str| {
            let value = fields.integer(key)?;
            u64::try_from(value).map_err(|_| {
                TaskError::plain(format!(
                    "{owner} wants a negative amount of '{key}' in 'vm_resources': {value}"
                ))
            })
        };
        let cpu = size("cpu")?;
        let cpu = u32::try_from(cpu)
            .map_err(|_| TaskError::plain(format!("{owner} wants too many CPUs in 'vm_resources': {cpu}")))?;
        Ok(Some(Self { cpu, ram_mib: size("ram")?, ephemeral_disk_mib: size("ephemeral_disk_size")? }))
    }
}

/// A disk type.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskType {
    /// Its name.
    pub name: String,
    /// Size in MiB.
    pub size_mib: u64,
    /// What the CPI is told.
    pub cloud_properties: Value,
}

/// All cloud configs of a director, merged.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudConfig {
    /// Zones by name.
    pub azs: BTreeMap<AzName, Az>,
    /// Networks in order.
    pub networks: Vec<Network>,
    /// Cloud properties of VM types by name.
    pub vm_types: BTreeMap<String, Value>,
    /// Cloud properties of VM extensions by name.
    pub vm_extensions: BTreeMap<String, Value>,
    /// Disk types by name.
    pub disk_types: BTreeMap<String, DiskType>,
    /// How packages are compiled.
    pub compilation: Compilation,
}

/// What a config is read in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The directors' own addresses, which nobody else is given.
    pub own: &'a [IpAddr],
    /// The networks that directors have made; none if they make none, and `managed` means nothing.
    pub made: Option<&'a [ManagedNetwork]>,
}

impl CloudConfig {
    /// Checks a merged config, in BOSH's order, where directors make no networks. Nobody is given one of their `own` addresses.
    pub fn parse(config: &Map<String, Value>, own: &[IpAddr]) -> Checked<Self> {
        Self::parse_in(config, Surroundings { own, made: None })
    }

    /// Checks a merged config, in BOSH's order.
    pub fn parse_in(config: &Map<String, Value>, surroundings: Surroundings<'_>) -> Checked<Self> {
        let fields = Fields::new(config);
        let azs = parse_azs(&fields)?;
        let networks =
            network::parse_all(fields.list("networks")?, &network::Scope { azs: &azs, surroundings })?;
        let vm_types = named(&fields, "vm_types", ErrorCode::DeploymentDuplicateVmTypeName, "vm type")?;
        let vm_extensions =
            named(&fields, "vm_extensions", ErrorCode::DeploymentDuplicateVmExtensionName, "vm extension")?;
        let disk_types = parse_disk_types(&fields)?;
        let mut this =
            Self { azs, networks, vm_types, vm_extensions, disk_types, compilation: Compilation::default() };
        this.compilation = Compilation::parse(fields.mapping("compilation")?, &this)?;
        Ok(this)
    }

    /// Returns the network of this name.
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|n| n.name.as_str() == name)
    }
}

/// Returns the cloud properties of a disk type, as they are written; none if there is no such type.
pub fn disk_properties(configs: Vec<Map<String, Value>>, disk_type: &str) -> Checked<Option<Value>> {
    let merged = merge(configs)?;
    let types = merged.get("disk_types").and_then(Value::as_array);
    let found = types.and_then(|types| types.iter().find(|one| one["name"] == disk_type));
    let properties = |one: &Value| match &one["cloud_properties"] {
        Value::Null => Value::Object(Map::new()),
        given => given.clone(),
    };
    Ok(found.map(properties))
}

/// Joins several named configs: lists are concatenated, `compilation` may be in one only (570000).
pub fn merge(configs: Vec<Map<String, Value>>) -> Checked<Map<String, Value>> {
    const LISTS: [&str; 5] = ["azs", "vm_types", "disk_types", "networks", "vm_extensions"];
    let mut merged = Map::new();
    for config in configs {
        for (key, value) in config {
            if key == "compilation" && merged.contains_key("compilation") {
                return Err(TaskError::new(
                    ErrorCode::CloudConfigMergeError,
                    "Cloud config 'compilation' key cannot be defined in multiple cloud configs.",
                ));
            }
            match (merged.get_mut(&key), value) {
                (Some(Value::Array(list)), Value::Array(more)) if LISTS.contains(&key.as_str()) => {
                    list.extend(more);
                }
                (_, value) => {
                    merged.insert(key, value);
                }
            }
        }
    }
    Ok(merged)
}

fn parse_azs(fields: &Fields<'_>) -> Checked<BTreeMap<AzName, Az>> {
    let mut azs = BTreeMap::new();
    for item in fields.list_or_empty("azs")? {
        let item = Fields::of(item)?;
        let name = AzName::new(item.text("name")?);
        let az = Az {
            name: name.clone(),
            cloud_properties: item.mapping_or_empty("cloud_properties")?,
            cpi: item.text_opt("cpi")?.map(CpiName::new).unwrap_or_default(),
        };
        if azs.insert(name.clone(), az).is_some() {
            return Err(TaskError::new(
                ErrorCode::DeploymentDuplicateAvailabilityZoneName,
                format!("Duplicate availability zone name '{name}'"),
            ));
        }
    }
    Ok(azs)
}

fn named(fields: &Fields<'_>, key: &str, code: ErrorCode, what: &str) -> Checked<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for item in fields.list_or_empty(key)? {
        let item = Fields::of(item)?;
        let name = item.text("name")?;
        let properties = item.mapping_or_empty("cloud_properties")?;
        if found.insert(name.clone(), properties).is_some() {
            return Err(TaskError::new(code, format!("Duplicate {what} name '{name}'")));
        }
    }
    Ok(found)
}

fn parse_disk_types(fields: &Fields<'_>) -> Checked<BTreeMap<String, DiskType>> {
    let (mut found, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for item in fields.list_or_empty("disk_types")? {
        let item = Fields::of(item)?;
        let name = item.text("name")?;
        let size = item.integer("disk_size")?;
        let size_mib = u64::try_from(size).map_err(|_| {
            TaskError::new(
                ErrorCode::DiskTypeInvalidDiskSize,
                format!("Disk type '{name}' references an invalid persistent disk size '{size}'"),
            )
        })?;
        let cloud_properties = item.mapping_or_empty("cloud_properties")?;
        if !seen.insert(name.clone()) {
            return Err(TaskError::new(
                ErrorCode::DeploymentDuplicateDiskTypeName,
                format!("Duplicate disk type name '{name}'"),
            ));
        }
        found.insert(name.clone(), DiskType { name, size_mib, cloud_properties });
    }
    Ok(found)
}
