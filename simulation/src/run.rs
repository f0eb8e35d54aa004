//! One run of a world: set up, break, heal, judge.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkers::history::Recorder;
use checkers::linearizable::register::Call;
use state::State;
use state::log::CommandLog as _;
use state::query::TaskFilter;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::disk::Ailment;
use crate::invariants::Observer;
use crate::judge;
use crate::nemesis::{self, Fault, Plan, Way, Whom};
use crate::net::Weather;
use crate::outside::Mood;
use crate::trace::Trace;
use crate::workload::{Client, DEPLOYMENTS, Deployer, RegisterClient, prepare, recorder};
use crate::world::{End, World};

/// How long a fleet may take to be set up, to end what was under way, and to converge, in milliseconds.
const PATIENCE_MS: u64 = 150_000;

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
    };
    if run.set_up() {
        run.break_it(&plan);
        run.heal();
        run.settle();
        run.converge();
        judge::registers(&run.world, &run.registers);
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
}

/// The end of a fault.
enum Mend {
    Network,
    Storm,
    Disk(u64),
    Cloud,
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
        self.wait_for(&done, "the fleet is set up")
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

    fn whom(&mut self, whom: Whom) -> Vec<u64> {
        let on = || self.world.machines.values().filter(|machine| machine.is_on());
        match whom {
            Whom::All => on().map(|machine| machine.number).collect(),
            Whom::Any(number) => on().map(|machine| machine.number).filter(|n| *n == number).collect(),
            Whom::Leader => {
                on().filter(|machine| machine.leads()).map(|machine| machine.number).take(1).collect()
            }
            Whom::Follower => {
                let followers: Vec<u64> = on().filter(|m| !m.leads()).map(|m| m.number).collect();
                if followers.is_empty() { followers } else { vec![*self.chance.one_of(&followers)] }
            }
        }
    }

    fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(whom) => self.end(*whom, End::Killed),
            Fault::Crash(whom) => self.end(*whom, End::Crashed),
            Fault::Pause(whom, ms) => {
                let until = self.world.now_ms + ms;
                for number in self.whom(*whom) {
                    self.world.machines.entry(number).and_modify(|machine| machine.paused_until = until);
                }
            }
            Fault::CutOff(whom, way, ms) => {
                for number in self.whom(*whom) {
                    self.cut_off(number, *way);
                }
                self.mend_in(*ms, Mend::Network);
            }
            Fault::AllApart(ms) => {
                let numbers: Vec<u64> = self.world.machines.keys().copied().collect();
                numbers.into_iter().for_each(|number| self.cut_off(number, Way::Both));
                self.mend_in(*ms, Mend::Network);
            }
            Fault::Storm(ms) => {
                self.world.net.change(|weather| nemesis::storm(weather, &mut self.chance));
                self.mend_in(*ms, Mend::Storm);
            }
            Fault::SlowDisk(whom, by_ms, ms) => {
                for number in self.whom(*whom) {
                    self.world.machines[&number].disk.ail(nemesis::slow(*by_ms));
                    self.mend_in(*ms, Mend::Disk(number));
                }
            }
            Fault::DeadDisk(whom) => {
                for number in self.whom(*whom) {
                    self.world.machines[&number].disk.ail(Ailment { slow_ms: 0, fails: true });
                    let ms = self.chance.between(200, 2000);
                    self.mend_in(ms, Mend::Disk(number));
                }
            }
            Fault::Restart(whom) => {
                for number in self.whom(*whom) {
                    self.restart(number);
                }
            }
            Fault::Transfer => self.transfer(),
            Fault::BadCloud(ms) => {
                self.world.cloud.set_mood(nemesis::mood(&mut self.chance));
                self.mend_in(*ms, Mend::Cloud);
            }
        }
    }

    fn mend_in(&mut self, ms: u64, mend: Mend) {
        self.healing.push((self.world.now_ms + ms, mend));
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Network => self.world.net.change(|weather| weather.blocked.clear()),
            Mend::Storm => {
                let delay_us = self.usual;
                self.world.net.change(|weather| {
                    let blocked = std::mem::take(&mut weather.blocked);
                    *weather = Weather { blocked, delay_us, ..Weather::fair() };
                });
            }
            Mend::Disk(number) => {
                self.world.machines[&number].disk.ail(Ailment::default());
                // Who ended because of it is started again.
                let now = self.world.now_ms;
                if let Some(machine) = self.world.machines.get_mut(&number).filter(|m| !m.is_on()) {
                    machine.starts_at = Some(now + 50);
                }
            }
            Mend::Cloud => self.world.cloud.set_mood(Mood::default()),
        }
    }

    fn end(&mut self, whom: Whom, how: End) {
        for number in self.whom(whom) {
            self.world.end(number, how);
            let at = self.world.now_ms + self.chance.between(20, 3000);
            self.world.machines.entry(number).and_modify(|machine| machine.starts_at = Some(at));
        }
    }

    fn cut_off(&mut self, number: u64, way: Way) {
        let others: Vec<u64> = self.world.machines.keys().copied().filter(|n| *n != number).collect();
        self.world.net.change(|weather| {
            for other in others {
                if way != Way::Out {
                    weather.blocked.insert((other, number));
                }
                if way != Way::In {
                    weather.blocked.insert((number, other));
                }
            }
        });
    }

    /// Has a replica stop in order; it is started again when it has, or when it takes too long.
    fn restart(&mut self, number: u64) {
        let Some(replica) = self.world.machines[&number].slot.replica() else { return };
        self.world.ask(
            number,
            Arc::new(move |_| {
                let node = replica.node.clone();
                Box::pin(async move { node.shutdown().await })
            }),
        );
        let end = self.world.now_ms + self.chance.between(300, 2000);
        self.world.machines.entry(number).and_modify(|machine| machine.ends_at = Some(end));
    }

    fn transfer(&mut self) {
        let Some(leader) = self.whom(Whom::Leader).first().copied() else { return };
        let Some(replica) = self.world.machines[&leader].slot.replica() else { return };
        self.world.ask(
            leader,
            Arc::new(move |_| {
                let node = replica.node.clone();
                Box::pin(async move {
                    // Who can't hand over goes on leading.
                    let _ = node.transfer_leader(None, Duration::from_secs(2)).await;
                })
            }),
        );
    }

    /// Mends everything.
    fn heal(&mut self) {
        self.world.observer.note(|| "everything is mended".to_owned());
        self.enough.cancel();
        self.healing.clear();
        self.world.net.change(|weather| *weather = Weather::fair());
        self.world.cloud.set_mood(Mood::default());
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
