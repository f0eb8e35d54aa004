//! What operators do to single disks and VMs, by the ids that clouds know them by. Each becomes a task, under the lock of
//! the deployment that has the thing when it is asked for.

use model::task::{InstanceFilter, TaskKind};
use model::{DeploymentName, DiskCid, ErrorCode, InstanceId, LockName, RequestId, TaskId, VmCid};
use state::State;

use super::deployments::{deployment_lock, existing, queued};
use crate::{Caller, Mutation, Right, Service, ServiceError};

/// Returns the lock of whoever deletes orphaned disks or gives them back: a disk is not to be deleted while an instance
/// gets it.
pub fn orphans_lock() -> LockName {
    LockName::new("lock:orphan_disks")
}

/// A disk that an instance is to get instead of the one that it has.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The deployment.
    pub deployment: DeploymentName,
    /// The instance, by group and UUID or index.
    pub instance: InstanceFilter,
    /// The disk.
    pub cid: DiskCid,
    /// Whether a disk that nobody here has made is taken to be as the instance's own one.
    pub copy_properties: bool,
}

fn owner(state: &State<'_>, instance: &InstanceId) -> Option<DeploymentName> {
    Some(state.instance(instance)?.spec.deployment)
}

fn locks(deployment: Option<&DeploymentName>) -> Vec<LockName> {
    deployment.map(deployment_lock).into_iter().collect()
}

impl Service {
    /// Has the instance that has a disk give it up; a disk that no instance has is passed over, as in BOSH.
    pub async fn orphan_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        cid: &DiskCid,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "orphan disks")?;
        must_be_named(cid.as_str(), "disk")?;
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let deployment = {
            let state = State::new(&*looked.view);
            state.disk_by_cid(cid).and_then(|disk| owner(&state, &disk.instance))
        };
        let (kind, locks) = (TaskKind::OrphanDisk { cid: cid.clone() }, locks(deployment.as_ref()));
        self.queue(caller, request_id, kind, deployment, "", locks).await
    }

    /// Gives an instance another disk.
    pub async fn attach_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        attachment: Attachment,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "attach disks")?;
        let Attachment { deployment, instance, cid, copy_properties } = attachment;
        must_be_named(cid.as_str(), "disk")?;
        if instance.group.is_none() || instance.id_or_index.is_none() {
            let text = "one instance is to be named, as GROUP/ID";
            return Err(ServiceError::told(ErrorCode::BadRequest, text));
        }
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        existing(&State::new(&*looked.view), &deployment)?;
        let locks = vec![deployment_lock(&deployment), orphans_lock()];
        let kind = TaskKind::AttachDisk { instance, cid, copy_properties };
        self.queue(caller, request_id, kind, Some(deployment), "", locks).await
    }

    /// Deletes a VM: an instance's, which the next deploy or the resurrector makes anew; an orphan; or one that nobody
    /// here knows.
    pub async fn delete_vm(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        cid: &VmCid,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete VMs")?;
        must_be_named(cid.as_str(), "VM")?;
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let deployment = {
            let state = State::new(&*looked.view);
            state.vm_by_cid(cid).and_then(|vm| owner(&state, &vm.instance))
        };
        let (kind, locks) = (TaskKind::DeleteVm { cid: cid.clone() }, locks(deployment.as_ref()));
        self.queue(caller, request_id, kind, deployment, "", locks).await
    }
}

fn must_be_named(cid: &str, what: &str) -> Result<(), ServiceError> {
    match cid.trim().is_empty() {
        false => Ok(()),
        true => Err(ServiceError::told(ErrorCode::BadRequest, format!("which {what}? Give its CID"))),
    }
}
