//! Stemcells.

use std::path::PathBuf;

use proto::v1::stemcells_client::StemcellsClient;
use proto::v1::*;
use serde_json::json;
use stemcell::{DebianStemcell, RepackedDebian, StemcellNames};

use super::releases::upload_file;
use super::{ALL, Context, Found, pages};
use crate::args::{BuildStemcell, DeleteStemcell, Place, UploadStemcell, Wait};
use crate::call;
use crate::client::request_id;
use crate::console::{Cell, Column, Console, Listing, column};
use crate::error::Error;

const STEMCELLS: &[Column] = &[
    column("Name", "name"),
    column("Version", "version"),
    column("In use", "in_use"),
    column("OS", "os"),
    column("CPI", "cpi"),
    column("CID", "cid"),
];

/// Needs no fleet: a stemcell is made on this machine.
pub(super) fn build(args: &BuildStemcell, console: &mut Console) -> Result<(), Error> {
    let (out, agent) =
        (args.output.as_std_path(), args.agent.as_ref().map(|path| path.as_std_path().to_owned()));
    let built = match (args.debian, &args.from) {
        (false, _) => stemcell::build_host(out, &StemcellNames::host()),
        (true, Some(from)) => {
            let repacked = RepackedDebian { from: from.into(), format: args.format, dagent: agent };
            stemcell::repack_debian(out, &repacked)
        }
        (true, None) => {
            let mut debian = DebianStemcell::new(agent.map_or_else(agent_beside_us, Ok)?);
            debian.format = args.format;
            if let Some(tools) = &args.tools {
                debian.tools.clone_from(tools);
            }
            stemcell::build_debian(out, &debian)
        }
    };
    built.map_err(|error| Error::BuildStemcell { file: args.output.clone(), source: Box::new(error) })?;
    console.say(args.output.as_str(), &json!({ "tarball": args.output }))
}

fn agent_beside_us() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::file("find", "dctl"))?;
    Ok(own.with_file_name("dagent"))
}

pub(super) async fn upload(context: &mut Context<'_>, args: UploadStemcell) -> Result<(), Error> {
    let mut request =
        UploadStemcellRequest { request_id: request_id(), fix: args.fix, ..UploadStemcellRequest::default() };
    match args.archive {
        Place::File(file) => request.blob_digest = upload_file(context, &file).await?.digest,
        Place::Url(url) => {
            if let (Some(name), Some(version), false) =
                (args.remote.name, args.remote.archive_version, args.fix)
                && is_there(context, &name, &version).await?
            {
                let text = format!("Stemcell '{name}/{version}' already exists.");
                return context.console.say(&text, &json!({ "name": name, "version": version }));
            }
            request.location = url;
            request.digest = args.remote.sha1.unwrap_or_default();
        }
    }
    let started = call!(context.fleet, StemcellsClient.upload(request)).await?;
    context.attend(started, args.wait).await
}

async fn is_there(context: &mut Context<'_>, name: &str, version: &str) -> Result<bool, Error> {
    let stemcells = listed(context).await?.rows;
    Ok(stemcells.iter().any(|stemcell| stemcell.name == name && stemcell.version == version))
}

async fn listed(context: &mut Context<'_>) -> Result<Found<Stemcell>, Error> {
    pages(ALL, async |page| {
        let request = ListStemcellsRequest { page: Some(page) };
        let answer = call!(context.fleet, StemcellsClient.list(request)).await?;
        Ok((answer.stemcells, answer.next_page_token, answer.as_of_revision))
    })
    .await
}

pub(super) async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let found = listed(context).await?;
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
