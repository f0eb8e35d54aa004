//! Dynamic disks.

use std::collections::HashMap;

use proto::v1::dynamic_disks_client::DynamicDisksClient;
use proto::v1::{
    AttachDynamicDiskRequest, CreateDynamicDiskRequest, DeleteDynamicDiskRequest, DetachDynamicDiskRequest,
    ListDynamicDisksRequest, NewDynamicDisk, ProvideDynamicDiskRequest,
};

use super::{ALL, Context, pages};
use crate::args::{AttachDynamicDisk, CreateDynamicDisk, DynamicDiskWish, ProvideDynamicDisk, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const DISKS: &[Column] = &[
    column("Name", "name"),
    column("CID", "cid"),
    column("Size (MiB)", "size_mib"),
    column("Disk type", "disk_type"),
    column("Deployment", "deployment"),
    column("AZ", "az"),
    column("Instance", "instance"),
    column("", "cpi"),
    column("", "metadata"),
    column("Created at", "created_at"),
];

/// Lists them.
pub(super) async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListDynamicDisksRequest { page: Some(page) };
        let answer = call!(context.fleet, DynamicDisksClient.list(request)).await?;
        Ok((answer.disks, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("dynamic disks", DISKS, found.rows, |disk| {
        let mut metadata: Vec<String> =
            disk.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        metadata.sort();
        [
            disk.name.into(),
            disk.cid.into(),
            Cell::Number(disk.size_mib),
            disk.disk_type.into(),
            disk.deployment.into(),
            disk.az.into(),
            disk.instance.into(),
            disk.cpi.into(),
            Cell::Lines(metadata),
            Cell::Time(disk.created_at_unix_ms),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

/// Makes one.
pub(super) async fn create(context: &mut Context<'_>, args: CreateDynamicDisk) -> Result<(), Error> {
    let CreateDynamicDisk { disk, az } = args;
    let (deployment, disk) = (context.deployment()?, Some(wish(disk)));
    let request = CreateDynamicDiskRequest { request_id: request_id(), deployment, az, disk };
    let started = call!(context.fleet, DynamicDisksClient.create(request)).await?;
    context.attend(started, Wait::default()).await
}

/// Attaches one, and makes it before if need be.
pub(super) async fn provide(context: &mut Context<'_>, args: ProvideDynamicDisk) -> Result<(), Error> {
    let ProvideDynamicDisk { disk, instance } = args;
    let request =
        ProvideDynamicDiskRequest { request_id: request_id(), instance_id: instance, disk: Some(wish(disk)) };
    let started = call!(context.fleet, DynamicDisksClient.provide(request)).await?;
    context.attend(started, Wait::default()).await
}

/// Attaches one.
pub(super) async fn attach(context: &mut Context<'_>, args: AttachDynamicDisk) -> Result<(), Error> {
    let AttachDynamicDisk { name, instance, metadata } = args;
    let request = AttachDynamicDiskRequest {
        request_id: request_id(),
        name,
        instance_id: instance,
        metadata: metadata.into_iter().collect(),
    };
    let started = call!(context.fleet, DynamicDisksClient.attach(request)).await?;
    context.attend(started, Wait::default()).await
}

/// Detaches one.
pub(super) async fn detach(context: &mut Context<'_>, name: String) -> Result<(), Error> {
    context.console.confirm(&format!("Detach dynamic disk `{name}`, whatever writes to it"))?;
    let request = DetachDynamicDiskRequest { request_id: request_id(), name };
    let started = call!(context.fleet, DynamicDisksClient.detach(request)).await?;
    context.attend(started, Wait::default()).await
}

/// Deletes one.
pub(super) async fn delete(context: &mut Context<'_>, name: String) -> Result<(), Error> {
    context.console.confirm(&format!("Delete dynamic disk `{name}` and what is on it"))?;
    let request = DeleteDynamicDiskRequest { request_id: request_id(), name };
    let started = call!(context.fleet, DynamicDisksClient.delete(request)).await?;
    context.attend(started, Wait::default()).await
}

fn wish(args: DynamicDiskWish) -> NewDynamicDisk {
    let DynamicDiskWish { name, disk_type, size_mib, metadata } = args;
    let metadata: HashMap<String, String> = metadata.into_iter().collect();
    NewDynamicDisk { name, disk_type, size_mib, metadata }
}
