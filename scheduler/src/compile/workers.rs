//! Workers: who compiles what, one after the other where there are fewer VMs than packages.

use std::collections::{BTreeMap, BTreeSet};

use model::cloud_config::Compilation;
use model::cloud_config::compilation::WorkersAfterwards;
use model::instance::{InstanceSpec, Lifecycle, StemcellRef, WatchTime};
use model::stemcell::StemcellVersion;
use model::task::TaskError;
use model::*;
use serde_json::Value;

use super::Job;
use super::search::Missing;
use crate::address::{AddressBook, Seeker};
use crate::chance::{Ids, SeededIds};
use crate::documents::Documents;
use crate::input::PlanInput;
use crate::{network, sizes};

/// A VM that compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// The worker that it is a VM of, by position. A worker has one address and at most one VM at a time; one whose VM
    /// is left to be deleted later has only that.
    pub(super) worker: usize,
    /// The machine in whose place it comes, which must be gone by then.
    pub(super) before: Option<usize>,
}

/// Who compiles what.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) jobs: Vec<Job>,
    pub(super) machines: Vec<Machine>,
    /// The stemcell of each worker.
    pub(super) workers: Vec<StemcellVersion>,
}

/// One of the places for VMs that compile side by side.
#[derive(Debug, Default)]
struct Place {
    /// The VM that is there now, and its stemcell.
    machine: Option<(usize, StemcellVersion)>,
    /// Its workers by stemcell.
    workers: BTreeMap<StemcellVersion, usize>,
}

/// Deals packages out to VMs: plays the compilation through as if each took equally long, the last one that got ready
/// first. With reuse a VM that is free takes the next package of its stemcell; without, each package gets its own, in
/// the place and with the address of one that is done.
pub(super) fn schedule(missing: Vec<Missing>, compilation: &Compilation) -> Schedule {
    let mut waiting: Vec<BTreeSet<usize>> =
        missing.iter().map(|m| m.after.iter().copied().collect()).collect();
    let mut ready: Vec<usize> = (0..missing.len()).filter(|at| waiting[*at].is_empty()).collect();
    let mut position: Vec<usize> = vec![0; missing.len()];
    let mut schedule = Schedule::default();
    let mut places: Vec<Place> = Vec::new();
    while !ready.is_empty() {
        let mut busy = BTreeSet::new();
        let mut round = Vec::new();
        while let Some(at) = ready.pop() {
            let package = &missing[at];
            let chosen = choose(&mut places, &busy, &package.key.stemcell(), compilation);
            busy.insert(chosen);
            let machine = schedule.machine(&mut places[chosen], package.key.stemcell(), compilation);
            position[at] = schedule.jobs.len();
            let after = package.after.iter().map(|before| position[*before]).collect();
            schedule.jobs.push(Job { package: package.clone(), after, machine });
            round.push(at);
            if round.len() == compilation.workers as usize {
                break;
            }
        }
        for done in round {
            for (at, before) in waiting.iter_mut().enumerate() {
                if before.remove(&done) && before.is_empty() {
                    ready.push(at);
                }
            }
        }
    }
    schedule
}

/// Returns the place for the next package: one with a VM that can be used again, else a new one, else one whose VM must
/// go.
fn choose(
    places: &mut Vec<Place>,
    busy: &BTreeSet<usize>,
    stemcell: &StemcellVersion,
    compilation: &Compilation,
) -> usize {
    let idle = || (0..places.len()).filter(|at| !busy.contains(at));
    let fits = |at: &usize| places[*at].machine.as_ref().is_some_and(|(_, on)| on == stemcell);
    let known = |at: &usize| places[*at].workers.contains_key(stemcell);
    if let Some(at) = idle().find(|at| compilation.reuse_vms && fits(at)) {
        return at;
    }
    if compilation.reuse_vms && places.len() < compilation.workers as usize {
        places.push(Place::default());
        return places.len() - 1;
    }
    // Where a worker of this stemcell was before, its address can be used again.
    if let Some(at) = idle().find(known).or_else(|| idle().next()) {
        return at;
    }
    places.push(Place::default());
    places.len() - 1
}

impl Schedule {
    /// Returns the VM in this place: the one that is there, or a new one.
    fn machine(&mut self, place: &mut Place, stemcell: StemcellVersion, compilation: &Compilation) -> usize {
        match &place.machine {
            Some((machine, on)) if compilation.reuse_vms && *on == stemcell => return *machine,
            _ => {}
        }
        if compilation.workers_afterwards == WorkersAfterwards::Orphaned {
            // An orphaned VM keeps its address: whoever comes in its place needs another one.
            place.workers.remove(&stemcell);
        }
        let worker = *place.workers.entry(stemcell.clone()).or_insert_with(|| {
            self.workers.push(stemcell.clone());
            self.workers.len() - 1
        });
        let before = place.machine.take().map(|(machine, _)| machine);
        self.machines.push(Machine { worker, before });
        place.machine = Some((self.machines.len() - 1, stemcell));
        self.machines.len() - 1
    }
}

/// Gives every worker a name and an address.
pub(super) fn specs(
    input: &PlanInput<'_>,
    documents: &Documents,
    stemcells: &[StemcellVersion],
    book: &mut AddressBook,
) -> Result<Vec<InstanceSpec>, TaskError> {
    let mut ids = SeededIds::new(input.deployment.seed, "workers");
    stemcells.iter().map(|stemcell| worker(input, documents, stemcell, book, &mut ids)).collect()
}

fn worker(
    input: &PlanInput<'_>,
    documents: &Documents,
    wanted: &StemcellVersion,
    book: &mut AddressBook,
    ids: &mut dyn Ids,
) -> Result<InstanceSpec, TaskError> {
    let compilation = &documents.cloud.compilation;
    let cpi = sizes::cpi(&documents.cloud, compilation.az.as_ref());
    let mut cloud_properties = compilation.cloud_properties.as_object().cloned().unwrap_or_default();
    if let Some(wanted) = compilation.vm_resources {
        cloud_properties.extend(sizes::calculated(input.vm_properties, &cpi, wanted)?);
    }
    let id = InstanceId::new(ids.next());
    let group = GroupName::new(format!("compilation-{}", ids.next()));
    let who = Seeker {
        id: &id,
        label: format!("{group}/{id} (0)"),
        deployment: input.deployment.name,
        az: compilation.az.as_ref(),
    };
    let networks = vec![network::for_worker(&documents.cloud, &compilation.network, book, &who)?];
    let no_wait = WatchTime { min_ms: 0, max_ms: 0 };
    Ok(InstanceSpec {
        deployment: input.deployment.name.clone(),
        group,
        index: 0,
        az: compilation.az.clone(),
        bootstrap: false,
        lifecycle: Lifecycle::Service,
        jobs: Vec::new(),
        packages: Vec::new(),
        networks,
        stemcell: stemcell_for(input, documents, wanted, &cpi)?,
        cpi,
        vm_type: compilation.vm_type.clone(),
        cloud_properties: Value::Object(cloud_properties),
        env: compilation.env.clone(),
        persistent_disk: None,
        canary_watch_time: no_wait,
        update_watch_time: no_wait,
        tags: documents.tags.iter().cloned().collect(),
        configuration_hash: None,
        template_hashes: BTreeMap::new(),
        address: None,
        named_disks: Vec::new(),
        id,
    })
}

fn stemcell_for(
    input: &PlanInput<'_>,
    documents: &Documents,
    wanted: &StemcellVersion,
    cpi: &CpiName,
) -> Result<StemcellRef, TaskError> {
    let fits = |s: &&StemcellRef| s.os == wanted.os && s.version == wanted.version;
    let all: Vec<&StemcellRef> = input.stemcells.iter().map(|s| &s.stemcell).filter(fits).collect();
    let own = all.iter().find(|s| s.cpi == *cpi);
    let own = own.or_else(|| all.iter().find(|s| documents.cpis.is_same(cpi, &s.cpi)));
    own.map(|s| (*s).clone()).ok_or_else(|| {
        TaskError::new(
            ErrorCode::StemcellNotFound,
            format!(
                "Stemcell '{}/{}' was not uploaded to CPI '{cpi}', where packages are compiled",
                wanted.os,
                { &wanted.version }
            ),
        )
    })
}
