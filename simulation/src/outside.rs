//! The world outside: a cloud, the agents in its VMs, and the way of a replica to both.
//!
//! It lives in a process of its own that never crashes: what a replica asked for happens even if the replica is gone by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_api::fake::{Behaviour, FakeAgents};
use agent_api::{AgentError, Agents, Method, Reply, Request};
use async_trait::async_trait;
use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind, CreateVm, Metadata};
use dagent::Directory;
use directord::agents::digest_of;
use model::{AgentId, Epoch, RequestId, StemcellCid, VmCid};
use owned_tasks::{OnExit, OwnedTasks};
use serde_json::Value;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use tokio::time::Instant;

use crate::agents::life::{Life, address};
use crate::agents::{Lives, Stopped};
use crate::chance::Chance;
use crate::invariants::{Event, Observer};
use crate::net::{Net, Place};
use crate::services::Services;

/// The number of the process that the world outside is, for whoever calls agents.
pub const OUTSIDE: u64 = 1000;

/// The number of the same process, for whoever calls the cloud.
pub const CLOUD: u64 = 1001;

/// How the cloud and the agents are at the moment: of a thousand calls, so many go wrong in this way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    /// Fail, with nothing done.
    pub fails: u32,
    /// Are done, and the answer is lost.
    pub answer_lost: u32,
    /// Are never answered, with nothing done.
    pub hangs: u32,
    /// Take seconds.
    pub late: u32,
    /// Of an agent's requests, so many are done without an answer, or find it restarting.
    pub agents: u32,
    /// Of the calls that create something, so many break off at once, and are carried out all the same: seconds later, maybe
    /// when others have long looked for it.
    pub given_up: u32,
}

struct Inner {
    cloud: MemoryCloud,
    chance: Chance,
    mood: Mood,
    /// VMs in which an agent has begun to live.
    living: BTreeSet<VmCid>,
    /// The key that each VM has made.
    keys: BTreeMap<VmCid, String>,
    /// In which VM the agent lives that the directors took for the one of this id, and how new its token was.
    enrolled: BTreeMap<AgentId, (u32, VmCid)>,
    /// Calls that are still to be carried out although nobody waits for them.
    late: u32,
    /// The newest epoch that each agent has heard of.
    heard: BTreeMap<AgentId, Epoch>,
}

/// The cloud with its agents; clones are the same.
#[derive(Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    agents: Arc<FakeAgents>,
    lives: Lives,
    net: Net,
    replicas: u64,
    tasks: Arc<Mutex<Option<OwnedTasks>>>,
    observer: Observer,
}

impl World {
    /// Returns an empty cloud.
    pub fn new(chance: Chance, net: Net, replicas: u64, observer: Observer) -> Self {
        let mut cloud = MemoryCloud::default();
        // The one that the fleet is set up with.
        cloud.stemcells.insert(StemcellCid::new("stemcell-1"), Metadata::new());
        let inner = Inner {
            cloud,
            chance,
            mood: Mood::default(),
            living: BTreeSet::new(),
            keys: BTreeMap::new(),
            enrolled: BTreeMap::new(),
            late: 0,
            heard: BTreeMap::new(),
        };
        let (inner, agents) = (Arc::new(Mutex::new(inner)), Arc::new(FakeAgents::new()));
        Self { inner, agents, lives: Lives::default(), net, replicas, tasks: Arc::default(), observer }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it where its own work runs.
    pub fn live_in(&self, tasks: OwnedTasks) {
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
    }

    /// Changes the mood.
    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Returns the cloud as it is now.
    pub fn cloud(&self) -> MemoryCloud {
        self.lock().cloud.clone()
    }

    /// Returns how many calls are still to be carried out although nobody waits for them.
    pub fn late_calls(&self) -> u32 {
        self.lock().late
    }

    /// Gives every new VM its agent, after a while, and takes those away whose VM is gone.
    fn settle(&self) {
        let (new, gone) = {
            let mut guard = self.lock();
            let inner = &mut *guard;
            let cloud = &inner.cloud;
            inner.living.retain(|cid| cloud.vms.contains_key(cid));
            inner.keys.retain(|cid, _| cloud.vms.contains_key(cid));
            let is_gone = |(_, (_, cid)): &(&AgentId, &(u32, VmCid))| !cloud.vms.contains_key(cid);
            let gone: Vec<AgentId> =
                inner.enrolled.iter().filter(is_gone).map(|(agent, _)| agent.clone()).collect();
            inner.enrolled.retain(|agent, _| !gone.contains(agent));
            let mut new = Vec::new();
            for (cid, vm) in &cloud.vms {
                if inner.living.insert(cid.clone()) {
                    let key = format!("{:016x}", inner.chance.between(0, u64::MAX));
                    inner.keys.insert(cid.clone(), key.clone());
                    let boot = Duration::from_millis(inner.chance.between(50, 800));
                    new.push((cid.clone(), vm.request.clone(), key, boot));
                }
            }
            (new, gone)
        };
        gone.iter().for_each(|agent| {
            self.lives.end(agent);
            self.agents.remove(agent);
        });
        let Some(tasks) = self.tasks() else { return };
        for (cid, request, key, boot) in new {
            let world = self.clone();
            tasks.spawn("boot", OnExit::Ignore, move |_| world.boot(cid, request, key, boot));
        }
    }

    fn tasks(&self) -> Option<OwnedTasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An agent begins to live: it shows its token and its key to some replica, until one answers.
    async fn boot(self, cid: VmCid, request: CreateVm, key: String, boot: Duration) {
        tokio::time::sleep(boot).await;
        let agent = request.agent_id.clone();
        let token_generation = request.bootstrap.token.parse().unwrap_or_default();
        let key_digest = digest_of(key.as_bytes());
        let enroll = Command::AgentEnroll { agent: agent.clone(), key_digest, token_generation };
        loop {
            let replica = {
                let mut inner = self.lock();
                if inner.keys.get(&cid) != Some(&key) {
                    return;
                }
                inner.chance.between(1, self.replicas)
            };
            let proposal = Proposal::own(enroll.clone());
            let asked = self.net.call(Place { process: OUTSIDE, life: 1 }, replica, move |services| {
                let Services::Replica(replica) = services else { return None };
                let proposal = proposal.clone();
                Some(async move { replica.log.propose(proposal).await })
            });
            match tokio::time::timeout(Duration::from_secs(2), asked).await {
                Ok(Ok(Ok(committed))) => {
                    if committed.outcome.accepted().is_ok() {
                        self.enrolled(&agent, (token_generation, cid), key);
                    }
                    return;
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The agent in this VM is the one of its id from here on, unless its token was void before it heard that it was taken.
    fn enrolled(&self, agent: &AgentId, vm: (u32, VmCid), key: String) {
        let replaced = {
            let mut inner = self.lock();
            let is_older = inner.enrolled.get(agent).is_some_and(|(generation, _)| *generation > vm.0);
            if is_older || inner.keys.get(&vm.1).is_none_or(|known| *known != key) {
                return;
            }
            inner.enrolled.insert(agent.clone(), vm.clone()).filter(|before| *before != vm)
        };
        if replaced.is_some() {
            self.lives.end(agent);
            self.agents.remove(agent);
        }
        self.teach(agent);
        self.agents.add(agent);
        self.live(agent, key);
    }

    /// An agent that has enrolled dials in.
    fn live(&self, agent: &AgentId, key: String) {
        let Some(tasks) = self.tasks() else { return };
        let seed = self.lock().chance.between(0, u64::MAX);
        self.lives.begin(&tasks, agent, |runs| Life {
            agent: agent.clone(),
            key,
            answers: Arc::new(self.clone()),
            net: self.net.clone(),
            tasks: tasks.clone(),
            chance: Chance::of(seed, agent.as_str()),
            directory: Directory::new((1..=self.replicas).map(address).collect()),
            runs,
        });
    }

    /// Stops the VM of an agent, for good or until it is [let go on](Self::go_on).
    pub fn stop(&self, agent: &AgentId, how: Stopped) {
        self.observer.note(|| format!("the VM of agent {agent} stops: {how:?}"));
        self.agents.disconnect(agent);
        self.lives.stop(agent, how);
    }

    /// Lets the VM of an agent go on, if it ever can.
    pub fn go_on(&self, agent: &AgentId) {
        if self.lives.go_on(agent) {
            self.observer.note(|| format!("the VM of agent {agent} goes on"));
            self.agents.connect(agent);
        }
    }

    /// Lets every VM go on that can.
    pub fn all_go_on(&self) {
        self.lives.stopped().iter().for_each(|agent| self.go_on(agent));
    }

    /// Returns the agents whose VMs run.
    pub fn running(&self) -> Vec<AgentId> {
        self.lives.running()
    }

    /// Has an agent misbehave as the mood is.
    fn teach(&self, agent: &AgentId) {
        let world = self.clone();
        self.agents.decide(
            agent,
            Box::new(move |_| {
                let mut inner = world.lock();
                let often = inner.mood.agents;
                if !inner.chance.in_thousand(often) {
                    return None;
                }
                Some(if inner.chance.in_thousand(500) { Behaviour::LoseAnswer } else { Behaviour::Restart })
            }),
        );
    }

    fn perform(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let performed = {
            let mut inner = self.lock();
            self.observer.see(&Event::Deed { cloud: &inner.cloud, context, call: &call });
            let performed = inner.cloud.perform(context, call.clone());
            if performed.as_ref().is_err_and(|error| error.kind != CpiErrorKind::Fenced) {
                self.observer.see(&Event::Refused { call: &call });
            }
            performed
        };
        self.settle();
        performed
    }
}

/// How much later something is done of which nobody hears, in milliseconds.
const LATER_MS: (u64, u64) = (200, 12_000);

impl World {
    /// Has a call carried out although nobody waits for it any more.
    fn perform_later(&self, call: Call) {
        let later = {
            let mut inner = self.lock();
            inner.late += 1;
            Duration::from_millis(inner.chance.between(LATER_MS.0, LATER_MS.1))
        };
        let world = self.clone();
        let Some(tasks) = self.tasks() else { return };
        tasks.spawn("late call", OnExit::Ignore, move |_| async move {
            tokio::time::sleep(later).await;
            {
                let mut inner = world.lock();
                world.observer.see(&Event::Deed { cloud: &inner.cloud, context: None, call: &call });
                // Nobody hears whether it works.
                let _ = inner.cloud.perform_late(call);
                inner.late -= 1;
            }
            world.settle();
        });
    }
}

/// What becomes of a call.
enum Fate {
    GivenUp,
    Answered,
    Fails,
    AnswerLost,
    Hangs,
}

#[async_trait]
impl CallPort for World {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        let (fate, latency) = {
            let mut inner = self.lock();
            let Mood { fails, answer_lost, hangs, late, given_up, .. } = inner.mood;
            let creates = matches!(call, Call::CreateVm(_) | Call::CreateDisk(_));
            let fate = match inner.chance.between(0, 999) as u32 {
                n if n < fails => Fate::Fails,
                n if n < fails + answer_lost => Fate::AnswerLost,
                n if n < fails + answer_lost + hangs => Fate::Hangs,
                n if creates && n < fails + answer_lost + hangs + given_up => Fate::GivenUp,
                _ => Fate::Answered,
            };
            let ms = if inner.chance.in_thousand(late) { (1000, 8000) } else { (5, 120) };
            (fate, Duration::from_millis(inner.chance.between(ms.0, ms.1)))
        };
        let no_answer = || CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time");
        tokio::time::sleep(latency).await;
        match fate {
            Fate::Answered => self.perform(context, call),
            Fate::GivenUp => {
                self.perform_later(call);
                Err(no_answer())
            }
            Fate::Fails => {
                self.observer.see(&Event::Refused { call: &call });
                let kind = match method {
                    "create_vm" => CpiErrorKind::VmCreationFailed,
                    _ => CpiErrorKind::Other,
                };
                Err(CpiError::new(kind, method, "the simulated cloud is in a bad mood").retryable())
            }
            Fate::AnswerLost => self.perform(context, call).and_then(|_| Err(no_answer())),
            Fate::Hangs => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Err(no_answer())
            }
        }
    }
}

#[async_trait]
impl Agents for World {
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError> {
        let (epoch, what) = (request.epoch, request.method.name());
        let hears = self.lives.running().contains(agent);
        let known = {
            let mut inner = self.lock();
            let heard = inner.heard.entry(agent.clone()).or_default();
            let known = *heard;
            if hears {
                *heard = known.max(epoch);
            }
            known
        };
        let answer = self.agents.call(agent, request).await;
        if answer.is_ok() {
            self.observer.see(&Event::Obeyed { agent, epoch, known, what });
        }
        answer
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        self.agents.cancel(agent, request, epoch).await
    }
}

/// Returns whether a call changes anything.
fn is_deed(call: &Call) -> bool {
    !matches!(
        call,
        Call::Info
            | Call::FindVm(_)
            | Call::HasVm(_)
            | Call::FindDisk(_)
            | Call::HasDisk(_)
            | Call::FindSnapshot(_)
            | Call::FindNetwork(_)
            | Call::CalculateVmCloudProperties(_)
    )
}

/// A replica's way to the cloud.
pub struct SimCloudPort {
    /// Who sees what is asked for.
    pub observer: Observer,
    /// Over this network.
    pub net: Net,
    /// From here.
    pub me: Place,
}

#[async_trait]
impl CallPort for SimCloudPort {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let (method, timeout) = (call.method(), context.map_or(Duration::from_secs(60), |c| c.timeout));
        let context = context.cloned();
        if let Some(context) = context.as_ref().filter(|_| is_deed(&call)) {
            let what = format!("{method} {}", call.object());
            self.observer.see(&Event::Asked { replica: self.me.process, epoch: context.epoch, what: &what });
        }
        let asked = self.net.call(self.me, CLOUD, move |services| {
            let Services::Outside(outside) = services else { return None };
            let (context, call) = (context.clone(), call.clone());
            Some(async move { outside.cloud.call(context.as_ref(), call).await })
        });
        let no_answer = || CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time");
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(no_answer()),
        }
    }
}

/// A replica's way to agents.
pub struct SimAgents {
    /// Who sees what is asked for.
    pub observer: Observer,
    /// Over this network.
    pub net: Net,
    /// From here.
    pub me: Place,
}

/// How long one attempt to reach an agent may take before the next one: agents know a repeated request again.
const ATTEMPT: Duration = Duration::from_secs(3);

#[async_trait]
impl Agents for SimAgents {
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError> {
        let deadline = Instant::now() + request.timeout;
        if !matches!(request.method, Method::Ping | Method::GetState { .. } | Method::ListDisk) {
            let (what, epoch) = (format!("{} at {agent}", request.method.name()), request.epoch);
            self.observer.see(&Event::Asked { replica: self.me.process, epoch, what: &what });
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AgentError::Unreachable { agent: agent.clone() });
            }
            let (to, mut asked) = (agent.clone(), request.clone());
            asked.timeout = left.min(ATTEMPT);
            let attempt = self.net.call(self.me, OUTSIDE, move |services| {
                let Services::Outside(outside) = services else { return None };
                let (to, asked) = (to.clone(), asked.clone());
                Some(async move { outside.agents.call(&to, asked).await })
            });
            match tokio::time::timeout(left.min(ATTEMPT * 2), attempt).await {
                // It was reached and goes on; or it was not there yet.
                Ok(Ok(Err(AgentError::TimedOut { .. } | AgentError::Unreachable { .. })))
                    if left > ATTEMPT => {}
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        let (to, request) = (agent.clone(), request.clone());
        let attempt = self.net.call(self.me, OUTSIDE, move |services| {
            let Services::Outside(outside) = services else { return None };
            let (to, request) = (to.clone(), request.clone());
            Some(async move { outside.agents.cancel(&to, &request, epoch).await })
        });
        match tokio::time::timeout(ATTEMPT, attempt).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AgentError::Unreachable { agent: agent.clone() }),
        }
    }
}
