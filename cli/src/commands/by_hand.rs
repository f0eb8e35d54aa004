//! Single disks and VMs, by the ids that clouds know them by.

use proto::v1::disks_client::DisksClient;
use proto::v1::instances_client::InstancesClient;
use proto::v1::{AttachDiskRequest, DeleteVmRequest, OrphanDiskRequest};

use super::Context;
use super::deployments::selector;
use crate::args::{AttachDisk, Wait};
use crate::call;
use crate::client::request_id;
use crate::error::Error;

pub(super) async fn orphan_disk(context: &mut Context<'_>, cid: String) -> Result<(), Error> {
    context
        .console
        .confirm(&format!("Have the instance give up disk `{cid}`, which is deleted after some days"))?;
    let request = OrphanDiskRequest { request_id: request_id(), cid };
    let started = call!(context.fleet, DisksClient.orphan(request)).await?;
    context.attend(started, Wait::default()).await
}

pub(super) async fn attach_disk(context: &mut Context<'_>, wish: AttachDisk) -> Result<(), Error> {
    let AttachDisk { instance, cid, copy_properties } = wish;
    if instance.id_or_index.is_empty() {
        return Err(Error::Usage(format!("which instance of `{}`? Give GROUP/ID", instance.group)));
    }
    let name = format!("{}/{}", instance.group, instance.id_or_index);
    context.console.confirm(&format!("Give `{name}` disk `{cid}`; the one that it has becomes an orphan"))?;
    let request = AttachDiskRequest {
        request_id: request_id(),
        deployment: context.deployment()?,
        instance: Some(selector(instance)),
        cid,
        copy_properties,
    };
    let started = call!(context.fleet, DisksClient.attach(request)).await?;
    context.attend(started, Wait::default()).await
}

pub(super) async fn delete_vm(context: &mut Context<'_>, cid: String) -> Result<(), Error> {
    context.console.confirm(&format!("Delete VM `{cid}`, whatever runs in it"))?;
    let request = DeleteVmRequest { request_id: request_id(), cid };
    let started = call!(context.fleet, InstancesClient.delete_vm(request)).await?;
    context.attend(started, Wait::default()).await
}
