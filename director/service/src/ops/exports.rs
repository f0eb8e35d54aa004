//! Compiled releases: having one exported, and what of one that is to be uploaded is here already.

use std::collections::BTreeSet;

use model::step::PackageRefKey;
use model::task::{ReleaseExport, TaskKind};
use model::{DeploymentName, ErrorCode, Fingerprint, PackageName, RequestId, TaskId};
use state::State;

use super::deployments::{deployment_lock, existing, queued};
use crate::{Caller, Mutation, Read, Right, Service, ServiceError};

/// The longest names that are taken together: they are in an entry of the log, and no release has so many jobs.
const WISH_BYTES_MAX: usize = 64 << 10;

impl Service {
    /// Fails unless the caller may have releases exported.
    pub fn may_export(&self, caller: &Caller) -> Result<(), ServiceError> {
        caller.needs(Right::Admin, "export releases")
    }

    /// Files a task that compiles a release for a stemcell, on workers of a deployment that uses it, and packs it together. The
    /// task's result output tells where the archive is.
    pub async fn export_release(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        deployment: &DeploymentName,
        wish: ReleaseExport,
    ) -> Result<TaskId, ServiceError> {
        self.may_export(caller)?;
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let names = [wish.release.name.as_str(), wish.release.version.as_str()];
        let stemcell = [wish.stemcell.os.as_str(), wish.stemcell.version.as_str()];
        let jobs = wish.jobs.iter().map(|job| job.as_str());
        if names.into_iter().chain(stemcell).chain(jobs).map(str::len).sum::<usize>() > WISH_BYTES_MAX {
            let text = format!("the names of what is exported may have {WISH_BYTES_MAX} bytes together");
            return Err(ServiceError::told(ErrorCode::BadRequest, text));
        }
        existing(&State::new(&*looked.view), deployment)?;
        let kind = TaskKind::ExportRelease { export: Box::new(wish) };
        let locks = vec![deployment_lock(deployment)];
        self.queue(caller, request_id, kind, Some(deployment.clone()), "", locks).await
    }

    /// Returns the fingerprints of those of the packages whose source is here, so that an upload may leave it out.
    pub async fn sources_here(
        &self,
        caller: &Caller,
        packages: &[(PackageName, Fingerprint)],
    ) -> Result<Vec<Fingerprint>, ServiceError> {
        self.may_match_packages(caller)?;
        let looked = self.look(Read::Linearizable).await?;
        let releases = State::new(&*looked.view).releases();
        let stored = releases.iter().flat_map(|release| &release.packages);
        let here: BTreeSet<(&PackageName, &Fingerprint)> =
            stored.filter(|p| p.source.is_some()).map(|p| (&p.name, &p.fingerprint)).collect();
        let found = packages.iter().filter(|(name, print)| here.contains(&(name, print)));
        Ok(found.map(|(_, print)| print.clone()).collect())
    }

    /// Returns the fingerprints of those of the compiled packages that are here, for this stemcell and with these dependencies.
    pub async fn compiled_here(
        &self,
        caller: &Caller,
        packages: &[PackageRefKey],
    ) -> Result<Vec<Fingerprint>, ServiceError> {
        self.may_match_packages(caller)?;
        let looked = self.look(Read::Linearizable).await?;
        let state = State::new(&*looked.view);
        let found = packages.iter().filter(|key| state.compiled_package(key).is_some());
        Ok(found.map(|key| key.fingerprint.clone()).collect())
    }
}
