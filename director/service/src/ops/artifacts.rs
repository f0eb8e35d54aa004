//! Releases, stemcells, orphaned disks and leaks.

use std::collections::BTreeSet;

use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::task::TaskKind;
use model::{
    BlobDigest, DiskId, ErrorCode, EventId, LockName, ReleaseName, RequestId, TaskId, Timestamp, Version,
};
use state::State;
use state::command::Command;
use state::records::{BlobRecord, Leak, OrphanedDisk};

use crate::{Caller, Page, Read, Right, Service, ServiceError};

/// How long an orphaned disk is kept for whoever wants it back, as in BOSH: five days.
pub const ORPHANS_KEPT_MS: i64 = 5 * 24 * 3600 * 1000;

/// Returns the disks that have been orphaned for longer than they are kept.
pub fn orphans_to_delete(orphans: &[OrphanedDisk], now: Timestamp) -> Vec<DiskId> {
    let is_old = |orphan: &&OrphanedDisk| now.0.saturating_sub(orphan.orphaned_at.0) > ORPHANS_KEPT_MS;
    orphans.iter().filter(is_old).map(|orphan| orphan.disk.id.clone()).collect()
}

impl Service {
    /// Files the release archive that a blob holds.
    pub async fn upload_release(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        blob: BlobDigest,
        rebase: bool,
        fix: bool,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "upload releases")?;
        self.require_blob(&blob).await?;
        // The archive's name is only known once it is read; uploads are short and wait for each other.
        let locks = vec![LockName::new("lock:releases")];
        self.queue(caller, request_id, TaskKind::UploadRelease { blob, rebase, fix }, None, "", locks).await
    }

    /// Hands the stemcell that a blob holds to every CPI.
    pub async fn upload_stemcell(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        blob: BlobDigest,
        fix: bool,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "upload stemcells")?;
        self.require_blob(&blob).await?;
        let locks = vec![LockName::new("lock:stemcells")];
        self.queue(caller, request_id, TaskKind::UploadStemcell { blob, fix }, None, "", locks).await
    }

    async fn require_blob(&self, blob: &BlobDigest) -> Result<(), ServiceError> {
        let looked = self.look(Read::Linearizable).await?;
        match State::new(&*looked.view).blob(blob) {
            Some(_) => Ok(()),
            None => Err(ServiceError::told(
                ErrorCode::ResourceNotFound,
                format!("blob {blob} was never uploaded"),
            )),
        }
    }

    /// Returns what is known of a blob.
    pub async fn blob(
        &self,
        caller: &Caller,
        digest: &BlobDigest,
    ) -> Result<Option<BlobRecord>, ServiceError> {
        caller.needs(Right::Read, "read blobs")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).blob(digest))
    }

    /// Lists release versions, and whether a deployment uses each.
    pub async fn releases(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<(Vec<(ReleaseVersion, bool)>, String), ServiceError> {
        caller.needs(Right::Read, "list releases")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let in_use = |r: &ReleaseVersion| {
            !state.deployments_with_release(&r.release.name, &r.release.version).is_empty()
        };
        let rows = state.releases().into_iter().map(|r| {
            let used = in_use(&r);
            (r, used)
        });
        page.cut(rows.collect())
    }

    /// Returns a release version with the compiled forms of its packages.
    pub async fn release(
        &self,
        caller: &Caller,
        name: &ReleaseName,
        version: &Version,
    ) -> Result<(ReleaseVersion, Vec<CompiledPackage>), ServiceError> {
        caller.needs(Right::Read, "inspect releases")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let release = state.release(name, version).ok_or_else(|| {
            ServiceError::told(
                ErrorCode::ReleaseVersionNotFound,
                format!("Release version '{name}/{version}' doesn't exist"),
            )
        })?;
        let compiled =
            release.packages.iter().flat_map(|p| state.compiled_from(&p.name, &p.fingerprint)).collect();
        Ok((release, compiled))
    }

    /// Deletes a release version, or all of them.
    pub async fn delete_release(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: ReleaseName,
        version: Option<Version>,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete releases")?;
        let locks = vec![LockName::new("lock:releases")];
        self.queue(caller, request_id, TaskKind::DeleteRelease { name, version }, None, "", locks).await
    }

    /// Lists stemcells, and whether a deployment uses each.
    pub async fn stemcells(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<(Vec<(StemcellRecord, bool)>, String), ServiceError> {
        caller.needs(Right::Read, "list stemcells")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let used: BTreeSet<(String, Version)> = state
            .deployments()
            .into_iter()
            .flat_map(|d| d.record.map(|r| r.stemcells).unwrap_or_default())
            .collect();
        let rows = state.stemcells().into_iter().map(|s| {
            let in_use = used.contains(&(s.stemcell.name.clone(), s.stemcell.version.clone()));
            (s, in_use)
        });
        page.cut(rows.collect())
    }

    /// Deletes a stemcell from every CPI.
    pub async fn delete_stemcell(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        name: String,
        version: Version,
        force: bool,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete stemcells")?;
        let locks = vec![LockName::new("lock:stemcells")];
        self.queue(caller, request_id, TaskKind::DeleteStemcell { name, version, force }, None, "", locks)
            .await
    }

    /// Lists disks that no instance uses any more.
    pub async fn orphaned_disks(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<(Vec<OrphanedDisk>, String), ServiceError> {
        caller.needs(Right::Read, "list disks")?;
        let looked = self.look(Read::Linearizable).await?;
        page.cut(State::new(&*looked.view).orphaned_disks())
    }

    /// Deletes orphaned disks by cid; an unknown cid is an error that names it. Without a cid: all that `now` have been
    /// kept long enough.
    pub async fn delete_orphaned_disks(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        cids: &[String],
        now: Timestamp,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete disks")?;
        let looked = self.look(Read::Linearizable).await?;
        let orphans = State::new(&*looked.view).orphaned_disks();
        let find = |cid: &String| {
            let found = orphans.iter().find(|o| o.disk.cid.as_ref().is_some_and(|c| c.as_str() == cid));
            found.map(|o| o.disk.id.clone()).ok_or_else(|| {
                ServiceError::told(ErrorCode::ResourceNotFound, format!("there is no orphaned disk '{cid}'"))
            })
        };
        let disks: Vec<DiskId> = match cids {
            [] => orphans_to_delete(&orphans, now),
            cids => cids.iter().map(find).collect::<Result<_, _>>()?,
        };
        self.queue(caller, request_id, TaskKind::DeleteOrphanedDisks { disks }, None, "", Vec::new()).await
    }

    /// Lists what may exist in clouds without anybody knowing its id.
    pub async fn leaks(&self, caller: &Caller) -> Result<Vec<Leak>, ServiceError> {
        caller.needs(Right::Read, "list leaks")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).leaks())
    }

    /// Strikes a leak off the list, after somebody looked.
    pub async fn clear_leak(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        id: EventId,
    ) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "clear leaks")?;
        self.propose(caller, request_id, Command::LeakClear { id }).await.map(|_| ())
    }
}
