//! Keeps the jobs' processes running: what monit is to BOSH, without monit.
//!
//! Each service has a task that owns it ([`service`]); this module knows which services there are, in which order they
//! start and stop, and what their states mean together. Control files are read by [`monit_file`].
//!
//! Deliberately *not* here: when to start and stop, which is the actions' business.
//!
//! Invariant: a service is started only by its own task, so that no process is ever started twice.

mod condition;
mod memory;
pub mod monit_file;
mod pidfd;
mod process;
mod program;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::JobState;
use owned_tasks::OwnedTasks;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::error::ActionError;
use crate::machine::Notices;
use crate::platform::Platform;
use crate::proc;
use memory::{Care, Memory};
use monit_file::{CheckProcess, Mode};
pub(crate) use process::Process;
use service::{Monitored, Running, Service, Wish};

/// The group that BOSH sees.
const VCAP: &str = "vcap";

/// How the supervisor paces itself.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between two looks at everything that is not noticed by itself (monit's cycle).
    pub cycle: Duration,
    /// Longest pause before a service that keeps dying is started again.
    pub restart_pause_max: Duration,
    /// A service that has run this long has proved itself: its next restart is at once.
    pub proved_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            cycle: Duration::from_secs(10),
            restart_pause_max: Duration::from_secs(10),
            proved_after: Duration::from_secs(60),
        }
    }
}

/// What services share.
pub(crate) struct Surroundings {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) notices: Arc<Notices>,
    pub(crate) timing: Timing,
    /// Directory for the output of start and stop programs.
    pub(crate) output: PathBuf,
    /// Set for programs where `/var/vcap` is elsewhere.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) addresses: Vec<String>,
    pub(crate) changes: watch::Sender<u64>,
    /// File for what must survive a restart of the agent.
    pub(crate) memory: PathBuf,
}

/// See the module's header.
pub struct Supervisor {
    surroundings: Arc<Surroundings>,
    services: Mutex<BTreeMap<String, Service>>,
    memory: Arc<Memory>,
    tasks: OwnedTasks,
    stopped_marker: PathBuf,
}

impl Supervisor {
    pub(crate) fn new(surroundings: Surroundings, stopped_marker: PathBuf, tasks: OwnedTasks) -> Self {
        let services = Mutex::new(BTreeMap::new());
        let memory = Arc::new(Memory::open(surroundings.memory.clone()));
        Self { surroundings: Arc::new(surroundings), services, memory, tasks, stopped_marker }
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a counter that moves with every change of a service's state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.surroundings.changes.subscribe()
    }

    /// Makes the services those of the control files in `directory`. Unchanged ones go on undisturbed; those that are no
    /// longer named are left alone, running or not.
    pub fn load(&self, directory: &Path) -> Result<(), ActionError> {
        let checks = read_checks(directory)?;
        let mut services = self.services();
        services.retain(|name, service| checks.get(name) == Some(service.check()));
        for (name, check) in checks {
            services.entry(name).or_insert_with(|| {
                Service::start(check, self.surroundings.clone(), self.memory.clone(), &self.tasks)
            });
        }
        let forgotten = self.memory.forget_all_but(|name| services.contains_key(name));
        drop(services);
        forgotten.map_err(ActionError::file("write", &self.surroundings.memory))?;
        self.surroundings.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Starts every service of group `vcap`, each after those that it depends on. Returns at once.
    pub fn start(&self) -> Result<(), ActionError> {
        self.note(Care::LookedAfter)?;
        let services = self.services();
        for service in services.values().filter(|service| is_vcap(service.check())) {
            let dependencies = service.check().depends.iter().filter_map(|name| services.get(name));
            service.wish(Wish::Run { after: dependencies.map(Service::watch).collect() });
        }
        Ok(())
    }

    /// Remembers of every service of group `vcap` what is wanted of it, before it is done: a restart of the agent in
    /// between must go on with it.
    fn note(&self, care: Care) -> Result<(), ActionError> {
        let services = self.services();
        let names = services.values().map(Service::check).filter(|check| is_vcap(check));
        let noted = self.memory.note(names.map(|check| check.name.as_str()), care);
        noted.map_err(ActionError::file("write", &self.surroundings.memory))
    }

    /// Takes up again what a restart of the agent or of the machine has interrupted: services that were looked after, and
    /// those in active mode of which nobody has said anything yet.
    pub fn resume(&self) {
        let services = self.services();
        let is_wanted = |service: &&Service| match self.memory.of(&service.check().name) {
            Some(care) => care == Care::LookedAfter,
            None => service.check().mode == Mode::Active,
        };
        for service in services.values().filter(is_wanted) {
            let dependencies = service.check().depends.iter().filter_map(|name| services.get(name));
            service.wish(Wish::Run { after: dependencies.map(Service::watch).collect() });
        }
    }

    /// Leaves every service of group `vcap` alone: none is restarted any more.
    pub async fn unmonitor(&self) -> Result<(), ActionError> {
        self.note(Care::LeftAlone)?;
        let waits: Vec<_> = {
            let services = self.services();
            let vcap = services.values().filter(|service| is_vcap(service.check()));
            vcap.map(|service| service.wish(Wish::Unmonitored)).collect()
        };
        for done in waits {
            done.wait().await;
        }
        Ok(())
    }

    /// Stops every service of group `vcap`, dependants first, and waits until all are gone.
    pub async fn stop(&self, within: Duration) -> Result<(), ActionError> {
        self.note(Care::LeftAlone)?;
        let deadline = Instant::now() + within;
        for layer in self.stop_order() {
            let waits: Vec<_> = {
                let services = self.services();
                let stopping = layer.iter().filter_map(|name| services.get(name));
                stopping.map(|service| (service.check().name.clone(), service.wish(Wish::Stopped))).collect()
            };
            let mut late = Vec::new();
            for (name, done) in waits {
                if tokio::time::timeout_at(deadline, done.wait()).await.is_err() {
                    late.push(name);
                }
            }
            if !late.is_empty() {
                let (names, minutes) = (late.join(", "), within.as_secs() / 60);
                return Err(ActionError::failed(format!(
                    "Timed out waiting for services '{names}' to stop after {minutes} minutes"
                )));
            }
        }
        Ok(())
    }

    /// Returns the services of group `vcap` in layers: each layer only once those before it are gone.
    fn stop_order(&self) -> Vec<Vec<String>> {
        let services = self.services();
        let vcap = services.values().map(Service::check).filter(|check| is_vcap(check));
        layers(vcap.map(|check| (check.name.clone(), check.depends.clone())).collect())
    }

    /// Returns the state of the jobs as a whole.
    pub fn job_state(&self) -> JobState {
        if self.stopped_marker.exists() {
            return JobState::Stopped;
        }
        let services = self.services();
        let states = services.values().filter(|service| is_vcap(service.check())).map(Service::status);
        states.fold(JobState::Running, |sum, status| match (sum, status.monitored, status.running) {
            (_, Monitored::Starting, _) | (JobState::Starting, ..) => JobState::Starting,
            (sum, Monitored::Yes, Running::Yes) => sum,
            _ => JobState::Failing,
        })
    }

    /// Returns `processes` of `get_state`.
    pub fn processes(&self) -> Vec<Value> {
        let services = self.services();
        services.values().filter(|service| is_vcap(service.check())).map(show).collect()
    }

    /// Returns how many services of group `vcap` there are.
    pub fn count(&self) -> u32 {
        let services = self.services();
        u32::try_from(services.values().filter(|service| is_vcap(service.check())).count())
            .unwrap_or(u32::MAX)
    }
}

fn is_vcap(check: &CheckProcess) -> bool {
    check.group.as_deref() == Some(VCAP)
}

fn show(service: &Service) -> Value {
    let status = service.status();
    let state = match (status.monitored, status.running) {
        (Monitored::No, _) => "unknown",
        (Monitored::Starting, _) => "starting",
        (Monitored::Yes, Running::Yes) => "running",
        (Monitored::Yes, Running::No) => "failing",
    };
    let mut shown = json!({ "name": service.check().name, "state": state });
    if let Some(pid) = status.pid {
        let age = proc::Stat::of(pid).map_or(0.0, |stat| stat.age_seconds());
        let kib: u64 = proc::memory_kib(pid);
        shown["uptime"] = json!({ "secs": age as u64 });
        shown["mem"] = json!({ "kb": kib, "percent": crate::vitals::percent_of_memory(kib) });
        shown["cpu"] = json!({ "total": 0.0 });
    }
    shown
}

/// Reads every control file of a directory. A service that two files name belongs to the first.
fn read_checks(directory: &Path) -> Result<BTreeMap<String, CheckProcess>, ActionError> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(ActionError::file("read", directory)(error)),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "monitrc"));
    paths.sort();
    let mut checks = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(ActionError::file("read", &path))?;
        let file = monit_file::parse(&text)
            .map_err(|error| ActionError::failed(format!("control file `{}`: {error}", path.display())))?;
        for ignored in &file.ignored {
            warn!(path = %path.display(), statement = ignored, "a monit statement is not acted on");
        }
        for check in file.processes {
            checks.entry(check.name.clone()).or_insert(check);
        }
    }
    Ok(checks)
}

/// Sorts services into layers: nobody in a layer is depended on by anybody in a later one. A circle ends up in one layer.
fn layers(mut depends: BTreeMap<String, Vec<String>>) -> Vec<Vec<String>> {
    let mut layers = Vec::new();
    while !depends.is_empty() {
        let needed: BTreeSet<&String> = depends.values().flatten().collect();
        let mut free: Vec<String> = depends.keys().filter(|name| !needed.contains(name)).cloned().collect();
        if free.is_empty() {
            free = depends.keys().cloned().collect();
        }
        for name in &free {
            depends.remove(name);
        }
        layers.push(free);
    }
    layers
}
