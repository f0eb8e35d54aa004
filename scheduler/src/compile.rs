//! Compilation: which packages must be compiled, in what order and on which workers (`spec/manifest.md` §11).

use std::collections::{BTreeMap, BTreeSet};

use model::cloud_config::Compilation;
use model::instance::{InstanceSpec, Lifecycle, StemcellRef, WatchTime};
use model::manifest::{ManifestRelease, Stock};
use model::plan::{Fate, Phase, Stage, Target, Unit, Wave};
use model::release::{CompiledPackage, PackageInfo, ReleaseVersion};
use model::step::{Action, PackageRefKey};
use model::task::TaskError;
use model::{instance::InstanceState, *};

use crate::address::{AddressBook, Seeker};
use crate::bind::{BoundGroup, DependencyKeys};
use crate::chance::{Ids, SeededIds};
use crate::documents::Documents;
use crate::input::PlanInput;
use crate::network;
use crate::steps::{Steps, Units};

/// A package to compile, after others, by a worker.
#[derive(Clone, Debug, PartialEq)]
struct Job {
    key: PackageRefKey,
    /// Positions of jobs that must be done before.
    after: Vec<usize>,
    worker: usize,
}

/// All that must be compiled, and on what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    jobs: Vec<Job>,
    workers: Vec<InstanceSpec>,
    at_once: u32,
}

/// A package on a stemcell.
type Wanted = (PackageName, Fingerprint, String, StemcellId);

/// A stemcell whatever CPI it is in: a package compiled in one is good in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StemcellId {
    os: String,
    version: Version,
}

impl Needs {
    /// Finds what is missing, orders it, and gives the workers their places and addresses.
    pub(crate) fn of(
        input: &PlanInput<'_>,
        documents: &Documents,
        groups: &[BoundGroup<'_>],
        stock: Stock<'_>,
        book: &mut AddressBook,
    ) -> Result<Self, TaskError> {
        let mut search = Search::new(input.compiled);
        for bound in groups {
            let wanted = documents.manifest.stemcells.iter().find(|s| s.alias == bound.group.stemcell);
            let records = wanted.map(|s| stock.stemcells(s)).transpose()?.unwrap_or_default();
            let Some(stemcell) = records.first() else { continue };
            let stemcell = StemcellId { os: stemcell.os.clone(), version: stemcell.version.clone() };
            for job in &bound.jobs {
                let source = documents.manifest.releases.iter().find(|r| r.release == job.release.release);
                for package in job.info.packages.iter().filter_map(|p| job.release.package(p.as_str())) {
                    search.require(job.release, source, package, &stemcell)?;
                }
            }
        }
        search.check()?;
        let compilation = &documents.cloud.compilation;
        let (jobs, stemcells) = schedule(search.found, compilation);
        let mut ids = SeededIds::new(input.deployment.seed, "workers");
        let mut workers = Vec::with_capacity(stemcells.len());
        for stemcell in stemcells {
            workers.push(worker(input, documents, &stemcell, book, &mut ids)?);
        }
        Ok(Self { jobs, workers, at_once: compilation.workers })
    }

    /// Makes the compile phase, and targets for its workers.
    pub(crate) fn phase(&self, units: &mut Units, agents: &mut dyn Ids) -> Option<(Phase, Vec<Target>)> {
        if self.jobs.is_empty() {
            return None;
        }
        let agents: Vec<AgentId> = self.workers.iter().map(|_| AgentId::new(agents.next())).collect();
        let mut numbers: Vec<UnitNo> = Vec::new();
        let mut last: BTreeMap<usize, Vec<UnitNo>> = BTreeMap::new();
        let mut compiling = Vec::new();
        for job in &self.jobs {
            let (spec, agent) = (&self.workers[job.worker], &agents[job.worker]);
            let mut steps = Steps::default();
            let earlier = last.entry(job.worker).or_default();
            if earlier.is_empty() {
                steps.create_vm(&spec.id, agent);
                steps.bind_vm(&spec.id, agent);
            }
            steps.push(Action::SetVmMetadata {
                instance: spec.id.clone(),
                agent: agent.clone(),
                compiling: Some(job.key.name.clone()),
            });
            steps.push(Action::CompilePackage {
                worker: spec.id.clone(),
                agent: agent.clone(),
                package: job.key.clone(),
            });
            let mut after: BTreeSet<UnitNo> = job.after.iter().map(|at| numbers[*at]).collect();
            after.extend(earlier.last());
            let unit = units.unit(format!("{}/{}", job.key.name, job.key.fingerprint), after, steps);
            numbers.push(unit.no);
            earlier.push(unit.no);
            compiling.push(unit);
        }
        let cleanup = self.workers.iter().enumerate().map(|(at, spec)| {
            let mut steps = Steps::default();
            steps.push(Action::DeleteVm { instance: spec.id.clone(), agent: agents[at].clone() });
            steps.push(Action::DeleteInstance { instance: spec.id.clone() });
            let after = last.get(&at).into_iter().flatten().copied().collect();
            Unit { cleanup: true, ..units.unit(format!("{}/{} (0)", spec.group, spec.id), after, steps) }
        });
        let cleanup: Vec<Unit> = cleanup.collect();
        let stage = |title: Option<&str>, units: Vec<Unit>| Stage {
            title: title.map(str::to_owned),
            tags: Vec::new(),
            total: units.len() as u32,
            waves: vec![Wave { max_in_flight: self.at_once, units }],
        };
        let targets = self.workers.iter().map(|spec| Target {
            spec: spec.clone(),
            state: InstanceState::Started,
            fate: Fate::New,
            changes: Vec::new(),
            compilation: true,
        });
        let stages = vec![stage(Some("Compiling packages"), compiling), stage(None, cleanup)];
        Some((Phase { stages }, targets.collect()))
    }
}

/// Collects what is missing.
struct Search<'a> {
    by_package: BTreeMap<(&'a PackageName, &'a Fingerprint, &'a str), Vec<&'a CompiledPackage>>,
    keys: DependencyKeys,
    /// What was looked at, and where it is in `found` if it must be compiled.
    seen: BTreeMap<Wanted, Option<usize>>,
    /// Packages to compile with positions of those before them: dependencies come first.
    found: Vec<(PackageRefKey, Vec<usize>)>,
    sourceless: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Search<'a> {
    fn new(compiled: &'a [CompiledPackage]) -> Self {
        let mut by_package: BTreeMap<_, Vec<&CompiledPackage>> = BTreeMap::new();
        for package in compiled {
            let key = &package.key;
            by_package
                .entry((&key.name, &key.fingerprint, key.dependency_key.as_str()))
                .or_default()
                .push(package);
        }
        Self {
            by_package,
            keys: DependencyKeys::default(),
            seen: BTreeMap::new(),
            found: Vec::new(),
            sourceless: BTreeMap::new(),
        }
    }

    fn require(
        &mut self,
        release: &ReleaseVersion,
        source: Option<&ManifestRelease>,
        package: &PackageInfo,
        stemcell: &StemcellId,
    ) -> Result<Option<usize>, TaskError> {
        let key = self.keys.of(release, package);
        let wanted = (package.name.clone(), package.fingerprint.clone(), key.clone(), stemcell.clone());
        if let Some(known) = self.seen.get(&wanted) {
            return Ok(*known);
        }
        if self.is_compiled(package, &key, source, stemcell) {
            self.seen.insert(wanted, None);
            return Ok(None);
        }
        if source.is_some_and(|s| !s.exported_from.is_empty()) {
            return Err(TaskError::new(
                ErrorCode::PackageMissingExportedFrom,
                format!(
                    "Can't use release '{}/{}': package '{}/{}' has no compiled form for any stemcell in 'exported_from'",
                    release.release.name, release.release.version, package.name, package.fingerprint
                ),
            ));
        }
        if package.source.is_none() {
            let of = format!("{}/{}", release.release.name, release.release.version);
            let line = format!("{}/{}", package.name, package.fingerprint);
            self.sourceless.entry(of).or_default().insert(line);
            self.seen.insert(wanted, None);
            return Ok(None);
        }
        let mut after = Vec::new();
        for name in &package.dependencies {
            if let Some(dependency) = release.package(name.as_str()) {
                after.extend(self.require(release, source, dependency, stemcell)?);
            }
        }
        let at = self.found.len();
        let key = PackageRefKey {
            name: package.name.clone(),
            fingerprint: package.fingerprint.clone(),
            os: stemcell.os.clone(),
            stemcell_version: stemcell.version.clone(),
            dependency_key: key,
        };
        self.found.push((key, after));
        self.seen.insert(wanted, Some(at));
        Ok(Some(at))
    }

    fn is_compiled(
        &self,
        package: &PackageInfo,
        key: &str,
        source: Option<&ManifestRelease>,
        stemcell: &StemcellId,
    ) -> bool {
        let results = self.by_package.get(&(&package.name, &package.fingerprint, key));
        let mut results = results.into_iter().flatten().map(|p| &p.key);
        let exported = source.map_or(&[][..], |s| &s.exported_from);
        let line = |v: &str| v.split(['.', '_', '-']).next().map(str::to_owned);
        results.any(|r| {
            let exact = r.os == stemcell.os && r.stemcell_version == stemcell.version;
            let listed = exported.iter().any(|(os, v)| *os == r.os && *v == r.stemcell_version.as_str());
            // Without source there is no other way, so any stemcell of the same line has to do.
            let same_line = package.source.is_none()
                && r.os == stemcell.os
                && line(r.stemcell_version.as_str()) == line(stemcell.version.as_str());
            if exported.is_empty() { exact || same_line } else { listed }
        })
    }

    /// Packages without source that nobody compiled for this stemcell cannot come from anywhere (60001).
    fn check(&self) -> Result<(), TaskError> {
        let Some((release, packages)) = self.sourceless.first_key_value() else { return Ok(()) };
        let lines: Vec<String> = packages.iter().map(|p| format!(" - {p}")).collect();
        Err(TaskError::new(
            ErrorCode::PackageMissingSourceCode,
            format!(
                "Can't use release '{release}'. It references packages without source code and are not compiled against the stemcell:\n{}",
                lines.join("\n")
            ),
        ))
    }
}

/// Deals packages out to workers: plays the compilation through as if each took equally long, the last one that got
/// ready first. With reuse a worker that is free takes the next package of its stemcell; without, everybody is new.
fn schedule(
    found: Vec<(PackageRefKey, Vec<usize>)>,
    compilation: &Compilation,
) -> (Vec<Job>, Vec<StemcellId>) {
    let mut waiting: Vec<BTreeSet<usize>> =
        found.iter().map(|(_, after)| after.iter().copied().collect()).collect();
    let mut ready: Vec<usize> = (0..found.len()).filter(|at| waiting[*at].is_empty()).collect();
    let mut position: Vec<usize> = vec![0; found.len()];
    let (mut jobs, mut workers): (Vec<Job>, Vec<StemcellId>) = (Vec::new(), Vec::new());
    while !ready.is_empty() {
        let mut busy = BTreeSet::new();
        let mut round = Vec::new();
        while let Some(at) = ready.pop() {
            let key = &found[at].0;
            let stemcell = StemcellId { os: key.os.clone(), version: key.stemcell_version.clone() };
            let idle = (0..workers.len())
                .find(|w| compilation.reuse_vms && !busy.contains(w) && workers[*w] == stemcell);
            let worker = idle.unwrap_or_else(|| {
                workers.push(stemcell);
                workers.len() - 1
            });
            busy.insert(worker);
            position[at] = jobs.len();
            let after = found[at].1.iter().map(|before| position[*before]).collect();
            jobs.push(Job { key: key.clone(), after, worker });
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
    (jobs, workers)
}

fn worker(
    input: &PlanInput<'_>,
    documents: &Documents,
    wanted: &StemcellId,
    book: &mut AddressBook,
    ids: &mut dyn Ids,
) -> Result<InstanceSpec, TaskError> {
    let compilation = &documents.cloud.compilation;
    let zone = compilation.az.as_ref().and_then(|az| documents.cloud.azs.get(az));
    let cpi = zone.map(|z| z.cpi.clone()).unwrap_or_default();
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
        stemcell: stemcell_for(input, wanted, &cpi)?,
        cpi,
        vm_type: compilation.vm_type.clone(),
        cloud_properties: compilation.cloud_properties.clone(),
        env: compilation.env.clone(),
        persistent_disk: None,
        canary_watch_time: no_wait,
        update_watch_time: no_wait,
        tags: documents.tags.iter().cloned().collect(),
        configuration_hash: None,
        template_hashes: BTreeMap::new(),
        id,
    })
}

fn stemcell_for(input: &PlanInput<'_>, wanted: &StemcellId, cpi: &CpiName) -> Result<StemcellRef, TaskError> {
    let fits = |s: &&StemcellRef| s.os == wanted.os && s.version == wanted.version && s.cpi == *cpi;
    input.stemcells.iter().map(|s| &s.stemcell).find(fits).cloned().ok_or_else(|| {
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
