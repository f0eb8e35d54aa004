//! Stemcells.

use proto::v1::stemcells_client::StemcellsClient;
use proto::v1::*;

use super::releases::upload_file;
use super::{ALL, Context, pages};
use crate::args::{DeleteStemcell, UploadStemcell, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Listing, column};
use crate::error::Error;

const STEMCELLS: &[Column] = &[
    column("Name", "name"),
    column("Version", "version"),
    column("In use", "in_use"),
    column("OS", "os"),
    column("CPI", "cpi"),
    column("CID", "cid"),
];

pub(super) async fn upload(context: &mut Context<'_>, args: UploadStemcell) -> Result<(), Error> {
    let blob = upload_file(context, &args.file).await?;
    let request = UploadStemcellRequest { request_id: request_id(), blob_digest: blob.digest, fix: args.fix };
    let started = call!(context.fleet, StemcellsClient.upload(request)).await?;
    context.attend(started, args.wait).await
}

pub(super) async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let found = pages(ALL, async |page| {
        let request = ListStemcellsRequest { page: Some(page) };
        let answer = call!(context.fleet, StemcellsClient.list(request)).await?;
        Ok((answer.stemcells, answer.next_page_token, answer.as_of_revision))
    })
    .await?;
    let listing = Listing::of("stemcells", STEMCELLS, found.rows, |stemcell| {
        [
            stemcell.name.into(),
            stemcell.version.into(),
            Cell::Flag(stemcell.in_use),
            stemcell.os.into(),
            stemcell.cpi.into(),
            stemcell.cid.into(),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

pub(super) async fn delete(context: &mut Context<'_>, args: DeleteStemcell) -> Result<(), Error> {
    let Some(version) = args.slug.version else {
        return Err(Error::Usage(format!(
            "which version? `dctl delete-stemcell {}/VERSION`",
            args.slug.name
        )));
    };
    context.console.confirm(&format!("Delete stemcell `{}/{version}`", args.slug.name))?;
    let request =
        DeleteStemcellRequest { request_id: request_id(), name: args.slug.name, version, force: args.force };
    let started = call!(context.fleet, StemcellsClient.delete(request)).await?;
    context.attend(started, Wait::default()).await
}
