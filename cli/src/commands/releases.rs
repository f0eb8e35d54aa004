//! Releases and blobs.

use std::fs::File;
use std::io::Write as _;

use camino::Utf8Path;
use indicatif::{ProgressBar, ProgressStyle};
use model::Fingerprint;
use proto::v1::releases_client::ReleasesClient;
use proto::v1::*;
use release::create::{CreateOptions, DevVersion, Uncommitted};
use serde_json::json;

use super::{ALL, Context, Found, pages};
use crate::args::{BlobCommand, CreateRelease, Place, Slug, UploadRelease, Wait};
use crate::call;
use crate::client::{Uploaded, request_id};
use crate::console::{Cell, Column, Console, Listing, Record, Screen, column};
use crate::error::Error;

/// Needs no fleet: a release is made from a folder of this machine.
pub(super) fn create(args: &CreateRelease, console: &mut Console) -> Result<(), Error> {
    let options = CreateOptions {
        name: args.name.clone(),
        version: args.release_version.clone().map_or(DevVersion::Next, DevVersion::Exact),
        uncommitted: if args.force { Uncommitted::Allow } else { Uncommitted::Refuse },
        tarball: args.tarball.as_ref().map(|path| path.as_std_path().to_owned()),
    };
    let created = release::create_dev_release(args.dir.as_std_path(), &options)
        .map_err(|error| Error::CreateRelease { folder: args.dir.clone(), source: Box::new(error) })?;
    let parts = |parts: Vec<(String, Fingerprint)>| {
        Cell::Lines(parts.into_iter().map(|(name, fingerprint)| format!("{name}/{fingerprint}")).collect())
    };
    let tarball = created.tarball.map_or(Cell::None, |path| path.display().to_string().into());
    console.record(&Record::new([
        (column("Name", "name"), created.release.name.to_string().into()),
        (column("Version", "version"), created.release.version.to_string().into()),
        (column("Commit", "commit_hash"), created.commit_hash.into()),
        (column("Uncommitted", "uncommitted_changes"), Cell::Flag(created.uncommitted_changes)),
        (column("Jobs", "jobs"), parts(created.jobs)),
        (column("Packages", "packages"), parts(created.packages)),
        (column("Manifest", "manifest"), created.manifest_path.display().to_string().into()),
        (column("Archive", "tarball"), tarball),
    ]))
}

/// Uploads a file as a blob, showing how far it is.
pub(super) async fn upload_file(context: &mut Context<'_>, path: &Utf8Path) -> Result<Uploaded, Error> {
    let size = std::fs::metadata(path).map_err(Error::file("read", path))?.len();
    let bar = match context.console.screen {
        Screen::Terminal { progress: true, .. } => ProgressBar::new(size),
        _ => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(format!("Uploading {}", path.file_name().unwrap_or(path.as_str())));
    let shown = bar.clone();
    let uploaded = context.fleet.upload(path, move |sent| shown.set_position(sent)).await;
    bar.finish_and_clear();
    uploaded
}

async fn is_there(context: &mut Context<'_>, name: &str, version: &str) -> Result<bool, Error> {
    let releases = listed(context).await?.rows;
    Ok(releases.iter().any(|release| release.name == name && release.version == version))
}

async fn listed(context: &mut Context<'_>) -> Result<Found<ReleaseSummary>, Error> {
    pages(ALL, async |page| {
        let request = ListReleasesRequest { page: Some(page) };
        let answer = call!(context.fleet, ReleasesClient.list(request)).await?;
        Ok((answer.releases, answer.next_page_token, answer.as_of_revision))
    })
    .await
}

pub(super) async fn upload(context: &mut Context<'_>, args: UploadRelease) -> Result<(), Error> {
    let mut request = UploadReleaseRequest {
        request_id: request_id(),
        rebase: args.rebase,
        fix: args.fix,
        ..UploadReleaseRequest::default()
    };
    match args.archive {
        Place::File(file) => request.blob_digest = upload_file(context, &file).await?.digest,
        Place::Url(url) => {
            if let (Some(name), Some(version), false) =
                (args.remote.name, args.remote.archive_version, args.fix)
                && is_there(context, &name, &version).await?
            {
                let text = format!("Release '{name}/{version}' already exists.");
                return context.console.say(&text, &json!({ "name": name, "version": version }));
            }
            request.location = url;
            request.digest = args.remote.sha1.unwrap_or_default();
        }
    }
    let started = call!(context.fleet, ReleasesClient.upload(request)).await?;
    context.attend(started, args.wait).await
}

const RELEASES: &[Column] = &[
    column("Name", "name"),
    column("Version", "version"),
    column("In use", "in_use"),
    column("Commit", "commit_hash"),
    column("", "uncommitted_changes"),
];

pub(super) async fn list(context: &mut Context<'_>) -> Result<(), Error> {
    let found = listed(context).await?;
    let listing = Listing::of("releases", RELEASES, found.rows, |release| {
        // A plus marks a release that was made from a folder with changes, as in `bosh releases`.
        let mark = if release.uncommitted_changes { "+" } else { "" };
        let commit = Cell::Both(format!("{}{mark}", release.commit_hash), json!(release.commit_hash));
        [
            release.name.into(),
            release.version.into(),
            Cell::Flag(release.in_use),
            commit,
            Cell::Flag(release.uncommitted_changes),
        ]
    });
    context.console.list(&listing.as_of(found.revision))
}

const JOBS: &[Column] = &[
    column("Job", "name"),
    column("Fingerprint", "fingerprint"),
    column("", "digest"),
    column("Packages", "packages"),
    column("Errand", "errand"),
];
const PACKAGES: &[Column] = &[
    column("Package", "name"),
    column("Fingerprint", "fingerprint"),
    column("", "digest"),
    column("Dependencies", "dependencies"),
    column("Compiled for", "compiled_for"),
];

pub(super) async fn inspect(context: &mut Context<'_>, slug: Slug) -> Result<(), Error> {
    let Some(version) = slug.version else {
        return Err(Error::Usage(format!("which version? `dctl inspect-release {}/VERSION`", slug.name)));
    };
    let details =
        call!(context.fleet, ReleasesClient.inspect(ReleaseRef { name: slug.name, version })).await?;
    let jobs = Listing::of("jobs", JOBS, details.jobs, |job| {
        [
            job.name.into(),
            job.fingerprint.into(),
            job.digest.into(),
            Cell::Lines(job.packages),
            Cell::Flag(job.errand),
        ]
    });
    let packages = Listing::of("packages", PACKAGES, details.packages, |package| {
        [
            package.name.into(),
            package.fingerprint.into(),
            package.digest.into(),
            Cell::Lines(package.dependencies),
            Cell::Lines(package.compiled_for),
        ]
    });
    let screen = context.console.screen;
    let text = format!("{}\n\n{}", jobs.to_table(screen), packages.to_table(screen));
    let value = json!({
        "name": details.name,
        "version": details.version,
        "jobs": jobs.to_json(),
        "packages": packages.to_json(),
    });
    context.console.say(&text, &value)
}

pub(super) async fn delete(context: &mut Context<'_>, slug: Slug) -> Result<(), Error> {
    let which = match &slug.version {
        Some(version) => format!("release `{}/{version}`", slug.name),
        None => format!("all versions of release `{}`", slug.name),
    };
    context.console.confirm(&format!("Delete {which}"))?;
    let request = DeleteReleaseRequest {
        request_id: request_id(),
        name: slug.name,
        version: slug.version.unwrap_or_default(),
    };
    let started = call!(context.fleet, ReleasesClient.delete(request)).await?;
    context.attend(started, Wait::default()).await
}

pub(super) async fn blob(context: &mut Context<'_>, command: BlobCommand) -> Result<(), Error> {
    let BlobCommand::Get { digest, output } = command;
    let Some(path) = output else {
        context.fleet.download(&digest, &mut *context.console.out).await?;
        return Ok(context.console.out.flush()?);
    };
    let mut file = File::create(&path).map_err(Error::file("write", &path))?;
    let size_bytes = context.fleet.download(&digest, &mut file).await?;
    file.sync_all().map_err(Error::file("write", &path))?;
    let text = format!("{size_bytes} bytes in `{path}`");
    context.console.say(&text, &json!({ "digest": digest, "size_bytes": size_bytes, "file": path }))
}
