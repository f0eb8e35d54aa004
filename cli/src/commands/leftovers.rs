//! Clean-up: what nothing uses.

use proto::v1::clean_up_client::CleanUpClient;
use proto::v1::{CleanUpPreviewRequest, CleanUpPreviewResponse, CleanUpRequest};

use super::Context;
use crate::args::{CleanUp, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const LEFTOVERS: &[Column] = &[column("Kind", "kind"), column("Name", "name")];

pub(super) async fn clean_up(context: &mut Context<'_>, wish: CleanUp) -> Result<(), Error> {
    let CleanUp { all, keep_orphaned_disks, dry_run } = wish;
    if dry_run {
        let request = CleanUpPreviewRequest { all, keep_orphaned_disks };
        let found = call!(context.fleet, CleanUpClient.preview(request)).await?;
        let listing = Listing::of("leftovers", LEFTOVERS, rows(found), |(kind, name)| {
            [Cell::from(kind.to_owned()), name.into()]
        });
        return context.console.list(&listing);
    }
    let what = match (all, keep_orphaned_disks) {
        (true, false) => "Delete all that nothing uses, orphaned disks with it",
        (true, true) => "Delete all that nothing uses, but no disks",
        (false, _) => {
            "Delete what nothing uses, but the two newest versions of each release and stemcell, and disks"
        }
    };
    context.console.confirm(what)?;
    let request = CleanUpRequest { request_id: request_id(), all, keep_orphaned_disks };
    let started = call!(context.fleet, CleanUpClient.start(request)).await?;
    context.attend(started, Wait::default()).await
}

fn rows(found: CleanUpPreviewResponse) -> Vec<(&'static str, String)> {
    let CleanUpPreviewResponse {
        releases,
        stemcells,
        orphaned_vms,
        orphaned_disks,
        exported_releases,
        dns_blobs,
    } = found;
    let of = |kind, names: Vec<String>| names.into_iter().map(move |name| (kind, name));
    of("release", releases)
        .chain(of("stemcell", stemcells))
        .chain(of("orphaned VM", orphaned_vms))
        .chain(of("orphaned disk", orphaned_disks))
        .chain(of("exported release", exported_releases))
        .chain(of("DNS records", dns_blobs))
        .collect()
}
