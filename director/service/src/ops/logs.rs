//! Logs of instances.

use model::task::{InstanceFilter, TaskKind};
use model::{DeploymentName, ErrorCode, InstanceId, RequestId, TaskId};
use state::State;

use super::deployments::{owned, queued};
use crate::{Caller, Mutation, Service, ServiceError};

/// The longest types and filters that are taken: they are in an entry of the log, and nobody types more.
const WISH_BYTES_MAX: usize = 8 << 10;

/// Whose logs, and which.
#[derive(Clone, Debug, Default)]
pub struct LogWish {
    /// Of these instances.
    pub instances: InstanceFilter,
    /// Types of logs, with commas between them; the jobs' if empty.
    pub logs: String,
    /// Globs; all files if there are none.
    pub filters: Vec<String>,
}

impl Service {
    /// Files a task that packs the logs of instances; its result is the id of the blob. It changes nothing, so it waits for
    /// nobody.
    pub async fn fetch_logs(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        wish: LogWish,
    ) -> Result<TaskId, ServiceError> {
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        owned(&State::new(&*looked.view), caller, deployment, "fetch logs")?;
        let LogWish { instances, logs, filters } = wish;
        if logs.len() + filters.iter().map(String::len).sum::<usize>() > WISH_BYTES_MAX {
            let text = format!("types and filters of logs may have {WISH_BYTES_MAX} bytes together");
            return Err(ServiceError::told(ErrorCode::BadRequest, text));
        }
        let instances = with_vms(&State::new(&*looked.view), deployment, &instances)?;
        let logs = if logs.is_empty() { "job".to_owned() } else { logs };
        let (kind, name) = (TaskKind::FetchLogs { instances, logs, filters }, Some(deployment.clone()));
        self.queue(caller, request_id, kind, name, "", Vec::new()).await
    }
}

/// Returns those of the instances that have a VM: whose agents can be asked.
fn with_vms(
    state: &State<'_>,
    deployment: &DeploymentName,
    filter: &InstanceFilter,
) -> Result<Vec<InstanceId>, ServiceError> {
    let group = filter.group.as_ref().map_or("*", |group| group.as_str());
    let id_or_index = filter.id_or_index.as_deref().unwrap_or("*");
    // An all-digits id is an index, as everywhere in BOSH.
    let index: Option<u32> = id_or_index.parse().ok();
    let all = state.instances(deployment).into_iter().filter(|instance| !instance.compilation);
    let matching: Vec<InstanceId> = all
        .map(|instance| instance.spec)
        .filter(|spec| group == "*" || spec.group.as_str() == group)
        .filter(|spec| match index {
            Some(index) => spec.index == index,
            None => id_or_index == "*" || spec.id.as_str() == id_or_index,
        })
        .map(|spec| spec.id)
        .collect();
    let named = format!("'{deployment}/{group}/{id_or_index}'");
    if matching.is_empty() {
        return Err(ServiceError::told(ErrorCode::InstanceNotFound, format!("{named} doesn't exist")));
    }
    let with_vms: Vec<InstanceId> = matching.into_iter().filter(|id| state.active_vm(id).is_some()).collect();
    match with_vms.is_empty() {
        true => Err(ServiceError::told(ErrorCode::InstanceVmMissing, format!("{named} has no VM"))),
        false => Ok(with_vms),
    }
}
