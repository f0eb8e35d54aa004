//! Every replica's loop: listens for the heartbeats of its shards, judges silence, has deaths confirmed and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use known_bugs::Bug;
use model::AgentId;
// The runtime's clock is the monotonic one, and tests can hold it.
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::assess::{Policy, Signs, Verdict, assess};
use crate::shard::shard_owner;
use crate::world::{Health, Transition, Watched, World};

/// How often agents are judged.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// Suspects asked at once. An agent that is gone keeps its place for all of [`ASK_WITHIN`], and when a rack dies all of
/// its agents must be known in time; fewer than a replica takes requests from another at once.
const ASKED_AT_ONCE: usize = 512;

/// Agents that are called dead, asked at once whether they are back.
const DEAD_ASKED_AT_ONCE: usize = 128;

/// How long an agent is asked before the fleet is told that it is suspected.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// How long an agent may take to answer; what implements [`World::ask`] keeps to it.
pub const ASK_WITHIN: Duration = Duration::from_secs(3);

/// A timer that is late by more than this tells that the whole process stood still (paused, swapped out): it has not
/// listened then, so the silence proves nothing.
const LATE: Duration = Duration::from_secs(2);

/// How long a report may wait for a leader. What was found before that is stale: it is looked at anew.
const REPORT_WITHIN: Duration = Duration::from_secs(3);

/// Findings in one report, far below an entry's size.
const REPORT_MAX: usize = 500;

/// What this replica has heard. Shared with whatever receives heartbeats; cheap to note.
#[derive(Default)]
pub struct Ears {
    heard: Mutex<BTreeMap<AgentId, Instant>>,
    /// Whether agents' jobs run, as each said last.
    jobs_run: Mutex<BTreeMap<AgentId, bool>>,
}

impl Ears {
    /// Notes a sign of life.
    pub fn heard(&self, agent: &AgentId) {
        self.lock().insert(agent.clone(), Instant::now());
    }

    /// Notes what an agent says of its jobs.
    pub fn jobs(&self, agent: &AgentId, run: bool) {
        self.jobs_run.lock().unwrap_or_else(PoisonError::into_inner).insert(agent.clone(), run);
    }

    fn forget_jobs(&self) {
        self.jobs_run.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns those of these agents that have said something else of their jobs than is known.
    fn changed_jobs(&self, of: &[&Watched]) -> Vec<(AgentId, bool)> {
        let said = self.jobs_run.lock().unwrap_or_else(PoisonError::into_inner);
        let changed =
            |watched: &&&Watched| said.get(&watched.agent).is_some_and(|run| Some(*run) != watched.jobs_run);
        let changed = of.iter().filter(changed);
        changed.filter_map(|watched| Some((watched.agent.clone(), *said.get(&watched.agent)?))).collect()
    }

    fn last(&self, agent: &AgentId) -> Option<Instant> {
        self.lock().get(agent).copied()
    }

    fn forget_all_but(&self, agents: &BTreeSet<&AgentId>) {
        self.lock().retain(|agent, _| agents.contains(agent));
        let mut jobs_run = self.jobs_run.lock().unwrap_or_else(PoisonError::into_inner);
        jobs_run.retain(|agent, _| agents.contains(agent));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when each agent has been known and listened for, and under which map and epoch.
struct Listening {
    started: Instant,
    map: u64,
    epoch: u64,
    known: BTreeMap<AgentId, Instant>,
    since: BTreeMap<AgentId, Instant>,
    /// Since when the fleet has suspected those that it suspects, as far as this replica knows.
    suspected: BTreeMap<AgentId, Instant>,
    /// When those that gave no answer were last asked.
    asked: BTreeMap<AgentId, Instant>,
}

impl Listening {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            map: 0,
            epoch: 0,
            known: BTreeMap::new(),
            since: BTreeMap::new(),
            suspected: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    fn is_of(&self, map: u64, epoch: u64) -> bool {
        (map, epoch) == (self.map, self.epoch)
    }

    /// Starts over for everybody when streams may have moved: after an election or a new map, silence proves nothing yet.
    fn note(&mut self, map: u64, epoch: u64, all: &[Watched], own: &[&Watched]) {
        if !self.is_of(map, epoch) {
            (self.map, self.epoch) = (map, epoch);
            self.since.clear();
        }
        keep(&mut self.known, all.iter().map(|w| &w.agent));
        let suspects = all.iter().filter(|w| w.agreed == Health::Suspect);
        keep(&mut self.suspected, suspects.map(|w| &w.agent));
        keep(&mut self.since, own.iter().map(|w| &w.agent));
        if known_bugs::is(Bug::ShardWithoutGrace) {
            self.since = self.known.clone();
        }
        self.asked.retain(|agent, _| self.since.contains_key(agent));
    }

    /// Starts over for everybody after this process stood still.
    fn interrupted(&mut self) {
        self.since.clear();
        self.suspected.clear();
    }

    fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    fn signs(&self, watched: &Watched, ears: &Ears) -> Option<Signs> {
        let agent = &watched.agent;
        Some(Signs {
            known_since: self.at(*self.known.get(agent)?),
            listening_since: self.at(*self.since.get(agent)?),
            heard: ears.last(agent).map(|at| self.at(at)),
            suspected_since: self.suspected.get(agent).map(|at| self.at(*at)),
            asked: self.asked.get(agent).map(|at| self.at(*at)),
            agreed: watched.agreed,
        })
    }
}

/// Makes `since` hold exactly these agents, new ones from now on.
fn keep<'a>(since: &mut BTreeMap<AgentId, Instant>, agents: impl Iterator<Item = &'a AgentId>) {
    let (agents, now) = (agents.collect::<BTreeSet<_>>(), Instant::now());
    since.retain(|agent, _| agents.contains(agent));
    for agent in agents {
        if !since.contains_key(agent) {
            since.insert(agent.clone(), now);
        }
    }
}

/// Runs for the life of the process.
pub async fn run(world: Arc<dyn World>, ears: Arc<Ears>, policy: Policy, stop: CancellationToken) {
    let watcher = Watcher {
        world: &*world,
        ears: &ears,
        policy,
        listening: Listening::new(),
        busy: BTreeMap::new(),
        jobs_told: Told::Nothing,
        deeds: FuturesUnordered::new(),
    };
    tokio::select! {
        () = watcher.watch() => {}
        () = stop.cancelled() => {}
    }
}

/// What asking a suspect told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It answered, or was heard meanwhile.
    Lives,
    /// It did not.
    None,
    /// We can't tell: this process stood still while it asked.
    Unclear,
}

/// Something that took its time and has ended.
enum Deed {
    /// An agent was asked, under a map.
    Asked { agent: Watched, map: u64, answer: Answer },
    /// These were reported, or could not be.
    Reported { agents: Vec<AgentId> },
    /// What agents said of their jobs was made known, or could not be.
    JobsTold,
}

/// Whether it is just being made known what agents say of their jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    BeingTold,
}

/// Why an agent is not judged just now.
struct Busy {
    since: Instant,
    kind: BusyKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BusyKind {
    /// It is being asked, of which nobody need know yet.
    Asked,
    /// It is being asked, and the fleet was told that it is suspected.
    Suspected,
    /// It is called dead and is being asked whether it is back.
    AskedAgain,
    /// What was found is being reported.
    Reported,
}

/// The loop. Agents are asked and reported beside each other: neither the dead nor a report that finds no leader keep
/// anybody else from being judged.
struct Watcher<'a> {
    world: &'a dyn World,
    ears: &'a Ears,
    policy: Policy,
    listening: Listening,
    /// Agents that a deed is about; at most one each.
    busy: BTreeMap<AgentId, Busy>,
    /// At most one such report is under way: what changes meanwhile is in the next.
    jobs_told: Told,
    deeds: FuturesUnordered<BoxFuture<'a, Deed>>,
}

impl Watcher<'_> {
    async fn watch(mut self) {
        let mut judge_at = Instant::now() + JUDGE_EVERY;
        loop {
            let before = Instant::now();
            let deed = tokio::select! {
                Some(deed) = self.deeds.next() => Some(deed),
                () = tokio::time::sleep_until(judge_at) => None,
            };
            let paused = before.elapsed().saturating_sub(JUDGE_EVERY);
            if paused > LATE {
                let paused_ms = paused.as_millis() as u64;
                warn!(paused_ms, "this process stood still: silence meanwhile does not count");
                self.listening.interrupted();
            }
            match deed {
                Some(deed) => self.take(deed),
                None => {
                    self.judge().await;
                    judge_at = Instant::now() + JUDGE_EVERY;
                }
            }
        }
    }

    async fn judge(&mut self) {
        let (map, watchers) = self.world.shard_map();
        let watched = self.world.watched().await;
        let own: Vec<&Watched> = watched
            .iter()
            .filter(|w| shard_owner(&w.deployment, &watchers) == Some(self.world.node()))
            .collect();
        let epoch = self.world.epoch();
        if !self.listening.is_of(map, epoch) {
            // Who was watched here before may have said otherwise elsewhere since.
            self.ears.forget_jobs();
        }
        self.listening.note(map, epoch, &watched, &own);
        self.ears.forget_all_but(&watched.iter().map(|w| &w.agent).collect());
        self.tell_jobs(map, &own);
        let now = self.listening.at(Instant::now());
        let (mut alive, mut silent, mut suspected) = (Vec::new(), Vec::new(), Vec::new());
        for agent in own.into_iter().filter(|w| !w.in_work) {
            if let Some(busy) = self.busy.get(&agent.agent) {
                if busy.kind == BusyKind::Asked && busy.since.elapsed() >= TOLD_AFTER {
                    suspected.push(agent);
                }
                continue;
            }
            let Some(signs) = self.listening.signs(agent, self.ears) else { continue };
            match assess(self.policy.of(agent.beats), signs, now) {
                Verdict::Keep => {}
                Verdict::Alive => alive.push(transition(agent, Health::Alive, "heartbeats come")),
                Verdict::Ask => silent.push(agent),
            }
        }
        self.report(map, alive);
        self.suspect(map, &suspected);
        self.ask(map, silent);
    }

    /// Has it known what agents say of their jobs, also while a task works on them: names lead to those whose jobs run.
    fn tell_jobs(&mut self, map: u64, own: &[&Watched]) {
        if self.jobs_told == Told::BeingTold {
            return;
        }
        let mut changed = self.ears.changed_jobs(own);
        changed.truncate(REPORT_MAX);
        if changed.is_empty() {
            return;
        }
        self.jobs_told = Told::BeingTold;
        let world = self.world;
        self.deeds.push(
            async move {
                if tokio::time::timeout(REPORT_WITHIN, world.report_jobs(map, changed)).await.is_err() {
                    debug!(map, "what agents say of their jobs could not be made known in time");
                }
                Deed::JobsTold
            }
            .boxed(),
        );
    }

    /// Has it known that agents that are being asked are suspected, also if the question is older than the map: what a
    /// suspicion is worth, whoever reads it judges by its age. Not at once: one that is served elsewhere answers in
    /// no time, and the log need not hear of it.
    fn suspect(&mut self, map: u64, suspected: &[&Watched]) {
        for agent in suspected {
            if let Some(busy) = self.busy.get_mut(&agent.agent) {
                busy.kind = BusyKind::Suspected;
            }
        }
        let news = suspected.iter().filter(|agent| agent.agreed != Health::Suspect);
        let reason = "no heartbeats, and no answer so far";
        let found: Vec<_> = news.map(|agent| transition(agent, Health::Suspect, reason)).collect();
        for found in found.chunks(REPORT_MAX) {
            // They stay busy with what they are asked: nobody waits for this report.
            self.send(map, found.to_vec(), Vec::new());
        }
    }

    /// Asks silent agents: suspects first, and of the dead so few that they keep no suspect waiting.
    fn ask(&mut self, map: u64, mut silent: Vec<&Watched>) {
        silent.sort_by_key(|agent| agent.agreed == Health::Dead);
        let asked = |of: &[BusyKind]| self.busy.values().filter(|busy| of.contains(&busy.kind)).count();
        let mut suspects_room = ASKED_AT_ONCE.saturating_sub(asked(&[BusyKind::Asked, BusyKind::Suspected]));
        let mut dead_room = DEAD_ASKED_AT_ONCE.saturating_sub(asked(&[BusyKind::AskedAgain]));
        for agent in silent {
            let (kind, room) = match agent.agreed {
                Health::Dead => (BusyKind::AskedAgain, &mut dead_room),
                _ => (BusyKind::Asked, &mut suspects_room),
            };
            if *room == 0 {
                continue;
            }
            *room -= 1;
            self.busy.insert(agent.agent.clone(), Busy { since: Instant::now(), kind });
            let (world, ears, agent) = (self.world, self.ears, agent.clone());
            self.deeds.push(
                async move {
                    let answer = ask(world, ears, &agent).await;
                    Deed::Asked { agent, map, answer }
                }
                .boxed(),
            );
        }
    }

    /// Takes in a deed's end, and those of others that have ended with it.
    fn take(&mut self, deed: Deed) {
        let mut found: BTreeMap<u64, Vec<Transition>> = BTreeMap::new();
        let mut next = Some(deed);
        while let Some(deed) = next {
            match deed {
                Deed::Reported { agents } => agents.iter().for_each(|agent| {
                    self.busy.remove(agent);
                }),
                Deed::JobsTold => self.jobs_told = Told::Nothing,
                Deed::Asked { agent, map, answer } => {
                    self.busy.remove(&agent.agent);
                    found.entry(map).or_default().extend(self.learned(&agent, answer));
                }
            }
            next = self.deeds.next().now_or_never().flatten();
        }
        for (map, found) in found {
            self.report(map, found);
        }
    }

    /// Returns what an answer, or that there was none, tells the fleet. One that answers is as good as heard.
    fn learned(&mut self, agent: &Watched, answer: Answer) -> Option<Transition> {
        let (id, deployment) = (&agent.agent, &agent.deployment);
        match (answer, agent.agreed) {
            (Answer::Unclear, _) => None,
            (Answer::Lives, Health::Alive) => {
                debug!(agent = %id, %deployment, "silent, but answers when asked");
                self.ears.heard(id);
                None
            }
            (Answer::Lives, _) => {
                info!(agent = %id, %deployment, "it is there after all: it answers when asked");
                self.ears.heard(id);
                Some(transition(agent, Health::Alive, "it answers when asked"))
            }
            (Answer::None, Health::Dead) => {
                self.listening.asked.insert(id.clone(), Instant::now());
                None
            }
            (Answer::None, _) => {
                warn!(agent = %id, %deployment, "dead: no heartbeats and no answer");
                self.listening.asked.insert(id.clone(), Instant::now());
                let reason = "no heartbeats, and no answer when asked through any director";
                Some(transition(agent, Health::Dead, reason))
            }
        }
    }

    /// Has findings reported. Their agents are judged again when that is done.
    fn report(&mut self, map: u64, found: Vec<Transition>) {
        for found in found.chunks(REPORT_MAX) {
            let agents: Vec<AgentId> = found.iter().map(|found| found.agent.clone()).collect();
            let busy =
                |agent: &AgentId| (agent.clone(), Busy { since: Instant::now(), kind: BusyKind::Reported });
            self.busy.extend(agents.iter().map(busy));
            self.send(map, found.to_vec(), agents);
        }
    }

    /// Reports, but not for longer than what was found stays true.
    fn send(&mut self, map: u64, found: Vec<Transition>, agents: Vec<AgentId>) {
        let world = self.world;
        self.deeds.push(
            async move {
                if tokio::time::timeout(REPORT_WITHIN, world.report(map, found)).await.is_err() {
                    warn!(map, "what the watcher found could not be agreed on in time; it looks again");
                }
                Deed::Reported { agents }
            }
            .boxed(),
        );
    }
}

async fn ask(world: &dyn World, ears: &Ears, agent: &Watched) -> Answer {
    let asked = Instant::now();
    if world.ask(&agent.agent).await || ears.last(&agent.agent).is_some_and(|heard| heard >= asked) {
        return Answer::Lives;
    }
    match asked.elapsed() > ASK_WITHIN + LATE {
        true => Answer::Unclear,
        false => Answer::None,
    }
}

fn transition(agent: &Watched, health: Health, reason: &str) -> Transition {
    Transition { agent: agent.agent.clone(), health, reason: reason.into() }
}

#[cfg(test)]
mod tests;
