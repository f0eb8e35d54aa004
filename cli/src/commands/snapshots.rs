//! Snapshots of persistent disks.

use proto::v1::snapshots_client::SnapshotsClient;
use proto::v1::{DeleteSnapshotsRequest, InstanceSelector, ListSnapshotsRequest, TakeSnapshotsRequest};

use super::deployments::selector;
use super::{ALL, Context, pages};
use crate::args::{InstanceSlug, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const SNAPSHOTS: &[Column] = &[
    column("Instance", "instance"),
    column("", "index"),
    column("CID", "cid"),
    column("Created at", "created_at"),
    column("Clean", "clean"),
    column("", "disk_id"),
];

pub(super) async fn list(context: &mut Context<'_>, of: Option<InstanceSlug>) -> Result<(), Error> {
    let (deployment, instance) = (context.deployment()?, one(of)?);
    let found = pages(ALL, async |page| {
        let (deployment, instance) = (deployment.clone(), instance.clone());
        let request = ListSnapshotsRequest { deployment, instance, page: Some(page) };
        let answer = call!(context.fleet, SnapshotsClient.list(request)).await?;
        Ok((answer.snapshots, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("snapshots", SNAPSHOTS, found.rows, |snapshot| {
        [
            format!("{}/{}", snapshot.group, snapshot.instance_id).into(),
            Cell::Number(snapshot.index.into()),
            snapshot.cid.into(),
            Cell::Time(snapshot.created_at_unix_ms),
            Cell::Flag(snapshot.clean),
            snapshot.disk_id.into(),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn take(context: &mut Context<'_>, of: Option<InstanceSlug>) -> Result<(), Error> {
    let (deployment, instance) = (context.deployment()?, one(of)?);
    let request = TakeSnapshotsRequest { request_id: request_id(), deployment, instance };
    let started = call!(context.fleet, SnapshotsClient.take(request)).await?;
    context.attend(started, Wait::default()).await
}

pub(super) async fn delete(context: &mut Context<'_>, cid: String) -> Result<(), Error> {
    // No CID at all would mean every one.
    if cid.is_empty() {
        return Err(Error::Usage("which snapshot? Give its CID".into()));
    }
    let deployment = context.deployment()?;
    context.console.confirm(&format!("Delete snapshot `{cid}`"))?;
    delete_by_cid(context, deployment, cid).await
}

pub(super) async fn delete_all(context: &mut Context<'_>) -> Result<(), Error> {
    let deployment = context.deployment()?;
    context.console.confirm(&format!("Delete all snapshots of deployment `{deployment}`"))?;
    delete_by_cid(context, deployment, String::new()).await
}

async fn delete_by_cid(context: &mut Context<'_>, deployment: String, cid: String) -> Result<(), Error> {
    let request = DeleteSnapshotsRequest { request_id: request_id(), deployment, cid };
    let started = call!(context.fleet, SnapshotsClient.delete(request)).await?;
    context.attend(started, Wait::default()).await
}

/// Returns the instance, which must be one, if it is named.
fn one(of: Option<InstanceSlug>) -> Result<Option<InstanceSelector>, Error> {
    match of {
        Some(slug) if slug.id_or_index.is_empty() => {
            Err(Error::Usage(format!("which instance of `{}`? Give GROUP/ID", slug.group)))
        }
        of => Ok(of.map(selector)),
    }
}
