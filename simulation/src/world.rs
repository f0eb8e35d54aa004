//! The world: processes, a network, a cloud, people; and time, which passes a millisecond at a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkers::watch::Reference;
use directord::fleet::fsm::Fsm;
use model::{AgentId, Revision};
use raft::disk::Disk as _;
use raft::{Application, LogRow, Role, SnapshotPolicy, StateBatch};

use crate::chance::Chance;
use crate::clock;
use crate::disk::SimDisk;
use crate::invariants::{Event, LogChange, Observer};
use crate::net::{Arrival, Net, Place};
use crate::outside::{CLOUD, OUTSIDE, World as Cloud};
use crate::parts::MemoryBlobs;
use crate::process::Process;
use crate::replica::{self, Fatality, Parts};
use crate::services::{Outside, Services, Slot};
use crate::workload::{self, CLIENTS};

/// A machine with a replica on it.
pub struct Machine {
    /// Its number.
    pub number: u64,
    /// Its disk, over all its lives.
    pub disk: SimDisk,
    /// What it serves with.
    pub slot: Slot,
    process: Option<Process>,
    life: u64,
    fatality: Fatality,
    /// Until when it does not run.
    pub paused_until: u64,
    /// When one that is stopping is over.
    pub ends_at: Option<u64>,
    /// When a dead one is started again.
    pub starts_at: Option<u64>,
    /// The term that it was last seen to lead.
    led: u64,
}

/// Everything.
pub struct World {
    /// The time.
    pub now_ms: u64,
    /// The network.
    pub net: Net,
    /// The cloud with its agents.
    pub cloud: Cloud,
    /// Replicas, by number.
    pub machines: BTreeMap<u64, Machine>,
    /// Who sees everything.
    pub observer: Observer,
    /// Everybody's blobs.
    pub blobs: Arc<MemoryBlobs>,
    snapshots: SnapshotPolicy,
    /// Revisions whose changes replicas keep.
    changes_kept: u64,
    /// Everything that has changed.
    pub changes: Reference,
    outside: (Slot, Process),
    clients: (Slot, Process),
    /// How far the furthest state was when it was looked at.
    looked: u64,
    seed: u64,
}

/// The real application, and somebody who sees what it does.
struct Watched {
    fsm: Fsm,
    replica: u64,
    observer: Observer,
}

impl Application for Watched {
    fn apply(&self, store: &mut StateBatch<'_>, index: u64, term: u64, entry: &[u8]) -> Vec<u8> {
        let answer = self.fsm.apply(store, index, term, entry);
        self.observer.see(&Event::Applied { replica: self.replica, index, term, entry, answer: &answer });
        answer
    }
}

impl World {
    /// Makes a world of so many machines, all of them off.
    pub fn new(seed: u64, replicas: u64, observer: Observer) -> Self {
        clock::set(0);
        let net = Net::new(Chance::of(seed, "network"));
        let cloud = Cloud::new(Chance::of(seed, "cloud"), net.clone(), replicas, observer.clone());
        let mut chance = Chance::of(seed, "snapshots");
        let every_entries = chance.between(40, 400);
        let snapshots = SnapshotPolicy {
            every_entries,
            keep_entries: every_entries + 60,
            lag_entries: every_entries + 30,
        };
        // Fewer than a watcher misses that is away for some seconds; more than are applied in a step.
        let changes_kept = Chance::of(seed, "changes").between(30, 300);
        let machines = (1..=replicas).map(|number| (number, Machine::new(seed, number, &observer))).collect();
        let (outside, clients) = (start_outside(&cloud), start_clients());
        Self {
            now_ms: 0,
            net,
            cloud,
            machines,
            observer,
            blobs: Arc::default(),
            snapshots,
            changes_kept,
            changes: Reference::default(),
            outside,
            clients,
            looked: 0,
            seed,
        }
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Has something done in the process that clients are.
    pub fn as_client(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = std::sync::Mutex::new(Some(work));
        self.clients.1.deliver(Arc::new(move |_| {
            let work = work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            Box::pin(async move {
                if let Some(work) = work {
                    work.await;
                }
            })
        }));
    }

    /// Has something done in a machine's process.
    pub fn ask(&self, number: u64, job: crate::process::Job) {
        if let Some(process) = self.process(number) {
            process.deliver(job);
        }
    }

    /// Starts a machine that is off.
    pub fn start(&mut self, number: u64) {
        let (net, observer, blobs) = (self.net.clone(), self.observer.clone(), self.blobs.clone());
        let (snapshots, changes_kept, now) = (self.snapshots, self.changes_kept, self.now_ms);
        let Some(machine) = self.machines.get_mut(&number).filter(|machine| machine.process.is_none()) else {
            return;
        };
        machine.life += 1;
        machine.starts_at = None;
        machine.fatality = Fatality::default();
        observer.note(|| format!("replica {number} starts"));
        let (me, slot) = (Place { process: number, life: machine.life }, machine.slot.clone());
        let rows = rows_of(&machine.disk);
        observer.see(&Event::LogFound { replica: number, rows: &rows });
        let (disk, fatality) = (machine.disk.clone(), machine.fatality.clone());
        let seen = observer.clone();
        let application = Arc::new(Watched { fsm: Fsm { changes_kept }, replica: number, observer });
        let process = Process::start(now, slot.clone(), move |tasks| {
            let disk = disk.handle(tasks.clone());
            let parts =
                Parts { me, observer: seen, net, disk, application, blobs, snapshots, slot, fatality };
            replica::run(parts, tasks)
        });
        machine.process = Some(process);
    }

    /// Ends a machine's process at once.
    pub fn end(&mut self, number: u64, how: End) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let Some(process) = machine.process.take() else { return };
        machine.slot.clear();
        // The disk first: what the end of a task would still do to it comes too late.
        let lost = match how {
            End::Killed => {
                machine.disk.kill();
                0
            }
            End::Crashed => machine.disk.crash(),
        };
        drop(process);
        machine.paused_until = 0;
        machine.ends_at = None;
        self.observer.note(|| format!("replica {number} is {how:?}, {lost} writes are lost"));
    }

    /// Lets so many milliseconds pass. While things break it is one at a time; afterwards nobody needs to be so exact.
    pub fn step(&mut self, ms: u64) {
        self.now_ms += ms;
        clock::set(self.now_ms);
        let now = self.now_ms;
        let due: Vec<u64> = self
            .machines
            .values()
            .filter(|m| m.starts_at.is_some_and(|at| at <= now))
            .map(|m| m.number)
            .collect();
        due.into_iter().for_each(|number| self.start(number));
        let over: Vec<u64> = self
            .machines
            .values()
            .filter(|m| m.ends_at.is_some_and(|at| at <= now))
            .map(|m| m.number)
            .collect();
        for number in over {
            self.end(number, End::Killed);
            self.start(number);
        }
        self.deliver();
        self.outside.1.live_until(now);
        self.clients.1.live_until(now);
        for machine in self.machines.values_mut() {
            if let Some(process) = machine.process.as_mut().filter(|_| machine.paused_until <= now) {
                process.live_until(now);
            }
        }
        self.bury();
        self.look();
    }

    /// Returns the agents whose VMs run and whose deployments no task works on, as the furthest state says.
    pub fn idle_agents(&self) -> Vec<AgentId> {
        use state::log::CommandLog as _;
        let replicas = self.machines.values().filter_map(|machine| machine.slot.replica());
        let Some(furthest) = replicas.max_by_key(|replica| replica.log.revision()) else { return Vec::new() };
        let view = furthest.log.view();
        let (state, running) = (state::State::new(&*view), self.cloud.running());
        let busy = state.deployments_in_work();
        let idle = state.agents().into_iter().filter(|agent| !busy.contains(&agent.deployment));
        idle.map(|agent| agent.agent).filter(|agent| running.contains(agent)).collect()
    }

    fn deliver(&mut self) {
        for arrival in self.net.arrivals(self.now_ms * 1000) {
            match arrival {
                Arrival::Request(to, job) => {
                    if let Some(process) = self.process(to) {
                        process.deliver(job);
                    }
                }
                Arrival::Hand(to, hand) => {
                    let same = |machine: &Machine| {
                        machine.process.is_some() && (to.life == 0 || machine.life == to.life)
                    };
                    if self.machines.get(&to.process).is_none_or(same) {
                        hand();
                    }
                }
            }
        }
    }

    fn process(&self, number: u64) -> Option<&Process> {
        match number {
            OUTSIDE | CLOUD => Some(&self.outside.1),
            CLIENTS => Some(&self.clients.1),
            number => self.machines.get(&number)?.process.as_ref(),
        }
    }

    /// Ends processes that can't go on, as the real program ends itself.
    fn bury(&mut self) {
        let dying: Vec<(u64, String)> = self
            .machines
            .values()
            .filter(|machine| machine.process.is_some())
            .filter_map(|machine| Some((machine.number, machine.fatality.take()?)))
            .collect();
        for (number, why) in dying {
            self.observer.note(|| format!("replica {number} ends itself: {why}"));
            let excused = why.contains("Input/output error");
            if !excused {
                self.observer.complain(format!("replica {number} ended itself: {why}"));
            }
            self.end(number, End::Killed);
        }
    }

    /// Looks at who leads, and at the furthest state if it has moved.
    fn look(&mut self) {
        let mut furthest = None;
        for machine in self.machines.values_mut() {
            let Some(replica) = machine.process.as_ref().and_then(|_| machine.slot.replica()) else {
                continue;
            };
            let status = replica.node.status();
            if status.role == Role::Leader && machine.led != status.term {
                machine.led = status.term;
                self.observer.see(&Event::Leads { replica: machine.number, term: status.term });
            }
            let applied = *replica.node.watch_applied().borrow();
            if applied > self.looked && furthest.as_ref().is_none_or(|(index, _)| applied > *index) {
                furthest = Some((applied, replica));
            }
        }
        if let Some((index, replica)) = furthest {
            use state::log::CommandLog as _;
            let since = Revision(std::mem::replace(&mut self.looked, index));
            let view = replica.log.view();
            let state = state::State::new(&*view);
            match state.changes_since(since, usize::MAX) {
                Ok(changes) => self.changes.add(changes.into_iter().map(workload::change)),
                Err(error) => {
                    self.observer.complain(format!("changes after {since} went by unseen: {error}"))
                }
            }
            self.observer.see(&Event::State { state: &state, index });
        }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal: what it wrote is written.
    Killed,
    /// With its machine: what it did not sync may be lost.
    Crashed,
}

impl Machine {
    fn new(seed: u64, number: u64, observer: &Observer) -> Self {
        let observer = observer.clone();
        let witness = Arc::new(move |kind, changes: &[raft::disk::Change]| {
            let rows = LogChange::read(kind, changes);
            if !rows.is_empty() {
                observer.see(&Event::LogWritten { replica: number, rows: &rows });
            }
        });
        Self {
            number,
            disk: SimDisk::new(Chance::of(seed, &format!("disk {number}")), witness),
            slot: Slot::default(),
            process: None,
            life: 0,
            fatality: Fatality::default(),
            paused_until: 0,
            ends_at: None,
            starts_at: None,
            led: 0,
        }
    }

    /// Returns whether its process lives.
    pub fn is_on(&self) -> bool {
        self.process.is_some()
    }

    /// Returns whether it leads, as it sees it.
    pub fn leads(&self) -> bool {
        let replica = self.process.as_ref().and_then(|_| self.slot.replica());
        replica.is_some_and(|replica| replica.node.leadership().is_some())
    }
}

/// Returns the entries that a disk's log has.
fn rows_of(disk: &SimDisk) -> Vec<LogRow> {
    let handle = disk.handle(owned_tasks::OwnedTasks::new());
    let Ok(log) = handle.peek(std::path::Path::new("/data/log"), raft::disk::DatabaseKind::Log) else {
        return Vec::new();
    };
    let rows = log.scan("logs", &[], None, raft::Direction::Forward);
    rows.filter_map(|row| LogRow::read(&row.ok()?.1).ok()).collect()
}

fn start_outside(cloud: &Cloud) -> (Slot, Process) {
    let (slot, cloud) = (Slot::default(), cloud.clone());
    slot.put(Services::Outside(Outside { cloud: Arc::new(cloud.clone()), agents: Arc::new(cloud.clone()) }));
    let process = Process::start(0, slot.clone(), move |tasks| async move { cloud.live_in(tasks) });
    (slot, process)
}

fn start_clients() -> (Slot, Process) {
    let slot = Slot::default();
    // They serve nobody; only what is delivered to them runs.
    slot.put(Services::Nobody);
    let process = Process::start(0, slot.clone(), |_| async {});
    (slot, process)
}
