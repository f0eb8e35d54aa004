//! Sizes of VMs that only a cloud can translate: which ones a deploy needs, and what they came to (`vm_resources`).

use std::collections::BTreeSet;

use model::cloud_config::{CloudConfig, VmResources};
use model::manifest::group::VmSize;
use model::task::TaskError;
use model::*;
use serde_json::{Map, Value};

use crate::documents::{self, Documents};
use crate::input::{PlanInput, VmProperties};

/// Returns what clouds must be asked before a deploy can be drafted: which of them, for VMs of which size.
pub fn vm_sizes(input: &PlanInput<'_>) -> Result<BTreeSet<(CpiName, VmResources)>, TaskError> {
    // Most manifests have none, and reading a large one twice takes time.
    let mentioned = |text: &str| text.contains("vm_resources");
    if !mentioned(input.manifest_text) && !input.configs.iter().any(|c| mentioned(&c.content)) {
        return Ok(BTreeSet::new());
    }
    let Documents { manifest, cloud, .. } = documents::read(input)?;
    let mut needed = BTreeSet::new();
    for group in &manifest.groups {
        let VmSize::Resources(resources) = group.vm else { continue };
        let zones: Vec<Option<&AzName>> = match group.azs.is_empty() {
            true => vec![None],
            false => group.azs.iter().map(Some).collect(),
        };
        needed.extend(zones.into_iter().map(|az| (cpi(&cloud, az), resources)));
    }
    let compilation = &cloud.compilation;
    needed.extend(compilation.vm_resources.map(|wanted| (cpi(&cloud, compilation.az.as_ref()), wanted)));
    Ok(needed)
}

/// Returns the CPI of a zone.
pub(crate) fn cpi(cloud: &CloudConfig, az: Option<&AzName>) -> CpiName {
    az.and_then(|az| cloud.azs.get(az)).map(|az| az.cpi.clone()).unwrap_or_default()
}

/// Returns what a cloud said that VMs with these resources need.
pub(crate) fn calculated(
    known: &VmProperties,
    cpi: &CpiName,
    resources: VmResources,
) -> Result<Map<String, Value>, TaskError> {
    match known.get(&(cpi.clone(), resources)) {
        Some(Value::Object(properties)) => Ok(properties.clone()),
        _ => Err(TaskError::plain(format!(
            "CPI '{cpi}' gave no cloud properties for a VM with {} CPUs, {} MiB of memory and {} MiB of ephemeral disk",
            resources.cpu, resources.ram_mib, resources.ephemeral_disk_mib
        ))),
    }
}
