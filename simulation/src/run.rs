//! One run of a world: set up, break, heal, judge.

mod faults;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use checkers::history::Recorder;
use checkers::linearizable::register::Call;
use owned_tasks::OwnedTasks;
use state::State;
use state::log::CommandLog as _;
use state::query::{TaskFilter, Which};
use state::records::{AgentHealth, AgentRecord};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::disk::Ailment;
use crate::invariants::Observer;
use crate::judge;
use crate::nemesis::Plan;
use crate::net::Weather;
use crate::outside::Mood;
use crate::process::STEP_MAX_MS;
use crate::trace::Trace;
use crate::workload::{
    AT_REST, Client, DEPLOYMENTS, Deployer, RegisterClient, Sight, WatcherClient, prepare, recorder,
};
use crate::world::World;

use self::faults::Mend;

/// How long a fleet may take to be set up, to end what was under way, and to converge, in milliseconds.
const PATIENCE_MS: u64 = 150_000;

/// How many watch.
const WATCHERS: u64 = 3;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was broken; nothing, if all is well.
    pub broken: Vec<String>,
    /// Stands for everything that happened.
    pub digest: u64,
    /// How much happened.
    pub events: u64,
    /// Faults, by what they are called.
    pub faults: std::collections::BTreeMap<&'static str, u64>,
    /// The world's time in the end.
    pub ended_ms: u64,
    /// Tasks that there were.
    pub tasks: usize,
    /// The last entry.
    pub entries: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        write!(
            f,
            "seed {}: {} after {} ms, {} entries, {} tasks, {} events, digest {:016x}; {}",
            self.seed,
            if self.broken.is_empty() { "all is well" } else { "BROKEN" },
            self.ended_ms,
            self.entries,
            self.tasks,
            self.events,
            self.digest,
            faults.join(", ")
        )?;
        self.broken.iter().try_for_each(|why| write!(f, "\n  {why}"))
    }
}

/// Something that clients are to have done; shared with them.
type Pending = Arc<Mutex<Option<Result<(), String>>>>;

/// Plays a seed.
pub fn play(seed: u64, trace: Trace) -> Report {
    let plan = Plan::draw(&mut Chance::of(seed, "nemesis"));
    let observer = Observer::new(trace);
    observer.note(|| format!("{plan}"));
    let mut run = Run {
        world: World::new(seed, plan.replicas, observer),
        chance: Chance::of(seed, "faults"),
        healing: Vec::new(),
        faults: std::collections::BTreeMap::new(),
        enough: CancellationToken::new(),
        usual: plan.usual,
        step_ms: 2,
        busy: Vec::new(),
        registers: recorder(),
        watchers: Vec::new(),
        over: CancellationToken::new(),
    };
    if run.set_up() {
        run.wait_for_a_while(plan.quiet_ms);
        run.break_it(&plan);
        run.heal();
        run.settle();
        run.converge();
        run.have_the_dead_replaced();
        run.compare();
        judge::registers(&run.world, &run.registers);
        run.see_all();
    }
    run.report(seed)
}

struct Run {
    world: World,
    chance: Chance,
    /// What is mended when.
    healing: Vec<(u64, Mend)>,
    faults: std::collections::BTreeMap<&'static str, u64>,
    enough: CancellationToken,
    /// How long messages take when nothing is wrong with the network.
    usual: (u64, u64),
    /// How much passes between two looks.
    step_ms: u64,
    /// Those who ask for something while everything breaks.
    busy: Vec<Pending>,
    /// What clients of registers saw.
    registers: Arc<Recorder<Call>>,
    /// What watchers saw, with their names.
    watchers: Vec<(String, Sight)>,
    /// Until when they watch.
    over: CancellationToken,
}

impl Run {
    fn client(&self, name: &str) -> Client {
        Client {
            net: self.world.net.clone(),
            replicas: self.world.machines.len() as u64,
            chance: Arc::new(Mutex::new(Chance::of(self.world.seed(), name))),
            name: name.to_owned(),
            enough: self.enough.clone(),
        }
    }

    /// Steps until something is there; complains if that takes too long, or something breaks.
    fn wait<T>(&mut self, what: &str, mut there: impl FnMut(&mut World) -> Option<T>) -> Option<T> {
        let until = self.world.now_ms + PATIENCE_MS;
        while self.world.now_ms < until {
            if let Some(found) = there(&mut self.world) {
                return Some(found);
            }
            if !self.world.observer.broken().is_empty() {
                return None;
            }
            self.step(self.step_ms);
        }
        self.world.observer.complain(format!("no progress: waited {PATIENCE_MS} ms in vain until {what}"));
        None
    }

    fn step(&mut self, ms: u64) {
        let now = self.world.now_ms;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.healing).into_iter().partition(|(at, _)| *at <= now);
        self.healing = later;
        due.into_iter().for_each(|(_, mend)| self.mend(mend));
        self.world.step(ms);
    }

    fn set_up(&mut self) -> bool {
        let numbers: Vec<u64> = self.world.machines.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.world.start(number));
        let (client, blobs) = (self.client("setup"), self.world.blobs.clone());
        let done = self.have_done(async move { prepare(client, blobs).await });
        if !self.wait_for(&done, "the fleet is set up") {
            return false;
        }
        // Nobody deploys it while everything breaks: whoever keeps it alive is the fleet.
        let deployer = Deployer { client: self.client("rest"), deployment: AT_REST };
        let done = self.have_done(deployer.converge());
        self.wait_for(&done, "a deployment is deployed")
    }

    fn wait_for_a_while(&mut self, ms: u64) {
        let until = self.world.now_ms + ms;
        while self.world.now_ms < until {
            self.step(STEP_MAX_MS);
        }
    }

    fn have_done(&self, work: impl Future<Output = Result<(), String>> + Send + 'static) -> Pending {
        let pending = Pending::default();
        let told = pending.clone();
        self.world.as_client(async move {
            let outcome = work.await;
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        });
        pending
    }

    fn wait_for(&mut self, pending: &Pending, what: &str) -> bool {
        let outcome = self.wait(what, |_| pending.lock().unwrap_or_else(PoisonError::into_inner).clone());
        match outcome {
            Some(Ok(())) => true,
            Some(Err(why)) => {
                self.world.observer.complain(format!("{what}: {why}"));
                false
            }
            None => false,
        }
    }

    fn break_it(&mut self, plan: &Plan) {
        self.world.net.change(|weather| weather.delay_us = plan.usual);
        for deployment in DEPLOYMENTS {
            let deployer = Deployer { client: self.client(deployment), deployment };
            let done = self.have_done(async move {
                deployer.run().await;
                Ok(())
            });
            self.busy.push(done);
        }
        for number in 1..=4 {
            let client = self.client(&format!("registers-{number}"));
            let process = self.registers.process();
            let done = self.have_done(async move {
                RegisterClient { client, process, number }.run().await;
                Ok(())
            });
            self.busy.push(done);
        }
        (1..=WATCHERS).for_each(|number| self.watch(number));
        let began = self.world.now_ms;
        let mut faults = plan.faults.iter().peekable();
        while self.world.now_ms < began + plan.length_ms && self.world.observer.broken().is_empty() {
            let now = self.world.now_ms - began;
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
                self.world.observer.note(|| format!("{fault:?}"));
                *self.faults.entry(fault.kind()).or_default() += 1;
                self.inject(fault);
            }
            self.step(1);
        }
    }

    /// Mends everything.
    fn heal(&mut self) {
        self.world.observer.note(|| "everything is mended".to_owned());
        self.enough.cancel();
        self.healing.clear();
        // Nothing is a matter of a millisecond any more.
        self.step_ms = STEP_MAX_MS;
        self.world.net.change(|weather| *weather = Weather::fair());
        self.world.cloud.set_mood(Mood::default());
        self.world.cloud.all_go_on();
        let now = self.world.now_ms;
        for machine in self.world.machines.values_mut() {
            machine.disk.ail(Ailment::default());
            machine.paused_until = 0;
            if !machine.is_on() {
                machine.starts_at = Some(now);
            }
        }
    }

    /// Every task comes to its end by itself.
    fn settle(&mut self) {
        // Whoever still waits for an answer may ask for something more.
        for pending in std::mem::take(&mut self.busy) {
            if !self.wait_for(&pending, "everybody has stopped asking") {
                return;
            }
        }
        let ended = self.wait("every task has ended", |world| {
            let replica = world.machines.values().find(|m| m.is_on() && m.leads())?.slot.replica()?;
            let view = replica.log.view();
            (State::new(&*view).open_tasks() == 0).then_some(())
        });
        let stuck = || {
            let replica =
                self.world.machines.values().filter(|m| m.is_on()).find_map(|m| m.slot.replica())?;
            let view = replica.log.view();
            let open = State::new(&*view).tasks(&TaskFilter::default());
            Some(format!(
                "{:?}",
                open.iter().filter(|t| !t.state.is_final()).map(|t| (t.id, t.state)).collect::<Vec<_>>()
            ))
        };
        if ended.is_none() {
            let open = stuck().unwrap_or_default();
            self.world.observer.complain(format!("open tasks: {open}"));
        }
    }

    /// Every deployment comes to what is wanted, and the cloud has what the state knows and nothing else.
    fn converge(&mut self) {
        for deployment in DEPLOYMENTS {
            let client = self.client(&format!("{deployment}-end"));
            let done = self.have_done(Deployer { client, deployment }.converge());
            if !self.wait_for(&done, "a deployment converges") {
                return;
            }
        }
    }

    /// Whoever's VM is dead has another one, and nobody is called dead who lives.
    fn have_the_dead_replaced(&mut self) {
        let ended = self.wait("all agents are alive", |world| {
            let replica = world.machines.values().find(|m| m.is_on() && m.leads())?.slot.replica()?;
            let view = replica.log.view();
            let state = State::new(&*view);
            let running = world.cloud.running();
            let lives =
                |agent: AgentRecord| agent.health == AgentHealth::Alive && running.contains(&agent.agent);
            let well = state.health(Which::Ailing).is_empty() && state.open_tasks() == 0;
            (well && state.agents().into_iter().all(lives)).then_some(())
        });
        if ended.is_none() {
            let running = self.world.cloud.running();
            self.world.observer.complain(format!("running are {running:?}"));
        }
    }

    /// Everybody has the same in the end, and it is what should be there.
    fn compare(&mut self) {
        // What is looked for has appeared by then, or will not.
        self.wait("the cloud has done everything, and nobody looks for anything any more", |world| {
            let replica = world.machines.values().find(|m| m.is_on() && m.leads())?.slot.replica()?;
            let view = replica.log.view();
            let state = State::new(&*view);
            let is_calm = world.cloud.late_calls() == 0 && state.latecomers().is_empty();
            (is_calm && state.orphaned_vms().is_empty() && state.open_tasks() == 0).then_some(())
        });
        self.wait("the replicas have applied the same", |world| {
            let mut applied = world.machines.values().map(|machine| {
                let node = machine.slot.replica()?.node;
                Some((*node.watch_applied().borrow(), node.status().last_log_index))
            });
            let (applied_first, last) = applied.next()??;
            let all = applied.all(|other| other.is_some_and(|(applied, _)| applied == applied_first));
            (all && last == Some(applied_first)).then_some(())
        });
        judge::states(&self.world);
        judge::cloud(&self.world);
    }

    fn watch(&mut self, number: u64) {
        let name = format!("watcher-{number}");
        let (client, sight) = (self.client(&name), Sight::default());
        self.watchers.push((name, sight.clone()));
        let watcher = WatcherClient { client, tasks: OwnedTasks::new(), sight, over: self.over.clone() };
        self.world.as_client(watcher.run());
    }

    /// Those who watch have seen everything in the end, and it was what happened.
    fn see_all(&mut self) {
        let sights: Vec<Sight> = self.watchers.iter().map(|(_, sight)| sight.clone()).collect();
        self.wait("every watcher has been told everything", |world| {
            let replica = world.machines.values().find_map(|machine| machine.slot.replica())?;
            let last = replica.node.view().applied_index();
            sights.iter().all(|sight| sight.reached() >= last).then_some(())
        });
        self.over.cancel();
        let watchers = self.watchers.iter().map(|(name, sight)| sight.of(name)).collect();
        judge::watches(&self.world, watchers);
    }

    fn report(self, seed: u64) -> Report {
        let trace = self.world.observer.trace();
        trace.flush();
        let replica = self.world.machines.values().find_map(|machine| machine.slot.replica());
        let (tasks, entries) = replica.map_or((0, 0), |replica| {
            let view = replica.log.view();
            (State::new(&*view).tasks(&TaskFilter::default()).len(), replica.node.view().applied_index())
        });
        Report {
            seed,
            broken: self.world.observer.broken(),
            digest: trace.digest(),
            events: trace.events(),
            faults: self.faults,
            ended_ms: self.world.now_ms,
            tasks,
            entries,
        }
    }
}
