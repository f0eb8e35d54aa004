//! Configs, releases, stemcells, disks.

use async_trait::async_trait;
use model::instance::ReleaseRef;
use model::stemcell::StemcellVersion;
use model::task::{DigestKind, ReleaseExport};
use model::{BlobDigest, ConfigId};
use proto::v1 as pb;
use proto::v1::configs_server::Configs;
use proto::v1::disks_server::Disks;
use proto::v1::releases_server::Releases;
use proto::v1::stemcells_server::Stemcells;
use service::List;
use service::ops::{Attachment, PutConfig};
use tonic::{Request, Response, Status};

use super::convert::{filter, given, page};
use super::request_id;
use crate::door::Door;
use crate::error_map::status;
use crate::fleet::log::now;

fn config((config, current): (model::config::StoredConfig, bool)) -> pb::Config {
    pb::Config {
        id: config.id.0,
        r#type: config.kind,
        name: config.name,
        content: config.content,
        created_at_unix_ms: config.created_at.0,
        current,
        team: config.team.unwrap_or_default(),
    }
}

#[async_trait]
impl Configs for Door {
    async fn put(
        &self,
        request: Request<pb::PutConfigRequest>,
    ) -> Result<Response<pb::PutConfigResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let put = PutConfig {
            kind: wish.r#type,
            name: wish.name,
            content: wish.content,
            expected_latest: wish.expected_latest_id.map(ConfigId),
        };
        let stored = self.service.put_config(&caller, request_id(&wish.request_id), put).await;
        let (id, unchanged) = stored.map_err(status)?;
        Ok(Response::new(pb::PutConfigResponse { id: id.0, unchanged }))
    }

    async fn get(&self, request: Request<pb::GetConfigRequest>) -> Result<Response<pb::Config>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = Some(wish.id).filter(|id| *id != 0).map(ConfigId);
        let found = self.service.config(&caller, id, &wish.r#type, &wish.name).await.map_err(status)?;
        Ok(Response::new(config(found)))
    }

    async fn list(
        &self,
        request: Request<pb::ListConfigsRequest>,
    ) -> Result<Response<pb::ListConfigsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let listed =
            self.service.configs(&caller, wish.r#type, wish.name, wish.history, &page(wish.page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        Ok(Response::new(pb::ListConfigsResponse {
            configs: rows.into_iter().map(config).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteConfigRequest>,
    ) -> Result<Response<pb::DeleteConfigResponse>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let deleted = match wish.id {
            0 => self.service.delete_config(&caller, id, &wish.r#type, &wish.name).await.map(drop),
            version => self.service.delete_config_version(&caller, id, ConfigId(version)).await,
        };
        deleted.map_err(status)?;
        Ok(Response::new(pb::DeleteConfigResponse {}))
    }
}

pub(super) fn started(task: model::TaskId) -> Response<pb::TaskStarted> {
    Response::new(pb::TaskStarted { task_id: task.0 })
}

#[async_trait]
impl Releases for Door {
    async fn upload(
        &self,
        request: Request<pb::UploadReleaseRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let queued = match given(wish.location) {
            Some(location) => {
                let wanted = self.wanted(location, given(wish.digest));
                self.service.fetch_release(&caller, id, wanted, wish.rebase, wish.fix).await
            }
            None => {
                let blob = BlobDigest::new(wish.blob_digest);
                self.service.upload_release(&caller, id, blob, wish.rebase, wish.fix).await
            }
        };
        queued.map(started).map_err(status)
    }

    async fn list(
        &self,
        request: Request<pb::ListReleasesRequest>,
    ) -> Result<Response<pb::ListReleasesResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.releases(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let summary = |(release, in_use): (model::release::ReleaseVersion, bool)| pb::ReleaseSummary {
            name: release.release.name.to_string(),
            version: release.release.version.to_string(),
            commit_hash: release.commit_hash,
            uncommitted_changes: release.uncommitted_changes,
            in_use,
        };
        Ok(Response::new(pb::ListReleasesResponse {
            releases: rows.into_iter().map(summary).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn inspect(
        &self,
        request: Request<pb::ReleaseRef>,
    ) -> Result<Response<pb::ReleaseDetails>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let found = self.service.release(&caller, &wish.name.into(), &wish.version.into()).await;
        let (release, compiled) = found.map_err(status)?;
        let jobs = release.jobs.iter().map(|job| pb::ReleaseJob {
            name: job.name.to_string(),
            fingerprint: job.fingerprint.to_string(),
            digest: job.digest.clone(),
            packages: job.packages.iter().map(ToString::to_string).collect(),
            errand: job.is_errand(),
        });
        let packages = release.packages.iter().map(|package| pb::ReleasePackage {
            name: package.name.to_string(),
            fingerprint: package.fingerprint.to_string(),
            digest: package.digest.clone(),
            dependencies: package.dependencies.iter().map(ToString::to_string).collect(),
            compiled_for: compiled
                .iter()
                .filter(|c| c.key.name == package.name && c.key.fingerprint == package.fingerprint)
                .map(|c| format!("{}/{}", c.key.os, c.key.stemcell_version))
                .collect(),
        });
        Ok(Response::new(pb::ReleaseDetails {
            name: release.release.name.to_string(),
            version: release.release.version.to_string(),
            jobs: jobs.collect(),
            packages: packages.collect(),
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteReleaseRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let version = given(wish.version).map(Into::into);
        let id = request_id(&wish.request_id);
        self.service.delete_release(&caller, id, wish.name.into(), version).await.map(started).map_err(status)
    }

    async fn export(
        &self,
        request: Request<pb::ExportReleaseRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let export = ReleaseExport {
            release: ReleaseRef { name: wish.name.into(), version: wish.version.into() },
            stemcell: StemcellVersion { os: wish.stemcell_os, version: wish.stemcell_version.into() },
            jobs: wish.jobs.into_iter().map(Into::into).collect(),
            digest: DigestKind::Sha256,
        };
        let (id, deployment) = (request_id(&wish.request_id), wish.deployment.into());
        let exporting = self.service.export_release(&caller, id, &deployment, export);
        exporting.await.map(started).map_err(status)
    }
}

#[async_trait]
impl Stemcells for Door {
    async fn upload(
        &self,
        request: Request<pb::UploadStemcellRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let queued = match given(wish.location) {
            Some(location) => {
                let wanted = self.wanted(location, given(wish.digest));
                self.service.fetch_stemcell(&caller, id, wanted, wish.fix).await
            }
            None => {
                let blob = BlobDigest::new(wish.blob_digest);
                self.service.upload_stemcell(&caller, id, blob, wish.fix).await
            }
        };
        queued.map(started).map_err(status)
    }

    async fn list(
        &self,
        request: Request<pb::ListStemcellsRequest>,
    ) -> Result<Response<pb::ListStemcellsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.stemcells(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let row = |(record, in_use): (model::stemcell::StemcellRecord, bool)| pb::Stemcell {
            name: record.stemcell.name,
            version: record.stemcell.version.to_string(),
            os: record.stemcell.os,
            cpi: record.stemcell.cpi.to_string(),
            cid: record.stemcell.cid.to_string(),
            in_use,
        };
        Ok(Response::new(pb::ListStemcellsResponse {
            stemcells: rows.into_iter().map(row).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteStemcellRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let deleted =
            self.service.delete_stemcell(&caller, id, wish.name, wish.version.into(), wish.force).await;
        deleted.map(started).map_err(status)
    }
}

#[async_trait]
impl Disks for Door {
    async fn list_orphaned(
        &self,
        request: Request<pb::ListOrphanedDisksRequest>,
    ) -> Result<Response<pb::ListOrphanedDisksResponse>, Status> {
        let caller = self.caller(&request).await?;
        let listed = self.service.orphaned_disks(&caller, &page(request.into_inner().page)).await;
        let List { rows, next_page_token, revision } = listed.map_err(status)?;
        let row = |orphan: state::records::OrphanedDisk| pb::OrphanedDisk {
            cid: orphan.disk.cid.map(|c| c.to_string()).unwrap_or_default(),
            id: orphan.disk.id.to_string(),
            size_mib: orphan.disk.spec.size_mib,
            deployment: orphan.deployment.to_string(),
            instance: orphan.slug,
            az: orphan.az.map(|az| az.to_string()).unwrap_or_default(),
            orphaned_at_unix_ms: orphan.orphaned_at.0,
        };
        Ok(Response::new(pb::ListOrphanedDisksResponse {
            disks: rows.into_iter().map(row).collect(),
            next_page_token,
            as_of_revision: revision.0,
        }))
    }

    async fn delete_orphaned(
        &self,
        request: Request<pb::DeleteOrphanedDisksRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let id = request_id(&wish.request_id);
        let queued = self.service.delete_orphaned_disks(&caller, id, &wish.cids, now()).await;
        queued.map(started).map_err(status)
    }

    async fn orphan(
        &self,
        request: Request<pb::OrphanDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let pb::OrphanDiskRequest { request_id: id, cid } = request.into_inner();
        let queued = self.service.orphan_disk(&caller, request_id(&id), &cid.into()).await;
        queued.map(started).map_err(status)
    }

    async fn attach(
        &self,
        request: Request<pb::AttachDiskRequest>,
    ) -> Result<Response<pb::TaskStarted>, Status> {
        let caller = self.caller(&request).await?;
        let wish = request.into_inner();
        let attachment = Attachment {
            deployment: wish.deployment.into(),
            instance: filter(wish.instance.unwrap_or_default()),
            cid: wish.cid.into(),
            copy_properties: wish.copy_properties,
        };
        let queued = self.service.attach_disk(&caller, request_id(&wish.request_id), attachment).await;
        queued.map(started).map_err(status)
    }
}
