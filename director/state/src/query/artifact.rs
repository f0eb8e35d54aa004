//! What was uploaded: configs, blobs, releases, stemcells, and packages compiled from them.

use std::collections::BTreeSet;

use model::config::StoredConfig;
use model::cpi_config::CpiConfigs;
use model::fields::Checked;
use model::release::{CompiledPackage, ReleaseVersion};
use model::stemcell::StemcellRecord;
use model::step::PackageRefKey;
use model::*;

use super::State;
use crate::kv::Direction;
use crate::records::{BlobRecord, Forgettable};
use crate::tables::*;

impl<'a> State<'a> {
    /// Returns a version of a config, deleted or not.
    pub fn config(&self, id: ConfigId) -> Option<StoredConfig> {
        CONFIGS.get(self.kv, &id)
    }

    /// Returns the newest version of a config that is not deleted.
    pub fn latest_config(&self, kind: &str, name: &str) -> Option<StoredConfig> {
        let id = CONFIGS_LATEST.get(self.kv, &(kind.to_owned(), name.to_owned()))?;
        self.config(id)
    }

    /// Returns the newest version of every config that is not deleted, by type and name.
    pub fn latest_configs(&self) -> Vec<StoredConfig> {
        let latest = CONFIGS_LATEST.rows(self.kv, Direction::Forward);
        latest.filter_map(|(_, id)| self.config(id)).collect()
    }

    /// Returns the clouds that CPI configs name. Fails if they can't be read.
    pub fn cpi_configs(&self) -> Checked<CpiConfigs> {
        let mut found = self.latest_configs();
        found.retain(|config| config.kind == "cpi" && !config.deleted);
        CpiConfigs::parse(found.iter().map(|config| config.content.as_str()))
    }

    /// Returns all versions of a config, newest first, deleted ones included.
    pub fn config_history(&self, kind: &str, name: &str, limit: usize) -> Vec<StoredConfig> {
        self.config_versions(kind, name).take(limit).collect()
    }

    /// Returns all versions of all configs, newest first, deleted ones included.
    pub fn configs(&self, limit: usize) -> Vec<StoredConfig> {
        CONFIGS.rows(self.kv, Direction::Reverse).map(|(_, config)| config).take(limit).collect()
    }

    /// Returns all versions of all configs before a number, newest first, deleted ones included, as they are read.
    pub fn configs_before(&self, before: Option<ConfigId>) -> impl Iterator<Item = StoredConfig> + use<'a> {
        let end = before.unwrap_or(ConfigId(u64::MAX));
        CONFIGS.rows_before(self.kv, &end).map(|(_, config)| config)
    }

    fn config_versions(&self, kind: &str, name: &str) -> impl Iterator<Item = StoredConfig> {
        let kv = self.kv;
        CONFIGS_BY_NAME
            .rows_of(kv, &(kind.to_owned(), name.to_owned()), Direction::Reverse)
            .filter_map(move |((_, _, id), ())| CONFIGS.get(kv, &id))
    }

    /// Returns what is known of every blob.
    pub fn blobs(&self) -> Vec<BlobRecord> {
        BLOBS.rows(self.kv, Direction::Forward).map(|(_, blob)| blob).collect()
    }

    /// Returns what is known of a blob.
    pub fn blob(&self, digest: &BlobDigest) -> Option<BlobRecord> {
        BLOBS.get(self.kv, digest)
    }

    /// Returns a blob that somebody holds: copies of replicas that were removed count no more. One that is known and that
    /// nobody holds must be uploaded again.
    pub fn held_blob(&self, digest: &BlobDigest) -> Option<BlobRecord> {
        let mut blob = self.blob(digest)?;
        blob.nodes.retain(|node| self.member(*node).is_some());
        Some(blob).filter(|blob| !blob.nodes.is_empty())
    }

    /// Returns the blobs that tasks left to be fetched for some days, and when.
    pub fn bundles(&self) -> impl Iterator<Item = (BlobDigest, Timestamp)> + use<'a> {
        BUNDLES.rows(self.kv, Direction::Forward)
    }

    /// Returns those of them that are exported releases, and when each was left, the oldest task's first.
    pub fn exports(&self) -> Vec<(BlobDigest, Timestamp)> {
        let mut found: Vec<_> = EXPORTS.rows(self.kv, Direction::Forward).collect();
        found.sort_by_key(|(_, task)| *task);
        let left_at = |digest: BlobDigest| Some((digest.clone(), BUNDLES.get(self.kv, &digest)?));
        found.into_iter().filter_map(|(digest, _)| left_at(digest)).collect()
    }

    /// Returns whether a blob is to be forgotten unless something names it again.
    pub fn is_forgettable(&self, digest: &BlobDigest) -> bool {
        FORGETTABLE.has(self.kv, digest)
    }

    /// Returns the blobs that deletions left until `before`, of which no task can be about to name one because it has found it
    /// before it was left.
    pub fn forgettable_blobs(&self, before: Timestamp) -> BTreeSet<BlobDigest> {
        let first_open = TASKS_OPEN.rows(self.kv, Direction::Forward).next().map(|(task, ())| task);
        let is_due =
            |left: &Forgettable| left.since <= before && first_open.is_none_or(|open| left.task < open);
        let left = FORGETTABLE.rows(self.kv, Direction::Forward);
        left.filter(|(_, left)| is_due(left)).map(|(digest, _)| digest).collect()
    }

    /// Returns all release versions, by name and version text.
    pub fn releases(&self) -> Vec<ReleaseVersion> {
        RELEASES.rows(self.kv, Direction::Forward).map(|(_, release)| release).collect()
    }

    /// Returns the versions of one release.
    pub fn release_versions(&self, name: &ReleaseName) -> Vec<ReleaseVersion> {
        RELEASES.rows_of(self.kv, name, Direction::Forward).map(|(_, release)| release).collect()
    }

    /// Returns a release version.
    pub fn release(&self, name: &ReleaseName, version: &Version) -> Option<ReleaseVersion> {
        RELEASES.get(self.kv, &(name.clone(), version.clone()))
    }

    /// Returns all stemcells, one per CPI.
    pub fn stemcells(&self) -> Vec<StemcellRecord> {
        STEMCELLS.rows(self.kv, Direction::Forward).map(|(_, stemcell)| stemcell).collect()
    }

    /// Returns a stemcell's row of one CPI.
    pub fn stemcell(&self, name: &str, version: &Version, cpi: &CpiName) -> Option<StemcellRecord> {
        STEMCELLS.get(self.kv, &(name.to_owned(), version.clone(), cpi.clone()))
    }

    /// Returns a compiled package.
    pub fn compiled_package(&self, key: &PackageRefKey) -> Option<CompiledPackage> {
        COMPILED.get(self.kv, key)
    }

    /// Returns everything that was compiled from a package, on all stemcells.
    pub fn compiled_from(&self, name: &PackageName, fingerprint: &Fingerprint) -> Vec<CompiledPackage> {
        let prefix = (name.clone(), fingerprint.clone());
        COMPILED.rows_of(self.kv, &prefix, Direction::Forward).map(|(_, package)| package).collect()
    }

    /// Returns all compiled packages.
    pub fn compiled_packages(&self) -> Vec<CompiledPackage> {
        COMPILED.rows(self.kv, Direction::Forward).map(|(_, package)| package).collect()
    }
}
