//! Every replica's loop: listens for the heartbeats of its shards, judges silence, has deaths confirmed and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use model::AgentId;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::assess::{Policy, Signs, Verdict, assess};
use crate::shard::shard_owner;
use crate::world::{Health, Transition, Watched, World};

/// How often agents are judged.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// Suspects asked at once.
const ASKED_AT_ONCE: usize = 32;

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

    fn forget_all_but(&self, agents: &BTreeSet<AgentId>) {
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
            self.since.entry(agent.clone()).or_insert(now);
        }
    }

    fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }
}

/// Runs for the life of the process.
pub async fn run(world: Arc<dyn World>, ears: Arc<Ears>, policy: Policy, stop: CancellationToken) {
    let mut listening = Listening { started: Instant::now(), map: 0, epoch: 0, since: BTreeMap::new() };
    loop {
        tokio::select! {
            () = tokio::time::sleep(JUDGE_EVERY) => {}
            () = stop.cancelled() => return,
        }
        judge(&*world, &ears, policy, &mut listening).await;
    }
}

async fn judge(world: &dyn World, ears: &Ears, policy: Policy, listening: &mut Listening) {
    let (map, watchers) = world.shard_map();
    let watched = world.watched();
    let own: Vec<&Watched> =
        watched.iter().filter(|w| shard_owner(&w.deployment, &watchers) == Some(world.node())).collect();
    listening.note(map, world.epoch(), &own);
    ears.forget_all_but(&watched.iter().map(|w| w.agent.clone()).collect());
    let now = listening.at(Instant::now());
    let mut found = Vec::new();
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
            Verdict::Alive => found.push(transition(agent, Health::Alive, "heartbeats come")),
            Verdict::Confirm => suspects.push(*agent),
        }
    }
    found.extend(confirm(world, ears, &suspects).await);
    for report in found.chunks(REPORT_MAX) {
        world.report(map, report.to_vec()).await;
    }
}

/// Asks each suspect by another way than its heartbeats. One that answers is as good as heard.
async fn confirm(world: &dyn World, ears: &Ears, suspects: &[&Watched]) -> Vec<Transition> {
    let mut asked: Vec<BoxFuture<'_, (&Watched, bool)>> = Vec::with_capacity(suspects.len());
    for agent in suspects.iter().copied() {
        asked.push(async move { (agent, world.ask(&agent.agent).await) }.boxed());
    }
    let answers: Vec<(&Watched, bool)> =
        futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await;
    let mut found = Vec::new();
    for (agent, answered) in answers {
        if answered {
            info!(agent = %agent.agent, deployment = %agent.deployment, "silent, but answers when asked");
            ears.heard(&agent.agent);
        } else {
            warn!(agent = %agent.agent, deployment = %agent.deployment, "dead: no heartbeats and no answer");
            found.push(transition(
                agent,
                Health::Dead,
                "no heartbeats, and no answer when asked through any director",
            ));
        }
    }
    found
}

fn transition(agent: &Watched, health: Health, reason: &str) -> Transition {
    Transition { agent: agent.agent.clone(), health, reason: reason.into() }
}
