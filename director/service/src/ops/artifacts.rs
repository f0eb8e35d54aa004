//! Releases, stemcells, orphans and leaks.

use std::collections::{BTreeMap, BTreeSet};

use model::plan::DeploymentRecord;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::task::{RemoteArchive, TaskKind, TaskState};
use model::{
    AgentId, BlobDigest, CpiName, DeploymentName, DiskId, ErrorCode, EventId, LockName, ReleaseName,
    RequestId, TaskId, Timestamp, Version,
};
use serde_json::Value;
use state::State;
use state::command::Command;
use state::query::TaskFilter;
use state::records::{BlobRecord, Leak, OrphanedDisk, OrphanedVm, Sealed};

use super::by_hand::orphans_lock;
use super::deployments::queued;
use crate::{Caller, List, Mutation, Page, Read, Right, Service, ServiceError};

/// How long an orphaned disk is kept for whoever wants it back, as in BOSH: five days.
pub const ORPHANS_KEPT_MS: i64 = 5 * 24 * 3600 * 1000;

/// Returns the disks that have been orphaned for longer than they are kept.
pub fn orphans_to_delete(orphans: &[OrphanedDisk], now: Timestamp) -> Vec<DiskId> {
    let is_old = |orphan: &&OrphanedDisk| now.0.saturating_sub(orphan.orphaned_at.0) > ORPHANS_KEPT_MS;
    orphans.iter().filter(is_old).map(|orphan| orphan.disk.id.clone()).collect()
}

/// Returns the clouds that stemcells are uploaded to: those of the CPI configs, or else the default one. Configs that can't be
/// read name none; whoever uploads is told why.
fn clouds(state: &State<'_>) -> Vec<CpiName> {
    match state.cpi_configs().unwrap_or_default().entries() {
        [] => vec![CpiName::default()],
        entries => entries.iter().map(|entry| entry.name.clone()).collect(),
    }
}

fn has_cid(orphan: &OrphanedDisk, cid: &str) -> bool {
    orphan.disk.cid.as_ref().is_some_and(|known| known.as_str() == cid)
}

/// Orphaned VMs that one task deletes; those that are left over wait for the next one.
const ORPHANED_VMS_AT_A_TIME: usize = 1000;

/// Returns the orphaned VMs that a task is to delete; none while another one is at it.
pub fn orphaned_vms_to_delete(state: &State<'_>) -> Vec<AgentId> {
    let open = TaskFilter {
        states: vec![TaskState::Queued, TaskState::Processing, TaskState::Cancelling],
        ..TaskFilter::default()
    };
    if state.tasks(&open).iter().any(|task| matches!(task.kind, TaskKind::DeleteOrphanedVms { .. })) {
        return Vec::new();
    }
    state.orphaned_vms().into_iter().map(|orphan| orphan.vm.agent).take(ORPHANED_VMS_AT_A_TIME).collect()
}

/// The longest URL, and the longest digest text: those with signatures have some thousand bytes.
const LOCATION_BYTES_MAX: usize = 16 << 10;

/// Seals a value for a name.
pub type Seal = Box<dyn Fn(&str, &Value) -> Sealed + Send + Sync>;

/// An archive that is to be fetched.
pub struct Wanted {
    /// Its URL.
    pub location: String,
    /// What its content must have.
    pub digest: Option<String>,
    /// Seals a text for a name: the URL may hold what opens the place where it lies.
    pub seal: Seal,
}

impl Wanted {
    /// Returns it as it is stored. Whether its URL leads anywhere is found out by who fetches it.
    fn archive(&self) -> Result<RemoteArchive, ServiceError> {
        let digest = self.digest.as_deref().map(str::trim).filter(|digest| !digest.is_empty());
        let longest = self.location.len().max(digest.map_or(0, str::len));
        if self.location.trim().is_empty() || longest > LOCATION_BYTES_MAX {
            let text = format!("the location of an archive is a URL of at most {LOCATION_BYTES_MAX} bytes");
            return Err(ServiceError::told(ErrorCode::ValidationInvalidValue, text));
        }
        let location = (self.seal)(RemoteArchive::SEALED_AS, &Value::from(self.location.as_str()));
        Ok(RemoteArchive { location, digest: digest.map(Into::into) })
    }
}

impl Service {
    /// Fails unless the caller may bring an archive.
    pub fn may_upload(&self, caller: &Caller, right: Right) -> Result<(), ServiceError> {
        caller.needs(right, "upload archives")
    }

    /// Fails unless the caller may read blobs: rendered archives and logs may hold secrets.
    pub fn may_download(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "download blobs")
    }

    /// Fails unless the caller may ask which parts of a release are here. Who may no more than upload is refused, as in
    /// BOSH: the CLI then sends everything.
    pub fn may_match_packages(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "compare packages")
    }

    /// Files the release archive that a blob holds.
    pub async fn upload_release(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        blob: BlobDigest,
        rebase: bool,
        fix: bool,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::UploadReleases, "upload releases")?;
        if let Some(task) = self.filed_or_blob_there(caller, request_id.as_ref(), &blob).await? {
            return Ok(task);
        }
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
        caller.needs(Right::UploadStemcells, "upload stemcells")?;
        if let Some(task) = self.filed_or_blob_there(caller, request_id.as_ref(), &blob).await? {
            return Ok(task);
        }
        let locks = vec![LockName::new("lock:stemcells")];
        self.queue(caller, request_id, TaskKind::UploadStemcell { blob, fix }, None, "", locks).await
    }

    /// Has a release archive fetched and filed.
    pub async fn fetch_release(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        wanted: Wanted,
        rebase: bool,
        fix: bool,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::UploadReleases, "upload releases")?;
        let kind = TaskKind::FetchRelease { archive: wanted.archive()?, rebase, fix };
        self.queue(caller, request_id, kind, None, "", vec![LockName::new("lock:releases")]).await
    }

    /// Has a stemcell archive fetched and handed to every CPI.
    pub async fn fetch_stemcell(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        wanted: Wanted,
        fix: bool,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::UploadStemcells, "upload stemcells")?;
        let kind = TaskKind::FetchStemcell { archive: wanted.archive()?, fix };
        self.queue(caller, request_id, kind, None, "", vec![LockName::new("lock:stemcells")]).await
    }

    /// Returns the task of a request that was filed before; for a new one, fails unless the blob is there.
    async fn filed_or_blob_there(
        &self,
        caller: &Caller,
        request_id: Option<&RequestId>,
        blob: &BlobDigest,
    ) -> Result<Option<TaskId>, ServiceError> {
        match self.look_for(caller, request_id).await? {
            Mutation::Repeated(outcome) => queued(outcome).map(Some),
            Mutation::New(looked) if State::new(&*looked.view).held_blob(blob).is_some() => Ok(None),
            Mutation::New(_) => {
                let text = format!("blob {blob} was never uploaded");
                Err(ServiceError::told(ErrorCode::ResourceNotFound, text))
            }
        }
    }

    /// Returns a blob that somebody holds, and who does.
    pub async fn blob(
        &self,
        caller: &Caller,
        digest: &BlobDigest,
    ) -> Result<Option<BlobRecord>, ServiceError> {
        // Who uploads one looks first whether it is there.
        if !caller.has(Right::Upload) {
            caller.needs(Right::Read, "read blobs")?;
        }
        let looked = self.look(Read::Linearizable).await?;
        Ok(State::new(&*looked.view).held_blob(digest))
    }

    /// Lists release versions, and whether a deployment uses each.
    pub async fn releases(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<List<(ReleaseVersion, bool)>, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "list releases")?;
        self.list(Read::Linearizable, page, |state, page| {
            // Each deployment is read once, not for each release.
            let used: BTreeSet<(ReleaseName, Version)> = records(state)
                .flat_map(|record| record.releases)
                .map(|release| (release.name, release.version))
                .collect();
            let key = |r: &ReleaseVersion| (r.release.name.clone(), r.release.version.clone());
            let (releases, next) = page.cut(state.releases(), key)?;
            let with_use = |r: ReleaseVersion| {
                let in_use = used.contains(&key(&r));
                (r, in_use)
            };
            Ok((releases.into_iter().map(with_use).collect(), next))
        })
        .await
    }

    /// Returns a release version with the compiled forms of its packages.
    pub async fn release(
        &self,
        caller: &Caller,
        name: &ReleaseName,
        version: &Version,
    ) -> Result<(ReleaseVersion, Vec<CompiledPackage>), ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "inspect releases")?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let missing = || match state.release_versions(name).is_empty() {
            true => ServiceError::told(ErrorCode::ReleaseNotFound, format!("Release '{name}' doesn't exist")),
            false => ServiceError::told(
                ErrorCode::ReleaseVersionNotFound,
                format!("Release version '{name}/{version}' doesn't exist"),
            ),
        };
        let release = state.release(name, version).ok_or_else(missing)?;
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
    ) -> Result<List<(StemcellRecord, bool)>, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "list stemcells")?;
        self.list(Read::Linearizable, page, |state, page| {
            let used: BTreeSet<(String, Version)> = records(state).flat_map(|r| r.stemcells).collect();
            let key = |s: &StemcellRecord| {
                (s.stemcell.name.clone(), s.stemcell.version.clone(), s.stemcell.cpi.clone())
            };
            let (stemcells, next) = page.cut(state.stemcells(), key)?;
            let with_use = |s: StemcellRecord| {
                let in_use = used.contains(&(s.stemcell.name.clone(), s.stemcell.version.clone()));
                (s, in_use)
            };
            Ok((stemcells.into_iter().map(with_use).collect(), next))
        })
        .await
    }

    /// Returns whether some cloud that zones may be in lacks a stemcell.
    pub async fn is_stemcell_needed(
        &self,
        caller: &Caller,
        name: String,
        version: String,
    ) -> Result<bool, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "ask whether a stemcell is needed")?;
        let needed = self.read(Read::Linearizable, move |state| {
            let there = state.stemcells().into_iter().map(|record| record.stemcell);
            let there = there.filter(|found| found.name == name && found.version.as_str() == version);
            let has: BTreeSet<CpiName> = there.map(|found| found.cpi).collect();
            Ok(clouds(state).iter().any(|cloud| !has.contains(cloud)))
        });
        Ok(needed.await?.0)
    }

    /// Returns the deployments that use each stemcell.
    pub async fn stemcell_users(
        &self,
        caller: &Caller,
    ) -> Result<BTreeMap<(String, Version), Vec<DeploymentName>>, ServiceError> {
        caller.needs(Right::ReadOrTeamAdmin, "list stemcells")?;
        let find = |state: &State<'_>| {
            let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for deployment in state.deployments_from(None) {
                for stemcell in deployment.record.map(|record| record.stemcells).unwrap_or_default() {
                    users.entry(stemcell).or_default().push(deployment.name.clone());
                }
            }
            Ok(users)
        };
        Ok(self.read(Read::Linearizable, find).await?.0)
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

    /// Lists VMs that no instance uses any more.
    pub async fn orphaned_vms(&self, caller: &Caller, page: &Page) -> Result<List<OrphanedVm>, ServiceError> {
        caller.needs(Right::Admin, "list VMs")?;
        self.list(Read::Linearizable, page, |state, page| {
            page.cut(state.orphaned_vms(), |orphan| orphan.vm.agent.clone())
        })
        .await
    }

    /// Lists disks that no instance uses any more.
    pub async fn orphaned_disks(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<List<OrphanedDisk>, ServiceError> {
        caller.needs(Right::Admin, "list disks")?;
        self.list(Read::Linearizable, page, |state, page| {
            page.cut(state.orphaned_disks(), |orphan| orphan.disk.id.clone())
        })
        .await
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
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let orphans = State::new(&*looked.view).orphaned_disks();
        let find = |cid: &String| {
            let found = orphans.iter().find(|orphan| has_cid(orphan, cid));
            found.map(|o| o.disk.id.clone()).ok_or_else(|| {
                ServiceError::told(ErrorCode::ResourceNotFound, format!("there is no orphaned disk '{cid}'"))
            })
        };
        let disks: Vec<DiskId> = match cids {
            [] => orphans_to_delete(&orphans, now),
            cids => cids.iter().map(find).collect::<Result<_, _>>()?,
        };
        self.queue_deletion(caller, request_id, disks).await
    }

    /// Deletes an orphaned disk; one that is not there counts as deleted, as in BOSH.
    pub async fn delete_orphaned_disk(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        cid: &str,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "delete disks")?;
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let orphans = State::new(&*looked.view).orphaned_disks().into_iter();
        let disks = orphans.filter(|orphan| has_cid(orphan, cid)).map(|orphan| orphan.disk.id).collect();
        self.queue_deletion(caller, request_id, disks).await
    }

    async fn queue_deletion(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        disks: Vec<DiskId>,
    ) -> Result<TaskId, ServiceError> {
        let (kind, locks) = (TaskKind::DeleteOrphanedDisks { disks }, vec![orphans_lock()]);
        self.queue(caller, request_id, kind, None, "", locks).await
    }

    /// Lists what may exist in clouds without anybody knowing its id, and what may still come to.
    pub async fn leaks(&self, caller: &Caller, page: &Page) -> Result<List<ListedLeak>, ServiceError> {
        caller.needs(Right::Read, "list leaks")?;
        self.list(Read::Linearizable, page, |state, page| {
            page.cut(listed_leaks(state), |listed| listed.leak.id)
        })
        .await
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

/// A line of the list of leaks.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedLeak {
    /// What it is.
    pub leak: Leak,
    /// What may still appear: for how long the leader still looks for it.
    pub looked_for_ms: u64,
}

/// Returns the list of leaks, by number.
fn listed_leaks(state: &State<'_>) -> Vec<ListedLeak> {
    let lost = state.leaks().into_iter().map(|leak| ListedLeak { leak, looked_for_ms: 0 });
    let late = state.latecomers();
    let late = late.iter().map(|row| ListedLeak { leak: row.as_leak(), looked_for_ms: row.left_ms });
    let mut listed: Vec<ListedLeak> = lost.chain(late).collect();
    listed.sort_by_key(|listed| listed.leak.id);
    listed
}

/// The last successes of all deployments.
fn records<'a>(state: &State<'a>) -> impl Iterator<Item = DeploymentRecord> + use<'a> {
    state.deployments_from(None).filter_map(|deployment| deployment.record)
}
