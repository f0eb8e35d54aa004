//! Dynamic disks, over gRPC.

use std::collections::HashMap;

use model::dynamic_disk::{DiskMetadata, DynamicDiskWish};
use model::{DynamicDiskName, InstanceId};
use proto::v1 as pb;
use proto::v1::dynamic_disks_server::DynamicDisks;
use serde_json::Value;
use service::ops::DynamicDiskRow;
use tonic::{Request, Response, Status};

use super::artifacts::started;
use super::convert::page;
use super::request_id;
use crate::door::Door;
use crate::error_map::status;

#[tonic::async_trait]
impl DynamicDisks for Door {
    async fn list(
        &self,
        request: Request<pb::ListDynamicDisksRequest>,
    ) -> Result<Response<pb::ListDynamicDisksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.dynamic_disks(&caller, &page(request.into_inner().page)).await;
        let found = listed.map_err(status)?;
        Ok(Response::new(pb::ListDynamicDisksResponse {
            disks: found.rows.into_iter().map(shown).collect(),
            next_page_token: found.next_page_token,
            as_of_revision: found.revision.0,
        }))
    }

    async fn create(
        &self,
        request: Request<pb::CreateDynamicDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::CreateDynamicDiskRequest { request_id: id, deployment, az, disk } = request.into_inner();
        let place = (deployment.into(), az.into());
        let queued = self.service.create_dynamic_disk(&caller, request_id(&id), place, wish(disk)).await;
        queued.map(started).map_err(status)
    }

    async fn attach(
        &self,
        request: Request<pb::AttachDynamicDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::AttachDynamicDiskRequest { request_id: id, name, instance_id, metadata: told } =
            request.into_inner();
        let what = (DynamicDiskName::new(name), InstanceId::new(instance_id));
        let queued = self.service.attach_dynamic_disk(&caller, request_id(&id), what, metadata(told)).await;
        queued.map(started).map_err(status)
    }

    async fn provide(
        &self,
        request: Request<pb::ProvideDynamicDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::ProvideDynamicDiskRequest { request_id: id, instance_id, disk } = request.into_inner();
        let instance = InstanceId::new(instance_id);
        let queued = self.service.provide_dynamic_disk(&caller, request_id(&id), instance, wish(disk)).await;
        queued.map(started).map_err(status)
    }

    async fn detach(
        &self,
        request: Request<pb::DetachDynamicDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::DetachDynamicDiskRequest { request_id: id, name } = request.into_inner();
        let queued = self.service.detach_dynamic_disk(&caller, request_id(&id), name.into()).await;
        queued.map(started).map_err(status)
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteDynamicDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::DeleteDynamicDiskRequest { request_id: id, name } = request.into_inner();
        let queued = self.service.delete_dynamic_disk(&caller, request_id(&id), name.into()).await;
        queued.map(started).map_err(status)
    }
}

fn wish(wire: Option<pb::NewDynamicDisk>) -> DynamicDiskWish {
    let pb::NewDynamicDisk { name, disk_type, size_mib, metadata: told } = wire.unwrap_or_default();
    DynamicDiskWish { name: name.into(), disk_type, size_mib, metadata: metadata(told) }
}

/// Nothing is nothing new.
fn metadata(wire: HashMap<String, String>) -> Option<DiskMetadata> {
    let told: DiskMetadata = wire.into_iter().map(|(key, text)| (key, Value::String(text))).collect();
    (!told.is_empty()).then_some(told)
}

fn shown(row: DynamicDiskRow) -> pb::DynamicDisk {
    let DynamicDiskRow { disk, instance } = row;
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    pb::DynamicDisk {
        name: disk.name.to_string(),
        cid: disk.cid.map(|cid| cid.to_string()).unwrap_or_default(),
        deployment: disk.deployment.to_string(),
        instance: instance.unwrap_or_default(),
        az: disk.az.map(|az| az.to_string()).unwrap_or_default(),
        size_mib: disk.size_mib,
        disk_type: disk.disk_type,
        cpi: disk.cpi.to_string(),
        metadata: disk.metadata.into_iter().map(|(key, value)| (key, text(value))).collect(),
        created_at_unix_ms: disk.created_at.0,
    }
}
