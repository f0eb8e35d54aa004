//! Handing stemcells to clouds and taking them back.

use cpi_api::{CpiError, CpiErrorKind, CreateStemcell};
use model::instance::StemcellRef;
use model::stemcell::{AgentKind, StemcellRecord};
use model::task::TaskError;
use model::{BlobDigest, CpiName, ErrorCode, RequestId, StemcellCid, Timestamp, Version};
use release::archive::{ImportedStemcell, StemcellArchive};
use release::blobstore::StoreSink;
use state::State;
use state::command::{Command, Refusal, TaskEnd};
use state::log::Proposal;
use state::records::LineState;
use tokio::runtime::Handle;

use crate::blobs;
use crate::context::TaskContext;
use crate::error::{Interrupted, leaves_open};
use crate::lease::Lost;
use crate::prepare::Lines;
use crate::tasks::remote::{Archive, Remote};

const STAGE: &str = "Update stemcell";

const REMOTE: Remote =
    Remote { noun: "stemcell", stage: Some(STAGE), wrong_digest: ErrorCode::StemcellDigestMismatch };

/// How long a cloud may take to take an image in.
const CLOUD: std::time::Duration = std::time::Duration::from_secs(3600);

/// Fetches a stemcell archive unless it is a blob already, and hands its image to every CPI that has not got it yet.
///
/// What was filed is skipped, so a new leader hands over only what is missing. Clouds can't be asked for an image by a name
/// of ours: one whose hand-over was broken off is reported as a possible leak, and handed over again.
pub async fn upload_stemcell(
    context: &TaskContext,
    archive: Archive<'_>,
    fix: bool,
) -> Result<TaskEnd, Interrupted> {
    const EXTRACTING: &str = "Extracting stemcell archive";
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    let cpis = context.ports.cpis.names();
    let fetching = archive.parts();
    let lines = Lines::of(context, fetching + 2 + 3 * cpis.len() as u32);
    let blob = match archive.stored(context, &lines, &REMOTE).await? {
        Ok(blob) => blob,
        Err(end) => return Ok(end),
    };
    let extracting = fetching + 1;
    lines.started(STAGE, EXTRACTING, extracting).await?;
    let imported = match import(context, &blob).await {
        Ok(imported) => check(context, &imported).map(|()| imported),
        Err(error) => Err(error),
    };
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            lines.ended_badly(STAGE, EXTRACTING, extracting, &error).await?;
            return Ok(TaskEnd::Error(error));
        }
    };
    lines.finished(STAGE, EXTRACTING, extracting).await?;
    lines.done(STAGE, "Verifying stemcell manifest", extracting + 1).await?;
    for (number, cpi) in cpis.into_iter().enumerate() {
        if context.is_cancelling() {
            return Ok(TaskEnd::Cancelled);
        }
        let (first, of_cpi) = (extracting + 2 + 3 * number as u32, of_cpi(&cpi));
        let checking = format!("Checking if this stemcell already exists{of_cpi}");
        lines.done(STAGE, &checking, first).await?;
        if let Some(row) = filed(context, &imported, &cpi).filter(|_| !fix) {
            told_as_filed(&lines, &imported, &row, first + 1).await?;
            continue;
        }
        if let Err(error) = upload(context, &lines, &imported, &cpi, first + 1).await? {
            return Ok(TaskEnd::Error(error));
        }
    }
    Ok(TaskEnd::Done(Some(format!("/stemcells/{}", slug(&imported)))))
}

fn slug(imported: &ImportedStemcell) -> String {
    format!("{}/{}", imported.manifest.name, imported.manifest.version)
}

/// Returns whose agent is inside if the name says otherwise. What the name says anyway is not filed, so that members of an
/// older level can be told of the stemcell.
fn unexpected_agent(imported: &ImportedStemcell) -> Option<AgentKind> {
    let of_name = AgentKind::of_stemcell_named(&imported.manifest.name);
    imported.manifest.agent.filter(|agent| *agent != of_name)
}

/// Refuses what could not be filed, before any cloud makes an image of it.
fn check(context: &TaskContext, imported: &ImportedStemcell) -> Result<(), TaskError> {
    let slug = slug(imported);
    if let Some(agent) = unexpected_agent(imported).filter(|_| !context.knows_third_level()) {
        let message = format!(
            "Stemcell '{slug}' says 'agent: {}' in stemcell.MF, and its name says otherwise. That can be told to replicas of \
             this version only: upload it once all are upgraded",
            agent.name()
        );
        return Err(TaskError::plain(message));
    }
    for cpi in context.ports.cpis.names() {
        let Some(row) = filed(context, imported, &cpi) else { continue };
        let message = match row.digest != imported.manifest.digest {
            true => format!(
                "Stemcell '{slug}' exists already with another image ({}, this one is {}): delete it first, or give this \
                 one a version of its own",
                row.digest, imported.manifest.digest
            ),
            false if row.retired => {
                format!(
                    "Stemcell '{slug}' is being deleted: delete it again until that has succeeded, then upload it"
                )
            }
            false => continue,
        };
        return Err(TaskError::new(ErrorCode::StemcellAlreadyExists, message));
    }
    Ok(())
}

/// Hands the image to one CPI and files it. The line that says so is committed first: a new leader that finds it without
/// its end knows that there may be an image already.
async fn upload(
    context: &TaskContext,
    lines: &Lines<'_>,
    imported: &ImportedStemcell,
    cpi: &CpiName,
    index: u32,
) -> Result<Result<(), TaskError>, Interrupted> {
    let of_cpi = of_cpi(cpi);
    let task = uploading(imported, cpi);
    match lines.seen(STAGE, &task) {
        Some(LineState::Finished) => {
            if let Some(row) = filed(context, imported, cpi) {
                lines.done(STAGE, &saving(imported, cpi, &row.stemcell.cid), index + 1).await?;
            }
            return Ok(Ok(()));
        }
        Some(LineState::Started) => {
            let id = format!("stemcell-{cpi}-{}", context.fence.epoch());
            context.leaked(&id, second_image(imported, &of_cpi, "was broken off")).await?;
        }
        Some(LineState::Failed) | None => {}
    }
    lines.started(STAGE, &task, index).await?;
    let filed = match hand_over(context, imported, cpi).await? {
        Ok(cid) => file(context, imported, cpi, cid.clone()).await?.map(|()| cid),
        Err(error) => Err(error),
    };
    match filed {
        Ok(cid) => {
            lines.finished(STAGE, &task, index).await?;
            lines.done(STAGE, &saving(imported, cpi, &cid), index + 1).await?;
            Ok(Ok(()))
        }
        Err(error) => {
            lines.ended_badly(STAGE, &task, index, &error).await?;
            Ok(Err(error))
        }
    }
}

/// What follows the name of a part that is done for each CPI.
fn of_cpi(cpi: &CpiName) -> String {
    if cpi.as_str().is_empty() { String::new() } else { format!(" (cpi: {cpi})") }
}

fn uploading(imported: &ImportedStemcell, cpi: &CpiName) -> String {
    format!("Uploading stemcell {} to the cloud{}", slug(imported), of_cpi(cpi))
}

fn saving(imported: &ImportedStemcell, cpi: &CpiName, cid: &StemcellCid) -> String {
    format!("Save stemcell {} ({cid}){}", slug(imported), of_cpi(cpi))
}

/// Tells of a stemcell that is there: because it was before, or because an earlier leader has filed it for this task.
async fn told_as_filed(
    lines: &Lines<'_>,
    imported: &ImportedStemcell,
    row: &StemcellRecord,
    index: u32,
) -> Result<(), Interrupted> {
    let (cpi, uploading) = (&row.stemcell.cpi, uploading(imported, &row.stemcell.cpi));
    let (uploading, saving) = match lines.seen(STAGE, &uploading) {
        Some(_) => (uploading, saving(imported, cpi, &row.stemcell.cid)),
        None => {
            let saving = format!("Save stemcell {}{}", slug(imported), of_cpi(cpi));
            (format!("{uploading} (already exists, skipped)"), format!("{saving} (already exists, skipped)"))
        }
    };
    lines.done(STAGE, &uploading, index).await?;
    lines.done(STAGE, &saving, index + 1).await
}

fn second_image(imported: &ImportedStemcell, of_cpi: &str, how: &str) -> String {
    format!(
        "an image of stemcell '{}' may be in the cloud{of_cpi} without anybody knowing its id, since a call that was to make \
         it {how}",
        slug(imported)
    )
}

async fn import(context: &TaskContext, blob: &BlobDigest) -> Result<ImportedStemcell, TaskError> {
    let file =
        blobs::spool(&*context.ports.blobs, blob).await.map_err(|e| TaskError::plain(e.to_string()))?;
    let mut sink = StoreSink::new(context.ports.blobs.clone(), Handle::current());
    let imported = tokio::task::spawn_blocking(move || StemcellArchive::open(file.path())?.import(&mut sink));
    let imported =
        imported.await.map_err(|e| TaskError::plain(format!("reading the stemcell failed: {e}")))?;
    imported.map_err(super::release::told)
}

fn filed(context: &TaskContext, imported: &ImportedStemcell, cpi: &CpiName) -> Option<StemcellRecord> {
    let view = context.view();
    State::new(&*view).stemcell(&imported.manifest.name, &imported.manifest.version, cpi)
}

fn told(error: &CpiError) -> TaskError {
    TaskError::plain(error.to_string())
}

async fn hand_over(
    context: &TaskContext,
    imported: &ImportedStemcell,
    cpi: &CpiName,
) -> Result<Result<StemcellCid, TaskError>, Interrupted> {
    let handle = match context.cloud(cpi) {
        Ok(handle) => handle,
        Err(none) => return Ok(Err(none)),
    };
    let formats = match handle.info().await {
        Ok(info) => info.stemcell_formats,
        Err(error) => return Ok(Err(told(&error))),
    };
    let offered = &imported.manifest.formats;
    if !formats.is_empty() && !offered.is_empty() && !offered.iter().any(|f| formats.contains(f)) {
        let message = format!(
            "stemcell '{}' has the formats {}, CPI '{cpi}' takes {}",
            imported.manifest.name,
            offered.join(", "),
            formats.join(", ")
        );
        return Ok(Err(TaskError::new(ErrorCode::StemcellFormatUnsupported, message)));
    }
    let image = match blobs::spool(&*context.ports.blobs, &imported.image.digest).await {
        Ok(image) => image,
        Err(error) => return Ok(Err(TaskError::plain(error.to_string()))),
    };
    let stemcell = CreateStemcell {
        image: image.path().to_owned(),
        cloud_properties: imported.manifest.cloud_properties.clone(),
        tags: Default::default(),
    };
    context.fence.check()?;
    let call = context.call("create-stemcell", CLOUD);
    let created = tokio::select! {
        created = handle.create_stemcell(&call, stemcell) => created,
        lost = context.fence.lost() => return Err(lost.into()),
    };
    let error = match created {
        Ok(cid) => return Ok(Ok(cid)),
        Err(error) if error.kind == CpiErrorKind::Fenced => {
            return Err(Lost { epoch: context.fence.epoch() }.into());
        }
        Err(error) => error,
    };
    if leaves_open(&error) {
        let id = format!("stemcell-{cpi}-{}-unanswered", context.fence.epoch());
        context.leaked(&id, second_image(imported, "", &format!("was not answered: {error}"))).await?;
    }
    Ok(Err(told(&error)))
}

/// Files an image that was made. One that the state does not take is nobody's.
async fn file(
    context: &TaskContext,
    imported: &ImportedStemcell,
    cpi: &CpiName,
    cid: StemcellCid,
) -> Result<Result<(), TaskError>, Interrupted> {
    let manifest = &imported.manifest;
    let stemcell = StemcellRecord {
        stemcell: StemcellRef {
            name: manifest.name.clone(),
            os: manifest.os.clone(),
            version: manifest.version.clone(),
            cpi: cpi.clone(),
            cid: cid.clone(),
            api_version: manifest.api_version,
            agent: unexpected_agent(imported),
        },
        digest: manifest.digest.clone(),
        cloud_properties: manifest.cloud_properties.clone(),
        formats: manifest.formats.clone(),
        uploaded_at: Timestamp::default(),
        retired: false,
    };
    let put = Command::StemcellPut { task: context.id(), epoch: context.fence.epoch(), stemcell };
    let Err(refusal) = context.propose(Proposal::own(put)).await? else { return Ok(Ok(())) };
    let what = format!("image '{cid}' of stemcell '{}', which could not be filed: {refusal}", slug(imported));
    context.leaked(&format!("stemcell-{cid}"), what).await?;
    Ok(Err(TaskError::new(ErrorCode::StemcellAlreadyExists, refusal.to_string())))
}

/// Takes a stemcell back from every CPI that has it, unless somebody uses it.
///
/// It is retired first, so that nobody begins to use it while the clouds delete it; a new leader goes on with what is left.
pub async fn delete_stemcell(
    context: &TaskContext,
    name: &str,
    version: &Version,
    force: bool,
) -> Result<TaskEnd, Interrupted> {
    if context.is_cancelling() {
        return Ok(TaskEnd::Cancelled);
    }
    let (task, epoch) = (context.id(), context.fence.epoch());
    let retire = Command::StemcellRetire { task, epoch, name: name.to_owned(), version: version.clone() };
    // The first answer counts: a new leader may find nothing left to retire.
    let request_id = Some(RequestId::new(format!("t{task}-retire-stemcell-{name}/{version}")));
    if let Err(refusal) = context.propose(Proposal { request_id, ..Proposal::own(retire) }).await? {
        return Ok(TaskEnd::Error(not_retired(context, name, version, &refusal)));
    }
    let rows: Vec<StemcellRecord> = {
        let view = context.view();
        let rows = State::new(&*view).stemcells().into_iter();
        rows.filter(|row| row.stemcell.name == name && row.stemcell.version == *version).collect()
    };
    for StemcellRecord { stemcell, .. } in rows {
        if context.is_cancelling() {
            return Ok(TaskEnd::Cancelled);
        }
        if let Err(error) = take_back(context, &stemcell).await? {
            if !force {
                return Ok(TaskEnd::Error(error));
            }
            let what = format!("image '{}' of stemcell '{name}/{version}': {error}", stemcell.cid);
            context.leaked(&format!("stemcell-{}", stemcell.cid), what).await?;
        }
        let (name, version, cpi) = (name.to_owned(), version.clone(), stemcell.cpi);
        let delete = Command::StemcellDelete { task, epoch, name, version, cpi };
        match context.propose(Proposal::own(delete)).await? {
            Ok(_) | Err(Refusal::NotFound { .. }) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(TaskEnd::Done(Some(format!("/stemcells/{name}/{version}"))))
}

fn not_retired(context: &TaskContext, name: &str, version: &Version, refusal: &Refusal) -> TaskError {
    match refusal {
        Refusal::NotFound { .. } => {
            let message = format!("Stemcell '{name}/{version}' doesn't exist");
            TaskError::new(ErrorCode::StemcellNotFound, message)
        }
        Refusal::InUse { .. } => {
            let view = context.view();
            let users = State::new(&*view).users_of_stemcell(name, version);
            let users: Vec<String> = users.iter().map(ToString::to_string).collect();
            let message = format!("Stemcell '{name}/{version}' is still in use by: {}", users.join(", "));
            TaskError::new(ErrorCode::StemcellInUse, message)
        }
        other => TaskError::plain(other.to_string()),
    }
}

/// Has the cloud delete an image. One that is gone already is fine with every CPI.
async fn take_back(
    context: &TaskContext,
    stemcell: &StemcellRef,
) -> Result<Result<(), TaskError>, Interrupted> {
    let handle = match context.cloud(&stemcell.cpi) {
        Ok(handle) => handle,
        Err(none) => return Ok(Err(none)),
    };
    context.fence.check()?;
    let call = context.call("delete-stemcell", CLOUD);
    let deleted = tokio::select! {
        deleted = handle.delete_stemcell(&call, &stemcell.cid) => deleted,
        lost = context.fence.lost() => return Err(lost.into()),
    };
    match deleted {
        Err(error) if error.kind == CpiErrorKind::Fenced => Err(Lost { epoch: context.fence.epoch() }.into()),
        answer => Ok(answer.map_err(|error| told(&error))),
    }
}
