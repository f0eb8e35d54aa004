//! Parts of releases by what they are called: jobs by fingerprint, and where the sources of packages are.

use model::release::JobInfo;
use model::{BlobDigest, ErrorCode, Fingerprint};
use state::State;
use state::records::BlobRecord;

use crate::{Caller, Read, Right, Service, ServiceError};

/// Which job is meant.
#[derive(Clone, Debug, Default)]
pub struct JobQuestion {
    /// Of this release, in any version.
    pub release: String,
    /// Its name.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

impl Service {
    /// Returns a job that some version of a release has.
    pub async fn job(&self, caller: &Caller, of: JobQuestion) -> Result<Option<JobInfo>, ServiceError> {
        caller.needs(Right::Read, "look for jobs")?;
        let is_it = move |job: &JobInfo| job.name.as_str() == of.name && job.fingerprint == of.fingerprint;
        let find = move |state: &State<'_>| {
            let versions = state.release_versions(&of.release.as_str().into());
            Ok(versions.into_iter().flat_map(|version| version.jobs).find(is_it))
        };
        Ok(self.read(Read::Linearizable, find).await?.0)
    }

    /// Returns the blob that is the source of some package.
    pub async fn package_source(&self, caller: &Caller, blob: &str) -> Result<BlobRecord, ServiceError> {
        caller.needs(Right::Read, "read the sources of packages")?;
        let digest = BlobDigest::new(blob);
        let find = move |state: &State<'_>| {
            let packages = state.releases().into_iter().flat_map(|release| release.packages);
            let is_source = packages.into_iter().any(|package| package.source.as_ref() == Some(&digest));
            Ok(state.held_blob(&digest).filter(|_| is_source))
        };
        let (found, _) = self.read(Read::Linearizable, find).await?;
        found.ok_or_else(|| {
            let text = format!("Package with blobstore id: {blob} does not exist");
            ServiceError::told(ErrorCode::BadRequest, text)
        })
    }
}
