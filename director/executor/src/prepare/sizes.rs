//! Asking clouds what VMs of certain sizes need, before anything is planned.

use std::collections::BTreeSet;
use std::time::Duration;

use cpi_api::{CpiError, CpiErrorKind, VmSizes};
use model::CpiName;
use model::cloud_config::VmResources;
use model::task::TaskError;
use scheduler::input::VmProperties;
use serde_json::Value;

use crate::context::TaskContext;
use crate::error::{Interrupted, StepError};

/// How long a cloud may take for one answer: it makes nothing, most only look into a table.
const CALCULATION: Duration = Duration::from_secs(60);

/// Returns the properties of VMs of all these sizes. The inner error is a cloud's.
pub async fn ask(
    context: &TaskContext,
    wanted: &BTreeSet<(CpiName, VmResources)>,
) -> Result<Result<VmProperties, TaskError>, Interrupted> {
    let mut known = VmProperties::new();
    for (cpi, resources) in wanted {
        match ask_one(context, cpi, *resources).await {
            Ok(properties) => known.insert((cpi.clone(), *resources), properties),
            Err(StepError::Lost(lost)) => return Err(lost.into()),
            Err(StepError::Failed(error) | StepError::Again(error)) => return Ok(Err(error)),
            Err(other) => return Ok(Err(TaskError::plain(other.to_string()))),
        };
    }
    Ok(Ok(known))
}

async fn ask_one(context: &TaskContext, cpi: &CpiName, resources: VmResources) -> Result<Value, StepError> {
    let cloud = context.cloud(cpi).map_err(StepError::Failed)?;
    let call = context.call("size", CALCULATION);
    let (request_id, epoch) = (call.request_id.clone(), call.epoch);
    let sizes = VmSizes {
        cpu: resources.cpu,
        ram_mib: resources.ram_mib,
        ephemeral_disk_mib: resources.ephemeral_disk_mib,
    };
    context.fence.check()?;
    let answer = tokio::select! {
        answer = tokio::time::timeout(CALCULATION, cloud.calculate_vm_cloud_properties(&call, sizes)) => answer,
        lost = context.fence.lost() => return Err(lost.into()),
    };
    let late = || {
        let why = format!("no answer within {} s", CALCULATION.as_secs());
        CpiError::new(CpiErrorKind::TimedOut, "calculate_vm_cloud_properties", why)
    };
    let answer = answer.unwrap_or_else(|_| Err(late()));
    answer.map_err(|error| StepError::from_cpi(error.for_request(&request_id), epoch))
}
