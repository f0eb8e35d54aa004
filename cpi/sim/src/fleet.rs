//! The agents of the simulated VMs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cpi_api::CreateVm;
use dagent::{Agent, AgentParts, Behaviour, DirectorBlobs, Kept, Link, Notices, Storage};
use model::agent_settings::{AgentSettings, AgentVm};
use model::{AgentId, VmCid};
use owned_tasks::{OnExit, OwnedTasks};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::bosh_agent;
use crate::calls::AgentCalls;
use crate::machine::{SimMachine, Surroundings};

/// Agents that begin to dial at the same time. Each handshake costs a director about a millisecond: a thousand at once
/// would make it miss the heartbeats of those that are there.
const DIALING_MAX: usize = 32;
/// How long a place among the dialing is kept: about as long as enrolling takes.
const DIALING_TIME: Duration = Duration::from_millis(50);

/// Whoever runs the agents of VMs. No method waits.
pub trait Agents: Send + Sync {
    /// Starts the agent of a VM that has booted after `boot`; each of its actions takes `action`.
    fn start(&self, vm: VmCid, request: &CreateVm, boot: Duration, action: Duration);
    /// Ends the agent of a VM, without a word to its director; what the VM's disk holds stays for the next start.
    fn stop(&self, vm: &VmCid);
    /// Ends the agent of a VM that is gone, disk and all.
    fn remove(&self, vm: &VmCid);
    /// Has all agents hold a script from ending, instead of the one before.
    fn hold(&self, script: Option<&str>);
    /// Returns how many were started and not stopped.
    fn count(&self) -> u64;
}

/// No agents: for tests of the cloud alone.
impl Agents for () {
    fn start(&self, _: VmCid, _: &CreateVm, _: Duration, _: Duration) {}
    fn stop(&self, _: &VmCid) {}
    fn remove(&self, _: &VmCid) {}
    fn hold(&self, _: Option<&str>) {}
    fn count(&self) -> u64 {
        0
    }
}

/// Agents that speak the real protocol to whatever directors their VM was told of: ours, and BOSH's where the VM is told of a
/// bus.
pub struct Fleet {
    tasks: OwnedTasks,
    running: Mutex<BTreeMap<VmCid, CancellationToken>>,
    /// What each VM's disk holds: its agent's identity first of all, for a token is good for one only.
    disks: Mutex<BTreeMap<VmCid, Kept>>,
    /// The same for agents of BOSH's.
    bus_disks: Mutex<BTreeMap<VmCid, bosh_agent::Disk>>,
    dialing: Arc<Semaphore>,
    held_script: watch::Sender<Option<String>>,
    around: Surroundings,
}

impl Fleet {
    /// Returns a fleet without agents; they run in `tasks`.
    pub fn new(tasks: OwnedTasks) -> std::io::Result<Self> {
        let held_script = watch::Sender::default();
        let around = Surroundings {
            scratch: Arc::new(tempfile::tempdir()?),
            held_script: held_script.subscribe(),
            calls: None,
        };
        let dialing = Arc::new(Semaphore::new(DIALING_MAX));
        let (running, disks, bus_disks) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { tasks, running, disks, bus_disks, dialing, held_script, around })
    }

    /// Has every call to an agent written down.
    #[must_use]
    pub fn recording(mut self, calls: AgentCalls) -> Self {
        self.around.calls = Some(Arc::new(calls));
        self
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<VmCid, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disks(&self) -> MutexGuard<'_, BTreeMap<VmCid, Kept>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bus_disks(&self) -> MutexGuard<'_, BTreeMap<VmCid, bosh_agent::Disk>> {
        self.bus_disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agents for Fleet {
    fn start(&self, vm: VmCid, request: &CreateVm, boot: Duration, action: Duration) {
        let settings = AgentSettings {
            agent_id: request.agent_id.clone(),
            vm: AgentVm { name: vm.to_string() },
            endpoints: request.bootstrap.endpoints.clone(),
            authorities_pem: request.bootstrap.authorities_pem.clone(),
            token: request.bootstrap.token.clone(),
            ..AgentSettings::default()
        };
        let tasks = self.tasks.child();
        let stop = tasks.stop_token();
        let storage = Storage::Kept(self.disks().entry(vm.clone()).or_default().clone());
        let bus_disk = self.bus_disks().entry(vm.clone()).or_default().clone();
        self.running().insert(vm, stop.clone());
        let (dialing, around) = (self.dialing.clone(), self.around.clone());
        let on_a_bus = bosh_agent::Settings::in_env(&request.bootstrap.into_env(&request.env));
        self.tasks.spawn("simulated agent", OnExit::Ignore, move |_| async move {
            let life = async {
                tokio::time::sleep(boot).await;
                let behaviour = Behaviour { action_takes: action, ..Behaviour::default() };
                match on_a_bus {
                    Some(bus) => live_on_a_bus(settings.agent_id, (bus, bus_disk), behaviour, around).await,
                    None => live(settings, storage, tasks, behaviour, &dialing, around).await,
                }
            };
            tokio::select! {
                () = life => {}
                () = stop.cancelled() => {}
            }
        });
    }

    fn stop(&self, vm: &VmCid) {
        if let Some(stop) = self.running().remove(vm) {
            stop.cancel();
        }
    }

    fn remove(&self, vm: &VmCid) {
        self.stop(vm);
        self.disks().remove(vm);
        self.bus_disks().remove(vm);
    }

    fn hold(&self, script: Option<&str>) {
        self.held_script.send_replace(script.map(str::to_owned));
    }

    fn count(&self) -> u64 {
        self.running().len() as u64
    }
}

async fn live(
    settings: AgentSettings,
    storage: Storage,
    tasks: OwnedTasks,
    behaviour: Behaviour,
    dialing: &Semaphore,
    around: Surroundings,
) {
    let agent_id = settings.agent_id.clone();
    let link = Link::default();
    let blobs = Arc::new(DirectorBlobs::new(link.clone()));
    let machine = Arc::new(SimMachine::new(agent_id.clone(), behaviour, blobs, around));
    let notices = Arc::new(Notices::default());
    let parts = AgentParts { settings, machine, storage, link, notices };
    let stop = tasks.stop_token();
    let agent = match Agent::new(parts, tasks) {
        Ok(agent) => agent,
        Err(error) => return warn!(agent = %agent_id, %error, "a simulated agent can't start"),
    };
    // The semaphore is never closed.
    if let Ok(_place) = dialing.acquire().await {
        tokio::time::sleep(DIALING_TIME).await;
    }
    if let Err(error) = agent.run(stop).await {
        warn!(agent = %agent_id, %error, "a simulated agent has ended");
    }
}

async fn live_on_a_bus(
    agent: AgentId,
    (settings, disk): (bosh_agent::Settings, bosh_agent::Disk),
    behaviour: Behaviour,
    around: Surroundings,
) {
    if let Err(error) = bosh_agent::live(agent.clone(), settings, disk, behaviour, around).await {
        warn!(%agent, error = format!("{error:#}"), "a simulated agent of BOSH's has ended");
    }
}
