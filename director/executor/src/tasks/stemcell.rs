//! Handing stemcells to clouds and taking them back.

use cpi_api::{CallContext, CpiError, CreateStemcell};
use model::instance::StemcellRef;
use model::stemcell::StemcellRecord;
use model::task::TaskError;
use model::{BlobDigest, CpiName, ErrorCode, RequestId, StemcellCid, Timestamp, Version};
use release::archive::{ImportedStemcell, StemcellArchive};
use release::blobstore::StoreSink;
use state::State;
use state::command::{Command, Refusal, TaskEnd};
use state::log::Proposal;
use tokio::runtime::Handle;

use crate::blobs;
use crate::context::TaskContext;
use crate::error::Interrupted;
use crate::prepare::Lines;

const STAGE: &str = "Update stemcell";

/// How long a cloud may take to take an image in.
const CLOUD: std::time::Duration = std::time::Duration::from_secs(3600);

/// Reads a stemcell archive out of a blob and hands its image to every CPI that has not got it yet.
///
/// What was filed is skipped, so a new leader hands over only what is missing. An image whose hand-over was broken off may
/// be in the cloud twice: the cloud's own clean-up, or an operator's, finds it by its name.
pub async fn upload_stemcell(
    context: &TaskContext,
    blob: &BlobDigest,
    fix: bool,
) -> Result<TaskEnd, Interrupted> {
    let lines = Lines::new(context);
    lines.started(STAGE, "Extracting stemcell archive", 1).await?;
    let imported = match import(context, blob).await {
        Ok(imported) => imported,
        Err(error) => {
            lines.ended_badly(STAGE, "Extracting stemcell archive", 1, &error).await?;
            return Ok(TaskEnd::Error(error));
        }
    };
    lines.finished(STAGE, "Extracting stemcell archive", 1).await?;
    let named = format!("{}/{}", imported.manifest.name, imported.manifest.version);
    for (index, cpi) in context.ports.cpis.names().into_iter().enumerate() {
        let index = index as u32 + 2;
        if !fix && filed(context, &imported, &cpi) {
            continue;
        }
        let task = format!("Uploading stemcell {named} to the cloud");
        lines.started(STAGE, &task, index).await?;
        let cid = match hand_over(context, &imported, &cpi).await? {
            Ok(cid) => cid,
            Err(error) => {
                lines.ended_badly(STAGE, &task, index, &error).await?;
                return Ok(TaskEnd::Error(error));
            }
        };
        file(context, &imported, &cpi, cid).await?;
        lines.finished(STAGE, &task, index).await?;
    }
    Ok(TaskEnd::Done(Some(format!("/stemcells/{named}"))))
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

fn filed(context: &TaskContext, imported: &ImportedStemcell, cpi: &CpiName) -> bool {
    let view = context.view();
    State::new(&*view).stemcell(&imported.manifest.name, &imported.manifest.version, cpi).is_some()
}

fn call_context(context: &TaskContext, part: &str) -> CallContext {
    let view = context.view();
    CallContext {
        director_uuid: State::new(&*view).cluster().map(|c| c.director_uuid).unwrap_or_default(),
        request_id: RequestId::new(format!("t{}-{part}-{}", context.id(), uuid::Uuid::new_v4())),
        epoch: context.fence.epoch(),
        stemcell_api_version: None,
        timeout: CLOUD,
    }
}

fn told(error: &CpiError) -> TaskError {
    TaskError::plain(error.to_string())
}

async fn hand_over(
    context: &TaskContext,
    imported: &ImportedStemcell,
    cpi: &CpiName,
) -> Result<Result<StemcellCid, TaskError>, Interrupted> {
    let Some(handle) = context.ports.cpis.get(cpi) else {
        return Ok(Err(TaskError::new(ErrorCode::CpiNotFound, format!("CPI '{cpi}' is not configured"))));
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
    let call = call_context(context, "create-stemcell");
    tokio::select! {
        created = handle.create_stemcell(&call, stemcell) => Ok(created.map_err(|e| told(&e))),
        lost = context.fence.lost() => Err(lost.into()),
    }
}

async fn file(
    context: &TaskContext,
    imported: &ImportedStemcell,
    cpi: &CpiName,
    cid: StemcellCid,
) -> Result<(), Interrupted> {
    let manifest = &imported.manifest;
    let stemcell = StemcellRecord {
        stemcell: StemcellRef {
            name: manifest.name.clone(),
            os: manifest.os.clone(),
            version: manifest.version.clone(),
            cpi: cpi.clone(),
            cid,
            api_version: manifest.api_version,
        },
        digest: manifest.digest.clone(),
        cloud_properties: manifest.cloud_properties.clone(),
        formats: manifest.formats.clone(),
        uploaded_at: Timestamp::default(),
    };
    let put = Command::StemcellPut { task: context.id(), epoch: context.fence.epoch(), stemcell };
    context.ports.log.propose(Proposal::own(put)).await?.outcome.accepted()?;
    Ok(())
}

/// Takes a stemcell back from every CPI that has it, unless a deployment uses it.
pub async fn delete_stemcell(
    context: &TaskContext,
    name: &str,
    version: &Version,
) -> Result<TaskEnd, Interrupted> {
    let (rows, users) = {
        let view = context.view();
        let state = State::new(&*view);
        let rows: Vec<StemcellRecord> = state
            .stemcells()
            .into_iter()
            .filter(|s| s.stemcell.name == name && s.stemcell.version == *version)
            .collect();
        (rows, state.deployments_with_stemcell(name, version))
    };
    if rows.is_empty() {
        let message = format!("Stemcell '{name}/{version}' doesn't exist");
        return Ok(TaskEnd::Error(TaskError::new(ErrorCode::StemcellNotFound, message)));
    }
    if !users.is_empty() {
        let users: Vec<String> = users.iter().map(ToString::to_string).collect();
        let message = format!("Stemcell '{name}/{version}' is still in use by: {}", users.join(", "));
        return Ok(TaskEnd::Error(TaskError::new(ErrorCode::StemcellInUse, message)));
    }
    for row in rows {
        if let Some(handle) = context.ports.cpis.get(&row.stemcell.cpi) {
            context.fence.check()?;
            let call = call_context(context, "delete-stemcell");
            if let Err(error) = handle.delete_stemcell(&call, &row.stemcell.cid).await {
                return Ok(TaskEnd::Error(told(&error)));
            }
        }
        let delete = Command::StemcellDelete {
            task: context.id(),
            epoch: context.fence.epoch(),
            name: name.to_owned(),
            version: version.clone(),
            cpi: row.stemcell.cpi,
        };
        match context.ports.log.propose(Proposal::own(delete)).await?.outcome.accepted() {
            Ok(_) | Err(Refusal::NotFound { .. }) => {}
            Err(Refusal::StaleEpoch { given, .. }) => return Err(crate::lease::Lost { epoch: given }.into()),
            Err(refusal) => {
                let error =
                    super::told_refusal(&refusal, ErrorCode::StemcellNotFound, ErrorCode::StemcellInUse);
                return Ok(TaskEnd::Error(error));
            }
        }
    }
    Ok(TaskEnd::Done(Some(format!("/stemcells/{name}/{version}"))))
}
