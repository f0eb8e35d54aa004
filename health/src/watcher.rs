//! Every replica's loop: listens for the heartbeats of its shards, judges silence, has deaths confirmed and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::AgentId;
// The runtime's clock is the monotonic one, and tests can hold it.
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::assess::{Policy, Signs, Verdict, assess};
use crate::shard::shard_owner;
use crate::world::{Health, Transition, Watched, World};

/// How often agents are judged.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// Suspects asked at once. An agent that is gone keeps its place for all of [`ASK_WITHIN`], and when a rack dies all of
/// its agents must be known in time; fewer than a replica takes requests from another at once.
const ASKED_AT_ONCE: usize = 512;

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
}

impl Ears {
    /// Notes a sign of life.
    pub fn heard(&self, agent: &AgentId) {
        self.lock().insert(agent.clone(), Instant::now());
    }

    fn last(&self, agent: &AgentId) -> Option<Instant> {
        self.lock().get(agent).copied()
    }

    fn forget_all_but(&self, agents: &BTreeSet<&AgentId>) {
        self.lock().retain(|agent, _| agents.contains(agent));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when each agent has been listened for, and under which map and epoch.
struct Listening {
    started: Instant,
    map: u64,
    epoch: u64,
    since: BTreeMap<AgentId, Instant>,
}

impl Listening {
    /// Starts over for everybody when streams may have moved: after an election or a new map, silence proves nothing.
    fn note(&mut self, map: u64, epoch: u64, own: &[&Watched]) {
        if (map, epoch) != (self.map, self.epoch) {
            (self.map, self.epoch) = (map, epoch);
            self.since.clear();
        }
        let now = Instant::now();
        let ids: BTreeSet<&AgentId> = own.iter().map(|w| &w.agent).collect();
        self.since.retain(|agent, _| ids.contains(agent));
        for agent in ids {
            if !self.since.contains_key(agent) {
                self.since.insert(agent.clone(), now);
            }
        }
    }

    /// Starts over for everybody after this process stood still.
    fn interrupted(&mut self) {
        self.since.clear();
    }

    fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }
}

/// Runs for the life of the process.
pub async fn run(world: Arc<dyn World>, ears: Arc<Ears>, policy: Policy, stop: CancellationToken) {
    let mut listening = Listening { started: Instant::now(), map: 0, epoch: 0, since: BTreeMap::new() };
    let watch = async {
        loop {
            let before = Instant::now();
            tokio::time::sleep(JUDGE_EVERY).await;
            let paused = before.elapsed().saturating_sub(JUDGE_EVERY);
            if paused > LATE {
                warn!(
                    paused_ms = paused.as_millis() as u64,
                    "this process stood still: silence meanwhile does not count"
                );
                listening.interrupted();
            }
            judge(&*world, &ears, policy, &mut listening).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = stop.cancelled() => {}
    }
}

async fn judge(world: &dyn World, ears: &Ears, policy: Policy, listening: &mut Listening) {
    let (map, watchers) = world.shard_map();
    let watched = world.watched().await;
    let own: Vec<&Watched> =
        watched.iter().filter(|w| shard_owner(&w.deployment, &watchers) == Some(world.node())).collect();
    listening.note(map, world.epoch(), &own);
    ears.forget_all_but(&watched.iter().map(|w| &w.agent).collect());
    let now = listening.at(Instant::now());
    let mut alive = Vec::new();
    let mut suspects = Vec::new();
    for agent in own.iter().filter(|w| !w.in_work) {
        let Some(since) = listening.since.get(&agent.agent) else { continue };
        let signs = Signs {
            listening_since: listening.at(*since),
            heard: ears.last(&agent.agent).map(|at| listening.at(at)),
            agreed: agent.agreed,
        };
        match assess(policy, signs, now) {
            Verdict::Keep => {}
            Verdict::Alive => alive.push(transition(agent, Health::Alive, "heartbeats come")),
            Verdict::Confirm => suspects.push(*agent),
        }
    }
    for found in alive.chunks(REPORT_MAX) {
        report(world, map, found.to_vec()).await;
    }
    confirm(world, map, ears, &suspects).await;
}

/// Reports, but not for longer than what was found stays true.
async fn report(world: &dyn World, map: u64, found: Vec<Transition>) {
    if tokio::time::timeout(REPORT_WITHIN, world.report(map, found)).await.is_err() {
        warn!(map, "what the watcher found could not be agreed on in time; it looks again");
    }
}

/// What asking a suspect told.
enum Answer {
    /// It answered, or was heard meanwhile.
    Lives,
    /// It did not.
    None,
    /// We can't tell: this process stood still while it asked.
    Unclear,
}

/// Asks each suspect by another way than its heartbeats, and reports deaths as they are found. One that answers is as
/// good as heard.
async fn confirm(world: &dyn World, map: u64, ears: &Ears, suspects: &[&Watched]) {
    let mut asked: Vec<BoxFuture<'_, (&Watched, Answer)>> = Vec::with_capacity(suspects.len());
    for agent in suspects.iter().copied() {
        asked.push(async move { (agent, ask(world, ears, agent).await) }.boxed());
    }
    let mut answers = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).ready_chunks(REPORT_MAX);
    while let Some(answers) = answers.next().await {
        let mut dead = Vec::new();
        for (agent, answer) in answers {
            match answer {
                Answer::Lives => {
                    info!(agent = %agent.agent, deployment = %agent.deployment, "silent, but answers when asked");
                    ears.heard(&agent.agent);
                }
                Answer::None => {
                    warn!(agent = %agent.agent, deployment = %agent.deployment, "dead: no heartbeats and no answer");
                    let reason = "no heartbeats, and no answer when asked through any director";
                    dead.push(transition(agent, Health::Dead, reason));
                }
                Answer::Unclear => {}
            }
        }
        if !dead.is_empty() {
            report(world, map, dead).await;
        }
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
