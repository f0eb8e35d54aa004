//! `export-release`: a compiled release as one archive.

use proto::v1::ExportReleaseRequest;
use proto::v1::follow_task_request::Kind as Output;
use proto::v1::releases_client::ReleasesClient;

use super::Context;
use super::deployments::parse_json;
use super::logs::save;
use crate::args::ExportRelease;
use crate::call;
use crate::client::request_id;
use crate::error::Error;
use crate::follow;

pub(super) async fn export(context: &mut Context<'_>, args: ExportRelease) -> Result<(), Error> {
    let ExportRelease { release, stemcell, jobs, dir, wait } = args;
    let version = release.version.unwrap_or_default();
    let whole = format!("{}-{version}-{}-{}", release.name, stemcell.os, stemcell.version);
    let request = ExportReleaseRequest {
        request_id: request_id(),
        deployment: context.deployment()?,
        name: release.name,
        version,
        stemcell_os: stemcell.os,
        stemcell_version: stemcell.version,
        jobs,
    };
    let started = call!(context.fleet, ReleasesClient.export(request)).await?;
    if wait.detach {
        return context.attend(started, wait).await;
    }
    let task = follow::to_the_end(&context.fleet, context.console, started.task_id).await?;
    let result = follow::read(&context.fleet, task.id, Output::Result).await?;
    let result = parse_json(&result, "the result of the export")?;
    let Some(archive) = result["blobstore_id"].as_str() else {
        return Err(Error::Protocol("the result of the export does not say where the archive is".into()));
    };
    let file = format!("{whole}.task-{}.tgz", task.id);
    let saved = save(context, archive, &dir, &file).await?;
    context.console.say(&saved.text(), &saved.to_json())
}
