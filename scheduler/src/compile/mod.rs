//! Compilation: which packages must be compiled, in what order and on which workers.
//!
//! [`search`] finds what is missing, [`workers`] deals it out; here it becomes steps.

mod search;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use model::cloud_config::compilation::WorkersAfterwards;
use model::instance::{InstanceSpec, InstanceState, PackageRef};
use model::manifest::Stock;
use model::plan::{Fate, Phase, Stage, Target, Unit, Wave};
use model::release::{PackageInfo, ReleaseVersion};
use model::stemcell::StemcellVersion;
use model::step::{Action, PackageRefKey, VmRole};
use model::task::TaskError;
use model::*;

use crate::address::AddressBook;
use crate::bind::BoundGroup;
use crate::chance::Ids;
use crate::documents::Documents;
use crate::input::PlanInput;
use crate::order::label;
use crate::steps::{Steps, Units};
use search::{Missing, Search};
use workers::Machine;

/// A package that is to be there, compiled for a stemcell.
pub(crate) struct Wanted<'a> {
    pub(crate) release: &'a ReleaseVersion,
    pub(crate) package: &'a PackageInfo,
    pub(crate) stemcell: StemcellVersion,
}

/// A package to compile, after others, on a VM.
#[derive(Clone, Debug, PartialEq)]
struct Job {
    package: Missing,
    /// Positions of jobs that must be done before.
    after: Vec<usize>,
    /// Position of the VM.
    machine: usize,
}

/// All that must be compiled, and on what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    jobs: Vec<Job>,
    machines: Vec<Machine>,
    workers: Vec<InstanceSpec>,
    at_once: u32,
    afterwards: WorkersAfterwards,
    /// Packages that are there, but compiled on another stemcell than the one they are wanted for.
    elsewhere: BTreeMap<PackageRefKey, StemcellVersion>,
}

impl Needs {
    /// Finds what the jobs of all groups need and is missing.
    pub(crate) fn of(
        input: &PlanInput<'_>,
        documents: &Documents,
        groups: &[BoundGroup<'_>],
        stock: Stock<'_>,
        book: &mut AddressBook,
    ) -> Result<Self, TaskError> {
        let mut wanted = Vec::new();
        for bound in groups {
            let stemcell = documents.manifest.stemcells.iter().find(|s| s.alias == bound.group.stemcell);
            let records = stemcell.map(|s| stock.stemcells(s)).transpose()?.unwrap_or_default();
            let Some(stemcell) = records.first().map(|s| s.version()) else { continue };
            for job in &bound.jobs {
                let packages = job.info.packages.iter().filter_map(|p| job.release.package(p.as_str()));
                wanted.extend(packages.map(|package| Wanted {
                    release: job.release,
                    package,
                    stemcell: stemcell.clone(),
                }));
            }
        }
        Self::of_packages(input, documents, &wanted, book)
    }

    /// Finds which of these packages, and of those that they need, are missing, orders them, and gives the workers their
    /// places and addresses.
    pub(crate) fn of_packages(
        input: &PlanInput<'_>,
        documents: &Documents,
        wanted: &[Wanted<'_>],
        book: &mut AddressBook,
    ) -> Result<Self, TaskError> {
        let mut search = Search::new(input.compiled);
        for Wanted { release, package, stemcell } in wanted {
            let source = documents.manifest.releases.iter().find(|r| r.release == release.release);
            search.require(release, source, package, stemcell)?;
        }
        search.check()?;
        let (missing, elsewhere) = search.found();
        let compilation = &documents.cloud.compilation;
        let schedule = workers::schedule(missing, compilation);
        let workers = workers::specs(input, documents, &schedule.workers, book)?;
        Ok(Self {
            jobs: schedule.jobs,
            machines: schedule.machines,
            workers,
            at_once: compilation.workers,
            afterwards: compilation.workers_afterwards,
            elsewhere,
        })
    }

    /// Returns the stemcell that the compiled form of an instance's package is for, if it is not the instance's own.
    pub(crate) fn compiled_on(&self, package: &PackageRef, spec: &InstanceSpec) -> Option<StemcellVersion> {
        self.elsewhere.get(&package.key(&spec.stemcell)).cloned()
    }

    /// Returns the packages that are there, but compiled on another stemcell than the one they are wanted for, and that one.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = (&PackageRefKey, &StemcellVersion)> {
        self.elsewhere.iter()
    }

    /// Returns what packages are compiled on.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &InstanceSpec> {
        self.workers.iter()
    }

    /// Makes the compile phase, and targets for its workers.
    pub(crate) fn phase(&self, units: &mut Units, agents: &mut dyn Ids) -> Option<(Phase, Vec<Target>)> {
        if self.jobs.is_empty() {
            return None;
        }
        let agents = self.machines.iter().map(|_| AgentId::new(agents.next())).collect();
        let mut building = Building {
            needs: self,
            units,
            agents,
            jobs: Vec::new(),
            compiling: Vec::new(),
            cleanup: Vec::new(),
        };
        for job in &self.jobs {
            building.compile(job);
        }
        building.clean_up();
        let stage = |title: Option<&str>, units: Vec<Unit>| Stage {
            title: title.map(str::to_owned),
            tags: Vec::new(),
            total: units.len() as u32,
            waves: vec![Wave { max_in_flight: self.at_once, units }],
        };
        let stages =
            vec![stage(Some("Compiling packages"), building.compiling), stage(None, building.cleanup)];
        let targets = self.workers.iter().map(|spec| Target {
            spec: spec.clone(),
            state: InstanceState::Started,
            fate: Fate::New,
            changes: Vec::new(),
            compilation: true,
        });
        Some((Phase { stages }, targets.collect()))
    }
}

/// The compile phase in the making.
struct Building<'a> {
    needs: &'a Needs,
    units: &'a mut Units,
    /// The agent of each machine.
    agents: Vec<AgentId>,
    /// Number and machine of the unit of each job so far.
    jobs: Vec<(UnitNo, usize)>,
    compiling: Vec<Unit>,
    /// Units that delete machines and, once they have no more, workers.
    cleanup: Vec<Unit>,
}

impl Building<'_> {
    fn worker_of(&self, machine: usize) -> &InstanceSpec {
        &self.needs.workers[self.needs.machines[machine].worker]
    }

    fn units_of(&self, machine: usize) -> impl Iterator<Item = UnitNo> {
        self.jobs.iter().filter(move |(_, on)| *on == machine).map(|(no, _)| *no)
    }

    fn compile(&mut self, job: &Job) {
        let mut after: BTreeSet<UnitNo> = job.after.iter().map(|at| self.jobs[*at].0).collect();
        let last = self.units_of(job.machine).last();
        after.extend(last);
        if let (None, Some(before)) = (last, self.needs.machines[job.machine].before) {
            // Often with the same address, and never more at once than was agreed.
            after.insert(self.delete(before));
        }
        let (spec, agent) = (self.worker_of(job.machine).id.clone(), self.agents[job.machine].clone());
        let mut steps = Steps::default();
        if last.is_none() {
            steps.create_vm(&spec, &agent, VmRole::Current);
            steps.bind_vm(&spec, &agent);
        }
        let package = &job.package.key;
        steps.push(Action::SetVmMetadata {
            instance: spec.clone(),
            agent: agent.clone(),
            compiling: Some(package.name.clone()),
        });
        steps.push(Action::CompilePackage {
            worker: spec,
            agent,
            package: package.clone(),
            compiled_elsewhere: job.package.compiled_elsewhere.clone(),
        });
        let unit = self.units.unit(format!("{}/{}", package.name, package.fingerprint), after, steps);
        self.jobs.push((unit.no, job.machine));
        self.compiling.push(unit);
    }

    /// Deletes a machine whose jobs are done, broken off or have failed, and with its last one the worker.
    fn delete(&mut self, machine: usize) -> UnitNo {
        let spec = self.worker_of(machine).clone();
        let mut steps = Steps::default();
        let (instance, agent) = (spec.id.clone(), self.agents[machine].clone());
        steps.push(match self.needs.afterwards {
            WorkersAfterwards::Deleted => Action::DeleteVm { instance, agent },
            WorkersAfterwards::Orphaned => Action::OrphanVm { instance, agent },
        });
        let worker = self.needs.machines[machine].worker;
        if self.needs.machines.iter().filter(|m| m.worker == worker).count() == 1 {
            steps.push(Action::DeleteInstance { instance: spec.id.clone() });
        }
        let after = self.units_of(machine).collect();
        self.clean(&spec, after, steps)
    }

    fn clean(&mut self, spec: &InstanceSpec, after: BTreeSet<UnitNo>, steps: Steps) -> UnitNo {
        let unit = Unit { cleanup: true, ..self.units.unit(label(spec), after, steps) };
        let no = unit.no;
        self.cleanup.push(unit);
        no
    }

    /// Deletes the machines that nobody took the place of, and workers that had several.
    fn clean_up(&mut self) {
        let machines = &self.needs.machines;
        let replaced: BTreeSet<usize> = machines.iter().filter_map(|m| m.before).collect();
        for machine in (0..machines.len()).filter(|m| !replaced.contains(m)) {
            self.delete(machine);
        }
        for (worker, spec) in self.needs.workers.iter().enumerate() {
            let own: Vec<usize> = (0..machines.len()).filter(|m| machines[*m].worker == worker).collect();
            if own.len() < 2 {
                continue;
            }
            let deletions = self
                .cleanup
                .iter()
                .filter(|unit| unit.steps.iter().any(|s| s.action.instance() == Some(&spec.id)));
            let mut after: BTreeSet<UnitNo> = deletions.map(|unit| unit.no).collect();
            after.extend(own.into_iter().flat_map(|m| self.units_of(m)));
            let mut steps = Steps::default();
            steps.push(Action::DeleteInstance { instance: spec.id.clone() });
            self.clean(spec, after, steps);
        }
    }
}
