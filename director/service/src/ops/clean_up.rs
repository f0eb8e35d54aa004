//! What nothing uses: which of it a clean-up deletes, and having it deleted.

use std::collections::{BTreeMap, BTreeSet};

use model::instance::ReleaseRef;
use model::runtime_config::RuntimeConfig;
use model::stemcell::StemcellRecord;
use model::task::{Leftovers, TaskKind};
use model::{BlobDigest, LockName, RequestId, TaskId, Timestamp, Version, version};
use state::State;
use state::command::{Command, DNS_BLOBS_KEPT};
use state::records::{OrphanedDisk, OrphanedVm};

use super::by_hand::orphans_lock;
use super::deployments::queued;
use crate::{Caller, Mutation, Read, Right, Service, ServiceError};

/// Of what is not used, so many of the newest versions are kept of each name, unless all is to go.
const KEPT: usize = 2;

/// Of each kind, so many go in one clean-up at most; those that are left over wait for the next one. Its task's row is
/// read by every list of tasks.
const AT_A_TIME: usize = 1000;

/// How long documents of DNS records are kept in any case, as in BOSH: an agent may be about to fetch one.
const DNS_BLOBS_YOUNG_MS: i64 = 3600 * 1000;

/// What a clean-up is to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanUp {
    /// Also the newest versions, and disks.
    pub all: bool,
    /// But no disks.
    pub keep_orphaned_disks: bool,
    /// When it is asked for: what agents may be fetching just now is not taken.
    pub now: Timestamp,
}

/// What a clean-up would delete, as lists show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeftoverRows {
    /// Release versions, by name, the oldest first.
    pub releases: Vec<ReleaseRef>,
    /// Stemcells, one row for each CPI.
    pub stemcells: Vec<StemcellRecord>,
    /// Orphaned disks.
    pub disks: Vec<OrphanedDisk>,
    /// Orphaned VMs.
    pub vms: Vec<OrphanedVm>,
    /// Archives that exports left, the oldest first.
    pub exports: Vec<BlobDigest>,
    /// Old documents of DNS records, the oldest first.
    pub dns_blobs: Vec<BlobDigest>,
}

impl LeftoverRows {
    fn of(state: &State<'_>, wish: CleanUp) -> Self {
        let mut in_use = state.artifacts_in_use();
        in_use.releases.extend(of_runtime_configs(state));
        let kept = if wish.all { 0 } else { KEPT };
        let releases = state.releases().into_iter().map(|row| row.release);
        let releases = releases.filter(|release| !in_use.releases.contains(release));
        let stemcells: Vec<StemcellRecord> = state.stemcells();
        let versions: BTreeSet<(String, Version)> = stemcells.iter().map(version_of).collect();
        let unused = versions.into_iter().filter(|stemcell| !in_use.stemcells.contains(stemcell));
        let old: BTreeSet<(String, Version)> = older(unused, kept).into_iter().take(AT_A_TIME).collect();
        let disks = if wish.all && !wish.keep_orphaned_disks { state.orphaned_disks() } else { Vec::new() };
        Self {
            releases: older(releases.map(|release| (release.name, release.version)), kept)
                .into_iter()
                .take(AT_A_TIME)
                .map(|(name, version)| ReleaseRef { name, version })
                .collect(),
            stemcells: stemcells.into_iter().filter(|row| old.contains(&version_of(row))).collect(),
            disks: disks.into_iter().take(AT_A_TIME).collect(),
            vms: oldest(state.orphaned_vms()),
            exports: state.exports().into_iter().map(|(digest, _)| digest).take(AT_A_TIME).collect(),
            dns_blobs: old_dns_blobs(state, wish.now),
        }
    }

    fn ids(self) -> Leftovers {
        let stemcells: BTreeSet<(String, Version)> = self.stemcells.iter().map(version_of).collect();
        Leftovers {
            releases: self.releases,
            stemcells: stemcells.into_iter().collect(),
            disks: self.disks.into_iter().map(|orphan| orphan.disk.id).collect(),
            vms: self.vms.into_iter().map(|orphan| orphan.vm.agent).collect(),
            exports: self.exports,
            dns_blobs: self.dns_blobs,
        }
    }
}

/// Returns the documents of DNS records that are neither among the newest nor young.
fn old_dns_blobs(state: &State<'_>, now: Timestamp) -> Vec<BlobDigest> {
    let all = state.dns_blobs();
    let old = all.len().saturating_sub(DNS_BLOBS_KEPT);
    let before = Timestamp(now.0 - DNS_BLOBS_YOUNG_MS);
    let old = all.into_iter().take(old).filter(|row| row.at <= before);
    old.map(|row| row.blob).take(AT_A_TIME).collect()
}

/// Returns the command that forgets old documents of DNS records, if there are any.
pub fn dns_blobs_to_forget(state: &State<'_>, now: Timestamp) -> Option<Command> {
    let blobs = old_dns_blobs(state, now);
    let before = Timestamp(now.0 - DNS_BLOBS_YOUNG_MS);
    (!blobs.is_empty()).then_some(Command::DnsForget { blobs, before })
}

/// Returns the orphans that have waited longest, in that order.
fn oldest(mut orphans: Vec<OrphanedVm>) -> Vec<OrphanedVm> {
    orphans.sort_by(|a, b| (a.orphaned_at, &a.vm.agent).cmp(&(b.orphaned_at, &b.vm.agent)));
    orphans.truncate(AT_A_TIME);
    orphans
}

fn version_of(row: &StemcellRecord) -> (String, Version) {
    (row.stemcell.name.clone(), row.stemcell.version.clone())
}

/// Returns the releases that the runtime configs name. A config that makes no sense names none.
fn of_runtime_configs(state: &State<'_>) -> Vec<ReleaseRef> {
    let configs = state.latest_configs().into_iter().filter(|config| config.kind == "runtime");
    let parsed = configs.filter_map(|config| {
        let content = model::yaml::parse_mapping(&config.content).ok()?;
        RuntimeConfig::parse(&content).ok()
    });
    parsed.flat_map(|config| config.releases).collect()
}

/// Returns all versions but the `kept` newest of each name, the oldest first.
fn older<N: Ord + Clone>(versions: impl Iterator<Item = (N, Version)>, kept: usize) -> Vec<(N, Version)> {
    let mut by_name: BTreeMap<N, Vec<Version>> = BTreeMap::new();
    for (name, version) in versions {
        by_name.entry(name).or_default().push(version);
    }
    let mut old = Vec::new();
    for (name, mut versions) in by_name {
        versions.sort_by(|a, b| version::compare(a.as_str(), b.as_str()));
        versions.truncate(versions.len().saturating_sub(kept));
        old.extend(versions.into_iter().map(|version| (name.clone(), version)));
    }
    old
}

impl Service {
    /// Returns what a clean-up would delete now.
    pub async fn leftovers(&self, caller: &Caller, wish: CleanUp) -> Result<LeftoverRows, ServiceError> {
        caller.needs(Right::Admin, "see what a clean-up would delete")?;
        let looked = self.look(Read::Linearizable).await?;
        Ok(LeftoverRows::of(&State::new(&*looked.view), wish))
    }

    /// Deletes what nothing uses now.
    pub async fn clean_up(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        wish: CleanUp,
    ) -> Result<TaskId, ServiceError> {
        caller.needs(Right::Admin, "clean up")?;
        let looked = match self.look_for(caller, request_id.as_ref()).await? {
            Mutation::New(looked) => looked,
            Mutation::Repeated(outcome) => return queued(outcome),
        };
        let leftovers = Box::new(LeftoverRows::of(&State::new(&*looked.view), wish).ids());
        let kind = TaskKind::CleanUp { all: wish.all, leftovers };
        let locks = vec![LockName::new("lock:releases"), LockName::new("lock:stemcells"), orphans_lock()];
        self.queue(caller, request_id, kind, None, "", locks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_versions_of_each_name_are_kept() {
        let all = [("a", "9"), ("a", "10"), ("b", "1"), ("a", "8"), ("b", "1-dev"), ("c", "3")];
        let old = |kept| -> Vec<String> {
            let versions = all.iter().map(|(name, version)| (*name, Version::new(*version)));
            older(versions, kept).into_iter().map(|(name, version)| format!("{name}/{version}")).collect()
        };
        assert_eq!(old(2), ["a/8"]);
        assert_eq!(old(1), ["a/8", "a/9", "b/1-dev"]);
        assert_eq!(old(0).len(), all.len());
    }
}
