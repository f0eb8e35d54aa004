//! Deployments, and where they are used.

use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::Deployment;
use crate::tables::*;

impl State<'_> {
    /// Returns all deployments, by name.
    pub fn deployments(&self) -> Vec<Deployment> {
        DEPLOYMENTS.rows(self.kv, Direction::Forward).map(|(_, deployment)| deployment).collect()
    }

    /// Returns a deployment.
    pub fn deployment(&self, name: &DeploymentName) -> Option<Deployment> {
        DEPLOYMENTS.get(self.kv, name)
    }

    /// Returns the deployments whose last success used a release version.
    pub fn deployments_with_release(&self, name: &ReleaseName, version: &Version) -> Vec<DeploymentName> {
        let uses = |deployment: &Deployment| {
            let releases = deployment.record.iter().flat_map(|record| &record.releases);
            releases.into_iter().any(|used| used.name == *name && used.version == *version)
        };
        self.deployments().into_iter().filter(uses).map(|deployment| deployment.name).collect()
    }

    /// Returns the deployments whose last success used a stemcell.
    pub fn deployments_with_stemcell(&self, name: &str, version: &Version) -> Vec<DeploymentName> {
        let uses = |deployment: &Deployment| {
            let stemcells = deployment.record.iter().flat_map(|record| &record.stemcells);
            stemcells.into_iter().any(|(used, used_version)| used == name && used_version == version)
        };
        self.deployments().into_iter().filter(uses).map(|deployment| deployment.name).collect()
    }
}
