//! Instance groups, checked in BOSH's order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::disk::GroupDisks;
use super::sources::{ManifestRelease, Stemcell};
use super::update::UpdateConfig;
use super::{Context, GroupJob, GroupNetwork, job, network};
use crate::cloud_config::VmResources;
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::instance::{DiskSpec, InstanceState, Lifecycle};
use crate::task::{StateChange, TaskError};

/// An instance group.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceGroup {
    /// Its name.
    pub name: GroupName,
    /// How many instances it should have.
    pub instances: u32,
    /// Its zones, in order.
    pub azs: Vec<AzName>,
    /// Its jobs, in order; addons append theirs.
    pub jobs: Vec<GroupJob>,
    /// How large its VMs are.
    pub vm: VmSize,
    /// VM type and extensions merged; the zone's properties go below them, what a cloud calculates above.
    pub cloud_properties: Map<String, Value>,
    /// The stemcell's alias.
    pub stemcell: String,
    /// Its networks, in order.
    pub networks: Vec<GroupNetwork>,
    /// The disk of each instance that is mounted.
    pub disk: Option<DiskSpec>,
    /// The disks of each instance that are attached and nothing else, in the order of their names.
    pub named_disks: Vec<DiskSpec>,
    /// Placeholders unresolved.
    pub env: Value,
    /// How it is updated.
    pub update: UpdateConfig,
    /// Whether it runs all the time.
    pub lifecycle: Lifecycle,
    /// Groups whose instances become its own.
    pub migrated_from: Vec<MigratedFrom>,
    /// What the manifest wants of all its instances.
    pub state: Option<StateChange>,
    /// What the manifest wants of some, by index or UUID.
    pub instance_states: BTreeMap<String, StateChange>,
    /// Tags of its VMs at their creation.
    pub tags: Vec<(String, String)>,
}

/// How large a group's VMs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmSize {
    /// As the cloud config's VM type of this name says.
    Type(String),
    /// So that they have this much; each cloud calculates the properties.
    Resources(VmResources),
}

/// A group that became another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigratedFrom {
    /// The source group.
    pub name: GroupName,
    /// The zone of its instances, where they have none.
    pub az: Option<AzName>,
}

/// What a group is read with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) releases: &'a [ManifestRelease],
    pub(super) stemcells: &'a [Stemcell],
    pub(super) update: &'a UpdateConfig,
    pub(super) properties: &'a Value,
}

impl InstanceGroup {
    pub(super) fn parse(fields: &Fields<'_>, scope: &Scope<'_>) -> Checked<Self> {
        let name = fields.text("name")?;
        let lifecycle = parse_lifecycle(fields, &name)?;
        refuse_templates(fields, &name)?;
        let jobs = job::parse_all(fields, &name, scope)?;
        let disks = GroupDisks::parse(fields, &name, &scope.context.cloud.disk_types)?;
        let stemcell = parse_stemcell(fields, &name, scope)?;
        let (vm, cloud_properties) = parse_vm(fields, &name, scope)?;
        let env = fields.mapping_or_empty("env")?;
        let update =
            UpdateConfig::parse_group(fields.mapping_opt("update")?, scope.update, scope.context.overrides)?;
        let networks = network::parse_all(fields, &name, scope.context.cloud)?;
        let azs = parse_azs(fields, &name, &networks, scope)?;
        let migrated_from = parse_migrated_from(fields, &name, &azs)?;
        let state = parse_state(fields, &name)?;
        let instance_states = parse_instance_states(fields, &name)?;
        let instances = fields.integer("instances")?;
        let instances = u32::try_from(instances).map_err(|_| {
            TaskError::plain(format!(
                "Instance group '{name}' has an invalid number of instances: {instances}"
            ))
        })?;
        network::check_static_counts(&networks, &name, instances)?;
        Ok(Self {
            name: GroupName::new(name),
            instances,
            azs,
            jobs,
            vm,
            cloud_properties,
            stemcell,
            networks,
            disk: disks.mounted,
            named_disks: disks.named,
            env,
            update,
            lifecycle,
            migrated_from,
            state,
            instance_states,
            tags: super::parse_tags(fields)?,
        })
    }
}

fn parse_lifecycle(fields: &Fields<'_>, group: &str) -> Checked<Lifecycle> {
    match fields.text_opt("lifecycle")?.as_deref() {
        None | Some("service") => Ok(Lifecycle::Service),
        Some("errand") => Ok(Lifecycle::Errand),
        Some(other) => Err(TaskError::new(
            ErrorCode::InstanceGroupInvalidLifecycle,
            format!(
                "Invalid lifecycle '{other}' for '{group}', valid lifecycle profiles are: service, errand"
            ),
        )),
    }
}

fn refuse_templates(fields: &Fields<'_>, group: &str) -> Checked<()> {
    match ["template", "templates"].into_iter().find(|key| fields.has(key)) {
        Some(key) => Err(TaskError::new(
            ErrorCode::V1DeprecatedTemplate,
            format!(
                "Instance group '{group}' specifies '{key}', which is no longer supported, please use 'jobs' instead"
            ),
        )),
        None => Ok(()),
    }
}

fn parse_stemcell(fields: &Fields<'_>, group: &str, scope: &Scope<'_>) -> Checked<String> {
    let alias = match fields.text_opt("stemcell")? {
        Some(alias) => alias,
        // The v1 way of naming everything at once; said by name rather than as a missing key.
        None if fields.has("resource_pool") => return Err(resource_pool(group)),
        None => return Err(fields.missing("stemcell")),
    };
    if !scope.stemcells.iter().any(|s| s.alias == alias) {
        return Err(TaskError::new(
            ErrorCode::InstanceGroupUnknownStemcell,
            format!("Instance group '{group}' references an unknown stemcell '{alias}'"),
        ));
    }
    Ok(alias)
}

fn resource_pool(group: &str) -> TaskError {
    TaskError::new(
        ErrorCode::V1DeprecatedResourcePool,
        format!(
            "Instance group '{group}' specifies 'resource_pool', which is no longer supported, please use 'vm_type' and 'stemcell' instead"
        ),
    )
}

fn parse_vm(fields: &Fields<'_>, group: &str, scope: &Scope<'_>) -> Checked<(VmSize, Map<String, Value>)> {
    if fields.has("resource_pool") {
        return Err(resource_pool(group));
    }
    let cloud = scope.context.cloud;
    let bad = |message: String| TaskError::new(ErrorCode::InstanceGroupBadVmConfiguration, message);
    let vm_type = fields.text_opt("vm_type")?;
    let resources = VmResources::parse(fields, &format!("Instance group '{group}'"))?;
    let (vm, mut merged) = match (vm_type, resources) {
        (Some(_), Some(_)) => {
            return Err(bad(format!(
                "Instance group '{group}' can only specify one of 'vm_type' or 'vm_resources' keys."
            )));
        }
        (None, None) => {
            return Err(bad(format!(
                "Instance group '{group}' is missing either 'vm_type' or 'vm_resources' section."
            )));
        }
        (None, Some(resources)) => (VmSize::Resources(resources), Map::new()),
        (Some(vm_type), None) => {
            let properties = cloud.vm_types.get(&vm_type).ok_or_else(|| {
                TaskError::new(
                    ErrorCode::InstanceGroupUnknownVmType,
                    format!("Instance group '{group}' references an unknown vm type '{vm_type}'"),
                )
            })?;
            (VmSize::Type(vm_type), properties.as_object().cloned().unwrap_or_default())
        }
    };
    for item in fields.list_or_empty("vm_extensions")? {
        let name = item.as_str().unwrap_or_default();
        let properties = cloud.vm_extensions.get(name).ok_or_else(|| {
            TaskError::plain(format!("Instance group '{group}' references an unknown vm extension '{name}'"))
        })?;
        merged.extend(properties.as_object().cloned().unwrap_or_default());
    }
    Ok((vm, merged))
}

fn parse_azs(
    fields: &Fields<'_>,
    group: &str,
    networks: &[GroupNetwork],
    scope: &Scope<'_>,
) -> Checked<Vec<AzName>> {
    let items = fields.list_opt("azs")?;
    let names: Vec<AzName> =
        items.unwrap_or(&[]).iter().map(|v| AzName::new(v.as_str().unwrap_or_default())).collect();
    for network in networks {
        let fits = scope.context.cloud.network(network.name.as_str()).is_none_or(|n| n.fits(&names));
        if !fits {
            return Err(TaskError::new(
                ErrorCode::JobNetworkMissingRequiredAvailabilityZone,
                format!(
                    "Instance group '{group}' must specify availability zone that matches availability zones of network '{}'",
                    network.name
                ),
            ));
        }
    }
    let Some(items) = items else { return Ok(names) };
    if items.is_empty() {
        return Err(TaskError::new(
            ErrorCode::InstanceGroupMissingAvailabilityZones,
            format!("Instance group '{group}' has empty availability zones"),
        ));
    }
    for item in items {
        let Some(name) = item.as_str() else {
            return Err(TaskError::new(
                ErrorCode::InstanceGroupInvalidAvailabilityZone,
                format!(
                    "Instance group '{group}' has invalid availability zone '{}', string expected",
                    crate::fields::inspect(item)
                ),
            ));
        };
        if !scope.context.cloud.azs.contains_key(name) {
            return Err(TaskError::new(
                ErrorCode::InstanceGroupUnknownAvailabilityZone,
                format!("Instance group '{group}' references unknown availability zone '{name}'"),
            ));
        }
    }
    Ok(names)
}

fn parse_migrated_from(fields: &Fields<'_>, group: &str, azs: &[AzName]) -> Checked<Vec<MigratedFrom>> {
    let mut found = Vec::new();
    for item in fields.list_or_empty("migrated_from")? {
        let item = Fields::of(item)?;
        let name = item.text("name")?;
        let az = item.text_opt("az")?.map(AzName::new);
        if let Some(az) = az.as_ref().filter(|az| !azs.contains(az)) {
            return Err(TaskError::new(
                ErrorCode::DeploymentInvalidMigratedFromJob,
                format!(
                    "Instance group '{name}' specified for migration to instance group '{group}' refers to availability zone '{az}'. Az '{az}' is not in the list of availability zones of instance group '{group}'."
                ),
            ));
        }
        found.push(MigratedFrom { name: GroupName::new(name), az });
    }
    Ok(found)
}

fn state_of(text: &str) -> Option<StateChange> {
    match text {
        "started" => Some(StateChange::Become(InstanceState::Started)),
        "stopped" => Some(StateChange::Become(InstanceState::Stopped)),
        "detached" => Some(StateChange::Become(InstanceState::Detached)),
        "recreate" => Some(StateChange::Recreate),
        "restart" => Some(StateChange::Restart),
        _ => None,
    }
}

const STATES: &str = "started, stopped, detached, recreate, restart";

fn parse_state(fields: &Fields<'_>, group: &str) -> Checked<Option<StateChange>> {
    let Some(text) = fields.text_opt("state")? else { return Ok(None) };
    state_of(&text).map(Some).ok_or_else(|| {
        TaskError::new(
            ErrorCode::InstanceGroupInvalidJobState,
            format!("Invalid state '{text}' for '{group}', valid states are: {STATES}"),
        )
    })
}

fn parse_instance_states(fields: &Fields<'_>, group: &str) -> Checked<BTreeMap<String, StateChange>> {
    let empty = Map::new();
    let mut found = BTreeMap::new();
    for (which, value) in fields.mapping_opt("instance_states")?.unwrap_or(&empty) {
        let text = value.as_str().unwrap_or_default();
        let state = state_of(text).ok_or_else(|| {
            TaskError::new(
                ErrorCode::InstanceGroupInvalidInstanceState,
                format!("Invalid state '{text}' for '{group}/{which}', valid states are: {STATES}"),
            )
        })?;
        found.insert(which.clone(), state);
    }
    Ok(found)
}

/// Returns the names that occur more than once.
pub(super) fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|n| !seen.insert(*n))
}
