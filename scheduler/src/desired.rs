//! What one instance should be: its spec, and the state that the operator wants of it.

use std::collections::BTreeMap;

use model::dns::ProvidedName;
use model::instance::{Instance, InstanceSpec, InstanceState, JobSpec, NetworkSettings, StemcellRef};
use model::manifest::group::VmSize;
use model::manifest::job::Consume;
use model::manifest::{InstanceGroup, Stock};
use model::task::{InstanceFilter, StateChange, TaskError};
use model::*;
use serde_json::Value;

use crate::address::Seeker;
use crate::bind::{BoundGroup, dig, plant};
use crate::documents::Documents;
use crate::draft::Seat;
use crate::input::PlanInput;
use crate::links::content::address;
use crate::network::default_network;
use crate::sizes;

/// Builds the spec of one instance; `settle` gives it its networks.
pub(crate) fn spec(
    input: &PlanInput<'_>,
    documents: &Documents,
    bound: &BoundGroup<'_>,
    seat: &Seat,
    settle: impl FnOnce(&Seeker<'_>) -> Result<Vec<NetworkSettings>, TaskError>,
) -> Result<InstanceSpec, TaskError> {
    let group = bound.group;
    let zone = seat.az.as_ref().and_then(|az| documents.cloud.azs.get(az));
    let cpi = sizes::cpi(&documents.cloud, seat.az.as_ref());
    let mut cloud_properties = zone.and_then(|z| z.cloud_properties.as_object().cloned()).unwrap_or_default();
    cloud_properties.extend(group.cloud_properties.clone());
    let vm_type = match &group.vm {
        VmSize::Type(name) => Some(name.clone()),
        VmSize::Resources(wanted) => {
            cloud_properties.extend(sizes::calculated(input.vm_properties, &cpi, *wanted)?);
            None
        }
    };
    let who = Seeker {
        id: &seat.id,
        label: format!("{}/{} ({})", group.name, seat.id, seat.index),
        deployment: input.deployment.name,
        az: seat.az.as_ref(),
    };
    let networks = settle(&who)?;
    let mut tags: BTreeMap<String, String> = documents.tags.iter().cloned().collect();
    tags.extend(group.tags.iter().cloned());
    let mut spec = InstanceSpec {
        id: seat.id.clone(),
        deployment: input.deployment.name.clone(),
        group: group.name.clone(),
        index: seat.index,
        az: seat.az.clone(),
        bootstrap: seat.bootstrap,
        lifecycle: group.lifecycle,
        jobs: bound.jobs.iter().map(job_spec).collect(),
        packages: bound.packages.clone(),
        networks,
        stemcell: stemcell(input, documents, group, &cpi)?,
        cpi,
        vm_type,
        cloud_properties: Value::Object(cloud_properties),
        env: env(group, documents.manifest.features.use_tmpfs_config),
        persistent_disk: group.disk.clone(),
        canary_watch_time: group.update.canary_watch_time,
        update_watch_time: group.update.update_watch_time,
        tags,
        configuration_hash: None,
        template_hashes: BTreeMap::new(),
        address: None,
        named_disks: group.named_disks.clone(),
    };
    spec.address = name(input, documents, group, &spec)?;
    Ok(spec)
}

/// Returns the name by which others reach an instance, where they are to use names.
fn name(
    input: &PlanInput<'_>,
    documents: &Documents,
    group: &InstanceGroup,
    spec: &InstanceSpec,
) -> Result<Option<String>, TaskError> {
    let addressing = documents.addressing(input);
    let network = default_network(&group.networks);
    match network.filter(|_| addressing.uses_names() && input.director.local_dns) {
        Some(network) => address(spec, &network.name, true, (None, &addressing)),
        None => Ok(None),
    }
}

/// Returns the group's env; a feature may add to it what the group does not say itself.
fn env(group: &InstanceGroup, tmpfs: Option<bool>) -> Value {
    let mut env = group.env.clone();
    let (Some(tmpfs), Some(map)) = (tmpfs, env.as_object_mut()) else { return env };
    for path in ["bosh.job_dir.tmpfs", "bosh.agent.settings.tmpfs"] {
        let said = dig(&group.env, path).ok().flatten().is_some();
        if !said {
            plant(map, path, Value::Bool(tmpfs));
        }
    }
    env
}

fn job_spec(job: &crate::bind::BoundJob<'_>) -> JobSpec {
    JobSpec {
        name: job.info.name.clone(),
        release: job.release.release.clone(),
        fingerprint: job.info.fingerprint.clone(),
        digest: job.info.digest.clone(),
        blob: job.info.blob.clone(),
        properties: job.properties.clone(),
        links: BTreeMap::new(),
        logs: job.info.logs.clone(),
        provides: provided_names(job),
    }
}

fn provided_names(job: &crate::bind::BoundJob<'_>) -> Vec<ProvidedName> {
    let offered = job.provided().filter_map(|link| {
        let said = job.manifest.provides.get(&link.name);
        let alias = said.and_then(|said| said.alias.as_ref());
        let name = alias.unwrap_or(&link.name).clone();
        said.is_none_or(|said| !said.blocked).then(|| ProvidedName { name, kind: link.kind.clone() })
    });
    let by_hand = job.info.consumes.iter().filter_map(|link| {
        let said = job.manifest.consumes.get(&link.name)?;
        let name = ProvidedName { name: link.name.clone(), kind: link.kind.clone() };
        matches!(said, Consume::Manual(_)).then_some(name)
    });
    offered.chain(by_hand).collect()
}

/// Returns the group's stemcell as the zone's CPI knows it (50003).
fn stemcell(
    input: &PlanInput<'_>,
    documents: &Documents,
    group: &InstanceGroup,
    cpi: &CpiName,
) -> Result<StemcellRef, TaskError> {
    let stock = Stock { releases: input.releases, stemcells: input.stemcells };
    let wanted = documents.manifest.stemcells.iter().find(|s| s.alias == group.stemcell);
    let records = wanted.map(|s| stock.stemcells(s)).transpose()?.unwrap_or_default();
    let own = records.iter().find(|s| s.cpi == *cpi);
    own.or_else(|| records.iter().find(|s| documents.cpis.is_same(cpi, &s.cpi))).map(|s| (*s).clone()).ok_or_else(|| {
        TaskError::new(
            ErrorCode::StemcellNotFound,
            format!(
                "Required stemcell '{}' of instance group '{}' was not uploaded to CPI '{cpi}', please upload again",
                group.stemcell, group.name
            ),
        )
    })
}

/// Returns the wanted state and what was asked for beyond it. What is said for one instance counts more than for its
/// group, and that more than what was wanted before.
pub(crate) fn state(
    input: &PlanInput<'_>,
    group: &InstanceGroup,
    spec: &InstanceSpec,
    before: Option<&Instance>,
) -> (InstanceState, Option<StateChange>) {
    // A new instance always starts, whatever the manifest says of its group: there is nothing to stop yet.
    let Some(before) = before else { return (InstanceState::Started, None) };
    let asked = input.change.filter(|request| request.is_for(spec)).map(|request| request.change);
    let own = || {
        let by_id = group.instance_states.get(spec.id.as_str());
        by_id.or_else(|| group.instance_states.get(&spec.index.to_string())).copied()
    };
    match asked.or_else(own).or(group.state) {
        None => (before.state, None),
        Some(StateChange::Become(state)) => (state, None),
        Some(change @ (StateChange::Restart | StateChange::Recreate)) => {
            (InstanceState::Started, Some(change))
        }
    }
}

/// Returns whether a filter is for this instance.
pub(crate) fn matches(filter: &InstanceFilter, spec: &InstanceSpec) -> bool {
    filter.group.as_ref().is_none_or(|g| *g == spec.group)
        && filter
            .id_or_index
            .as_ref()
            .is_none_or(|which| which == spec.id.as_str() || *which == spec.index.to_string())
}
