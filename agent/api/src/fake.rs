//! In-memory agents for tests of callers.
//!
//! [`FakeAgents`] keeps every promise of [`mod@crate::conformance`] and can be told to misbehave: fail, hang, lose an answer,
//! be away, or restart. It remembers what it was asked to do, in order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use model::{AgentId, Epoch, RequestId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::{self, Known, Stale};
use crate::{AgentError, Agents, Fares, JobState, Method, Reply, Request};

/// What an agent does with one request of a method.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Does it and gives this result.
    Give(Value),
    /// Fails with these words.
    Fail(String),
    /// Does not end until it is released, and then gives this result, or until it is cancelled.
    Hang {
        /// The result; `Null` for the method's usual one.
        then: Value,
    },
    /// Does it, but the caller never hears of it; a repeat does.
    LoseAnswer,
    /// Restarts before anything is done.
    Restart,
}

/// A deed that an agent was asked for and began, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// Under which id.
    pub request: RequestId,
    /// By which leader.
    pub epoch: Epoch,
    /// What.
    pub method: Method,
}

#[derive(Clone, Debug, PartialEq)]
enum Ending {
    Value(Value),
    Failed(String),
    Cancelled,
    /// The agent was restarted under it.
    Interrupted,
}

/// Chooses a behaviour by looking at the whole request; `None`: the usual one.
pub type Decide = Box<dyn Fn(&Method) -> Option<Behaviour> + Send + Sync>;

#[derive(Default)]
struct Agent {
    epoch: Epoch,
    away: bool,
    records: HashMap<RequestId, Ending>,
    running: HashMap<RequestId, (Method, Value)>,
    scripts: HashMap<&'static str, VecDeque<Behaviour>>,
    decide: Option<Decide>,
    deeds: Vec<Deed>,
    spec: Value,
    job_state: Option<JobState>,
    hints: BTreeMap<String, Value>,
    mounted: Vec<String>,
    dns_version: Option<u64>,
    dns_health: Option<Fares>,
    /// Disks by name, as the last settings had them.
    named: BTreeMap<String, String>,
}

/// Agents in memory; see the module's header.
pub struct FakeAgents {
    agents: Mutex<HashMap<AgentId, Agent>>,
    changes: watch::Sender<u64>,
}

impl Default for FakeAgents {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a request stands.
enum Standing {
    Ended(Ending),
    Wait,
    /// The agent restarted: its caller's transport would send the request again.
    Again,
    /// Done, but this caller never hears of it.
    Lost,
    Refused(AgentError),
}

impl FakeAgents {
    /// Returns no agents.
    pub fn new() -> Self {
        Self { agents: Mutex::new(HashMap::new()), changes: watch::channel(0).0 }
    }

    /// Adds an agent that is connected.
    pub fn add(&self, agent: &AgentId) {
        self.agents().entry(agent.clone()).or_default();
        self.changed();
    }

    /// Removes an agent, with all it remembers.
    pub fn remove(&self, agent: &AgentId) {
        self.agents().remove(agent);
        self.changed();
    }

    /// Makes an agent's next request of a method behave like this; several are used one after the other.
    pub fn next(&self, agent: &AgentId, method: &'static str, behaviour: Behaviour) {
        self.with(agent, |agent| agent.scripts.entry(method).or_default().push_back(behaviour));
    }

    /// Makes all of an agent's requests of a method behave like this from now on. Replaces [`FakeAgents::decide`].
    pub fn always(&self, agent: &AgentId, method: &'static str, behaviour: Behaviour) {
        self.decide(agent, Box::new(move |asked| (asked.name() == method).then(|| behaviour.clone())));
    }

    /// Makes this choose an agent's behaviours from now on, where [`FakeAgents::next`] has left none.
    pub fn decide(&self, agent: &AgentId, decide: Decide) {
        self.with(agent, |agent| agent.decide = Some(decide));
    }

    /// Lets everything that hangs end well.
    pub fn release(&self, agent: &AgentId) {
        self.with(agent, |agent| {
            for (id, (method, then)) in std::mem::take(&mut agent.running) {
                let usual = agent.act(&method);
                agent.records.insert(id, Ending::Value(if then.is_null() { usual } else { then }));
            }
        });
    }

    /// Takes an agent's connection away. What hangs goes on.
    pub fn disconnect(&self, agent: &AgentId) {
        self.with(agent, |agent| agent.away = true);
    }

    /// Gives the connection back.
    pub fn connect(&self, agent: &AgentId) {
        self.with(agent, |agent| agent.away = false);
    }

    /// Restarts an agent: what was under way is interrupted, what is recorded stays.
    pub fn restart(&self, agent: &AgentId) {
        self.with(agent, Agent::restart);
    }

    /// Makes `get_state` report this until the next `start` or `stop`.
    pub fn set_job_state(&self, agent: &AgentId, state: JobState) {
        self.with(agent, |agent| agent.job_state = Some(state));
    }

    /// Returns what an agent was asked to do and began, in order; requests that only look, or bring DNS records, are not
    /// among them.
    pub fn deeds(&self, agent: &AgentId) -> Vec<Deed> {
        self.agents().get(agent).map(|agent| agent.deeds.clone()).unwrap_or_default()
    }

    /// Returns the version of the DNS records that an agent has.
    pub fn dns_version(&self, agent: &AgentId) -> Option<u64> {
        self.agents().get(agent).and_then(|agent| agent.dns_version)
    }

    /// Returns what an agent was told last of how instances fare.
    pub fn dns_health(&self, agent: &AgentId) -> Option<Fares> {
        self.agents().get(agent).and_then(|agent| agent.dns_health.clone())
    }

    /// Waits until an agent was told of how instances fare what `wanted` looks for.
    pub async fn dns_health_like(&self, agent: &AgentId, wanted: impl Fn(&Fares) -> bool) {
        let mut changes = self.changes.subscribe();
        // The sender is ours.
        let _ = changes.wait_for(|_| self.dns_health(agent).is_some_and(|health| wanted(&health))).await;
    }

    /// Waits until an agent has DNS records of this version or a newer one.
    pub async fn dns_version_from(&self, agent: &AgentId, version: u64) {
        let mut changes = self.changes.subscribe();
        // The sender is ours.
        let has = |agent: &AgentId| self.dns_version(agent).is_some_and(|has| has >= version);
        let _ = changes.wait_for(|_| has(agent)).await;
    }

    /// Returns the cids of the disks that an agent has mounted.
    pub fn mounted(&self, agent: &AgentId) -> Vec<String> {
        self.agents().get(agent).map(|agent| agent.mounted.clone()).unwrap_or_default()
    }

    /// Returns the cids of the disks that jobs of an agent find by name; none of one that is not attached.
    pub fn named_disks(&self, agent: &AgentId) -> BTreeMap<String, Option<String>> {
        let agents = self.agents();
        let Some(agent) = agents.get(agent) else { return BTreeMap::new() };
        let known = |cid: &String| agent.hints.contains_key(cid).then(|| cid.clone());
        agent.named.iter().map(|(name, cid)| (name.clone(), known(cid))).collect()
    }

    fn agents(&self) -> MutexGuard<'_, HashMap<AgentId, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, agent: &AgentId, change: impl FnOnce(&mut Agent) -> T) {
        change(self.agents().entry(agent.clone()).or_default());
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn standing(&self, id: &AgentId, request: &Request) -> Option<Standing> {
        let standing = {
            let mut agents = self.agents();
            let agent = agents.get_mut(id).filter(|agent| !agent.away)?;
            agent.take(id, request)
        };
        if let Method::SyncDns { .. } | Method::SyncDnsHealth { .. } = request.method {
            self.changed();
        }
        Some(standing)
    }
}

/// Waits that nothing ends but a change or the deadline; a fake has no other clock.
async fn changed_before(changes: &mut watch::Receiver<u64>, deadline: Instant) -> bool {
    matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(())))
}

#[async_trait]
impl Agents for FakeAgents {
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError> {
        let (mut changes, deadline) = (self.changes.subscribe(), Instant::now() + request.timeout);
        let method = request.method.name();
        let mut reached = false;
        loop {
            changes.mark_unchanged();
            match self.standing(agent, &request) {
                Some(Standing::Refused(error)) => return Err(error),
                Some(Standing::Ended(Ending::Value(value))) => return Ok(Reply(value)),
                Some(Standing::Ended(Ending::Failed(message))) => {
                    return Err(AgentError::Failed { method, message });
                }
                Some(Standing::Ended(Ending::Cancelled)) => {
                    return Err(AgentError::Cancelled { agent: agent.clone(), method });
                }
                Some(Standing::Ended(Ending::Interrupted)) => {
                    let message = "the agent was restarted while this ran".to_owned();
                    return Err(AgentError::Failed { method, message });
                }
                Some(Standing::Wait) => reached = true,
                Some(Standing::Again) => continue,
                Some(Standing::Lost) => {
                    tokio::time::sleep_until(deadline).await;
                    return Err(AgentError::TimedOut {
                        agent: agent.clone(),
                        method,
                        timeout: request.timeout,
                    });
                }
                None => {}
            }
            if !changed_before(&mut changes, deadline).await {
                return Err(match reached {
                    true => AgentError::TimedOut { agent: agent.clone(), method, timeout: request.timeout },
                    false => AgentError::Unreachable { agent: agent.clone() },
                });
            }
        }
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        let (mut changes, deadline) = (self.changes.subscribe(), Instant::now() + CANCELLED_WITHIN);
        loop {
            changes.mark_unchanged();
            if let Some(found) = self.agents().get_mut(agent).filter(|agent| !agent.away) {
                found.learn(agent, epoch)?;
                let Some((method, _)) = found.running.remove(request) else { return Ok(false) };
                let ending = match method {
                    // An errand says how far it got.
                    Method::RunErrand { .. } => {
                        Ending::Value(json!({ "exit_code": 143, "stdout": "begun\n", "stderr": "" }))
                    }
                    _ => Ending::Cancelled,
                };
                found.records.insert(request.clone(), ending);
                self.changed();
                return Ok(true);
            }
            if !changed_before(&mut changes, deadline).await {
                return Err(AgentError::Unreachable { agent: agent.clone() });
            }
        }
    }
}

/// How long a cancellation waits for an agent that is away.
const CANCELLED_WITHIN: Duration = Duration::from_secs(10);

impl Agent {
    fn learn(&mut self, id: &AgentId, epoch: Epoch) -> Result<(), AgentError> {
        let stale = |Stale { current }| AgentError::StaleEpoch { agent: id.clone(), current };
        self.epoch = admission::admit(self.epoch, epoch).map_err(stale)?;
        Ok(())
    }

    fn take(&mut self, id: &AgentId, request: &Request) -> Standing {
        if let Err(error) = self.learn(id, request.epoch) {
            return Standing::Refused(error);
        }
        let known = match self.records.get(&request.id) {
            _ if self.running.contains_key(&request.id) => Known::Running(()),
            None => Known::Nothing,
            Some(Ending::Interrupted) => Known::Interrupted,
            Some(ending) => Known::Ended(ending.clone()),
        };
        match admission::standing(known, request.mode) {
            admission::Standing::New => self.begin(request),
            admission::Standing::Running(()) => Standing::Wait,
            admission::Standing::Ended(ending) => Standing::Ended(ending),
            admission::Standing::Interrupted => Standing::Ended(Ending::Interrupted),
            admission::Standing::Unknown => Standing::Refused(AgentError::UnknownRequest {
                agent: id.clone(),
                request: request.id.clone(),
            }),
        }
    }

    fn begin(&mut self, request: &Request) -> Standing {
        if let Method::Ping
        | Method::GetState { .. }
        | Method::ListDisk
        | Method::SyncDns { .. }
        | Method::SyncDnsHealth { .. } = request.method
        {
            return match self.behaviour(&request.method) {
                Some(Behaviour::Fail(message)) => Standing::Ended(Ending::Failed(message)),
                Some(Behaviour::Give(value)) => Standing::Ended(Ending::Value(value)),
                Some(Behaviour::Hang { .. }) => Standing::Wait,
                Some(Behaviour::LoseAnswer) => Standing::Lost,
                Some(Behaviour::Restart) => Standing::Again,
                None => {
                    match &request.method {
                        Method::SyncDns { version, .. } => {
                            self.dns_version = self.dns_version.max(Some(*version));
                        }
                        Method::SyncDnsHealth { health } => self.dns_health = Some(health.clone()),
                        _ => {}
                    }
                    Standing::Ended(Ending::Value(self.look(&request.method)))
                }
            };
        }
        let behaviour = self.behaviour(&request.method);
        if behaviour == Some(Behaviour::Restart) {
            self.restart();
            return Standing::Again;
        }
        self.deeds.push(Deed {
            request: request.id.clone(),
            epoch: request.epoch,
            method: request.method.clone(),
        });
        let is_lost = behaviour == Some(Behaviour::LoseAnswer);
        let ending = match behaviour {
            Some(Behaviour::Hang { then }) => {
                self.running.insert(request.id.clone(), (request.method.clone(), then));
                return Standing::Wait;
            }
            Some(Behaviour::Fail(message)) => Ending::Failed(message),
            Some(Behaviour::Give(value)) => {
                self.act(&request.method);
                Ending::Value(value)
            }
            Some(Behaviour::LoseAnswer | Behaviour::Restart) | None => {
                Ending::Value(self.act(&request.method))
            }
        };
        self.records.insert(request.id.clone(), ending.clone());
        if is_lost { Standing::Lost } else { Standing::Ended(ending) }
    }

    fn behaviour(&mut self, method: &Method) -> Option<Behaviour> {
        let next = self.scripts.get_mut(method.name()).and_then(VecDeque::pop_front);
        next.or_else(|| self.decide.as_ref().and_then(|decide| decide(method)))
    }

    fn restart(&mut self) {
        for (id, (method, _)) in std::mem::take(&mut self.running) {
            // Everything but an errand may be done again when it is asked for again.
            if let Method::RunErrand { .. } = method {
                self.records.insert(id, Ending::Interrupted);
            }
        }
    }

    fn look(&self, method: &Method) -> Value {
        match method {
            Method::ListDisk => json!(self.mounted),
            Method::GetState { .. } => {
                let mut state =
                    if self.spec.is_object() { self.spec.clone() } else { json!({ "networks": {} }) };
                state["job_state"] = json!(self.job_state.unwrap_or(JobState::Running));
                state
            }
            Method::SyncDns { .. } | Method::SyncDnsHealth { .. } => json!("synced"),
            _ => json!("pong"),
        }
    }

    /// Does what a method does to an agent and returns its result.
    fn act(&mut self, method: &Method) -> Value {
        match method {
            Method::Prepare { .. } => json!("prepared"),
            Method::Apply { spec } => {
                self.spec = spec.clone();
                json!("applied")
            }
            Method::Start => {
                self.job_state = Some(JobState::Running);
                json!("started")
            }
            Method::Stop | Method::Shutdown => {
                self.job_state = Some(JobState::Stopped);
                json!("stopped")
            }
            Method::Drain { .. } => json!(0),
            Method::UpdateSettings { settings } => {
                let associations = settings["disk_associations"].as_array().into_iter().flatten();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                self.named = associations.map(|one| (text(&one["name"]), text(&one["cid"]))).collect();
                json!("ok")
            }
            Method::UploadBlob { id, .. } => json!(id),
            Method::RunErrand { .. } => json!({ "exit_code": 0, "stdout": "", "stderr": "" }),
            Method::CompilePackage { name, version, .. } => {
                let blob = format!("{:0>64}", hex_of(&format!("{name}/{version}")));
                json!({ "result": { "blobstore_id": blob, "sha1": format!("sha256:{blob}"), "size": 1 } })
            }
            Method::FetchLogs { .. } => json!({ "blobstore_id": "0".repeat(64), "sha1": "0".repeat(40) }),
            Method::SshSetup { .. } => json!({
                "command": "setup", "status": "success", "ip": "10.0.0.1", "host_public_key": "ssh-rsa HOST\n",
            }),
            Method::SshCleanup { .. } => json!({ "command": "cleanup", "status": "success" }),
            Method::AddPersistentDisk { disk, hint } | Method::AddDynamicDisk { disk, hint } => {
                self.hints.insert(disk.to_string(), hint.clone());
                json!({})
            }
            Method::RemovePersistentDisk { disk } | Method::RemoveDynamicDisk { disk } => {
                self.hints.remove(disk.as_str());
                json!({})
            }
            Method::MountDisk { disk } => {
                if !self.mounted.iter().any(|mounted| mounted == disk.as_str()) {
                    self.mounted.push(disk.to_string());
                }
                json!({})
            }
            Method::UnmountDisk { disk } => {
                self.mounted.retain(|mounted| mounted != disk.as_str());
                json!({ "message": format!("Unmounted partition of {disk}") })
            }
            Method::MigrateDisk { from, to } => {
                self.mounted.retain(|mounted| mounted != from.as_str() && mounted != to.as_str());
                self.mounted.insert(0, to.to_string());
                json!({})
            }
            Method::RunScript { .. } => json!({}),
            Method::Ping
            | Method::GetState { .. }
            | Method::ListDisk
            | Method::SyncDns { .. }
            | Method::SyncDnsHealth { .. } => self.look(method),
        }
    }
}

/// Returns the last bytes of a text in hex: enough of a digest for a fake.
fn hex_of(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    hex[hex.len().saturating_sub(64)..].to_owned()
}
