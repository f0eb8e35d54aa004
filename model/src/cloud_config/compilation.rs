//! The cloud config's `compilation` section: what VMs packages are compiled on.

use serde_json::{Map, Value};

use super::{CloudConfig, VmResources};
use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::ids::*;
use crate::task::TaskError;

/// How packages are compiled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compilation {
    /// How many packages at once.
    pub workers: u32,
    /// The workers' network.
    pub network: NetworkName,
    /// The workers' zone.
    pub az: Option<AzName>,
    /// The VM type's name.
    pub vm_type: Option<String>,
    /// Zone, VM type and extension properties merged.
    pub cloud_properties: Value,
    /// What the cloud is to find properties for, which go over those.
    pub vm_resources: Option<VmResources>,
    /// Whether a worker compiles one package after the other instead of one only.
    pub reuse_vms: bool,
    /// What becomes of a worker's VM when it is done.
    pub workers_afterwards: WorkersAfterwards,
    /// The workers' env.
    pub env: Value,
}

/// What becomes of a worker's VM when it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkersAfterwards {
    /// It is deleted, and the deploy waits for that.
    #[default]
    Deleted,
    /// It is left to be deleted later.
    Orphaned,
}

impl Compilation {
    /// Checks the section against the rest of the cloud config.
    pub(super) fn parse(section: &Map<String, Value>, cloud: &CloudConfig) -> Checked<Self> {
        let fields = Fields::new(section);
        let workers = fields.integer("workers")?;
        if workers < 1 {
            return Err(TaskError::new(
                ErrorCode::ValidationViolatedMin,
                format!("'workers' value ({workers}) should be greater than 1"),
            ));
        }
        let network_name = fields.text("network")?;
        let network = cloud.network(&network_name).ok_or_else(|| {
            TaskError::new(
                ErrorCode::CompilationConfigUnknownNetwork,
                format!("Compilation config references an unknown network '{network_name}'"),
            )
        })?;
        let az = fields.text_opt("az")?.map(AzName::new);
        if let Some(az) = az.as_ref().filter(|az| !cloud.azs.contains_key(*az)) {
            return Err(TaskError::new(
                ErrorCode::CompilationConfigUnknownAz,
                format!("Compilation config references unknown az '{az}'. Known azs are: [{}]", {
                    cloud.azs.keys().map(AzName::as_str).collect::<Vec<_>>().join(", ")
                }),
            ));
        }
        if !network.fits(az.as_slice()) {
            return Err(TaskError::new(
                ErrorCode::JobNetworkMissingRequiredAvailabilityZone,
                format!(
                    "Compilation config must specify availability zone that matches availability zones of network '{network_name}'"
                ),
            ));
        }
        let reuse_vms = fields.boolean_opt("reuse_compilation_vms")?.unwrap_or(false);
        let workers_afterwards = match fields.boolean_opt("orphan_workers")?.unwrap_or(false) {
            true => WorkersAfterwards::Orphaned,
            false => WorkersAfterwards::Deleted,
        };
        let env = fields.mapping_or_empty("env")?;
        let vm = vm_properties(&fields, cloud, az.as_ref())?;
        Ok(Self {
            workers: u32::try_from(workers).unwrap_or(u32::MAX),
            network: network.name.clone(),
            az,
            vm_type: vm.vm_type,
            cloud_properties: vm.cloud_properties,
            vm_resources: vm.resources,
            reuse_vms,
            workers_afterwards,
            env,
        })
    }
}

/// What the workers' VMs are like.
struct WorkerVm {
    vm_type: Option<String>,
    cloud_properties: Value,
    resources: Option<VmResources>,
}

fn vm_properties(fields: &Fields<'_>, cloud: &CloudConfig, az: Option<&AzName>) -> Checked<WorkerVm> {
    let bad = |what: &str| TaskError::new(ErrorCode::CompilationConfigBadVmConfiguration, what.to_owned());
    let vm_type = fields.text_opt("vm_type")?;
    let own = fields.mapping_opt("cloud_properties")?;
    let resources = VmResources::parse(fields, "Compilation config")?;
    let own_given = own.is_some_and(|p| !p.is_empty());
    if [vm_type.is_some(), own_given, resources.is_some()].into_iter().filter(|b| *b).count() > 1 {
        return Err(bad(
            "Compilation config specifies more than one of the following: 'vm_type', 'vm_resources' and 'cloud_properties'. Choose one.",
        ));
    }
    let mut merged = az
        .and_then(|az| cloud.azs.get(az))
        .and_then(|az| az.cloud_properties.as_object().cloned())
        .unwrap_or_default();
    if let Some(name) = &vm_type {
        let properties = cloud.vm_types.get(name).ok_or_else(|| {
            TaskError::new(
                ErrorCode::CompilationConfigUnknownVmType,
                format!("Compilation config references unknown vm type '{name}'. Known vm types are: {}", {
                    cloud.vm_types.keys().cloned().collect::<Vec<_>>().join(", ")
                }),
            )
        })?;
        merged.extend(properties.as_object().cloned().unwrap_or_default());
    } else if let Some(own) = own {
        merged.extend(own.clone());
    }
    for item in fields.list_or_empty("vm_extensions")? {
        let name = item.as_str().unwrap_or_default();
        if vm_type.is_none() && resources.is_none() {
            return Err(bad(
                "Compilation config specifies 'vm_extensions' without 'vm_type' or 'vm_resources'.",
            ));
        }
        let properties = cloud.vm_extensions.get(name).ok_or_else(|| {
            TaskError::new(
                ErrorCode::CompilationConfigUnknownVmExtension,
                format!("Compilation config references unknown vm extension '{name}'"),
            )
        })?;
        merged.extend(properties.as_object().cloned().unwrap_or_default());
    }
    Ok(WorkerVm { vm_type, cloud_properties: Value::Object(merged), resources })
}
