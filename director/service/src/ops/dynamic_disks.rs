//! Dynamic disks: listed, made, attached, detached and deleted for programs that ask for them one by one.

use model::dynamic_disk::{self, DiskMetadata, DynamicDisk, DynamicDiskWish};
use model::task::TaskKind;
use model::{AzName, DeploymentName, DynamicDiskName, ErrorCode, InstanceId, RequestId, TaskId};

use crate::{Caller, List, Page, Read, Right, Service, ServiceError};

/// A dynamic disk in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicDiskRow {
    /// The disk.
    pub disk: DynamicDisk,
    /// `group/uuid` of the instance that has it, or may.
    pub instance: Option<String>,
}

impl Service {
    /// Lists dynamic disks, by name, those included of which nobody knows yet whether they were made.
    pub async fn dynamic_disks(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<List<DynamicDiskRow>, ServiceError> {
        caller.needs(Right::ListDynamicDisks, "list dynamic disks")?;
        let list = self.list(Read::Linearizable, page, move |state, page| {
            let row = |disk: DynamicDisk| {
                let instance = disk.attached.as_ref().map(|at| match state.instance(&at.instance) {
                    Some(instance) => instance.slug(),
                    None => at.instance.to_string(),
                });
                DynamicDiskRow { disk, instance }
            };
            page.cut(state.dynamic_disks().into_iter().map(row), |row| row.disk.name.clone())
        });
        list.await
    }

    /// Makes a dynamic disk. Everything that is wrong with it but its form, the task tells.
    pub async fn create_dynamic_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        (deployment, az): (DeploymentName, AzName),
        wish: DynamicDiskWish,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::CreateDynamicDisks, "create dynamic disks")?;
        wish.check().map_err(ServiceError::Told)?;
        let name = wish.name.clone();
        let kind = TaskKind::CreateDynamicDisk { deployment, az, disk: Box::new(wish) };
        self.queue_for_disk(caller, request_id, kind, &name).await
    }

    /// Attaches a dynamic disk to the VM of an instance.
    pub async fn attach_dynamic_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        (name, instance): (DynamicDiskName, InstanceId),
        metadata: Option<DiskMetadata>,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::AttachDynamicDisks, "attach dynamic disks")?;
        must_name(&instance)?;
        dynamic_disk::check_metadata(metadata.as_ref()).map_err(ServiceError::Told)?;
        let kind = TaskKind::AttachDynamicDisk { name: name.clone(), instance, metadata };
        self.queue_for_disk(caller, request_id, kind, &name).await
    }

    /// Attaches a dynamic disk, and makes it before if there is none of its name.
    pub async fn provide_dynamic_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        instance: InstanceId,
        wish: DynamicDiskWish,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::ProvideDynamicDisks, "provide dynamic disks")?;
        must_name(&instance)?;
        wish.check().map_err(ServiceError::Told)?;
        let name = wish.name.clone();
        let kind = TaskKind::ProvideDynamicDisk { instance, disk: Box::new(wish) };
        self.queue_for_disk(caller, request_id, kind, &name).await
    }

    /// Detaches a dynamic disk.
    pub async fn detach_dynamic_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: DynamicDiskName,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::DetachDynamicDisks, "detach dynamic disks")?;
        let kind = TaskKind::DetachDynamicDisk { name: name.clone() };
        self.queue_for_disk(caller, request_id, kind, &name).await
    }

    /// Deletes a dynamic disk; one that is not there is fine.
    pub async fn delete_dynamic_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: DynamicDiskName,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::DeleteDynamicDisks, "delete dynamic disks")?;
        let kind = TaskKind::DeleteDynamicDisk { name: name.clone() };
        self.queue_for_disk(caller, request_id, kind, &name).await
    }

    /// Files a task under the lock of a disk's name, and of nothing else.
    async fn queue_for_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        kind: TaskKind,
        name: &DynamicDiskName,
    ) -> Result<TaskId, ServiceError> {
        dynamic_disk::check_name(name).map_err(ServiceError::Told)?;
        self.queue(caller, request_id, kind, None, "", vec![dynamic_disk::lock(name)]).await
    }
}

fn must_name(instance: &InstanceId) -> Result<(), ServiceError> {
    match instance.as_str().is_empty() {
        false => Ok(()),
        true => Err(ServiceError::told(ErrorCode::BadRequest, "which instance? Give its UUID")),
    }
}
