//! The outside of a world: the fakes of the seams, each behind the gate, and as large as real ones where it matters (a
//! VM that is created has an agent, one that is deleted has none).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_api::fake::{Behaviour, Deed, FakeAgents};
use agent_api::{AgentError, Agents, Method, Mode, Reply, Request};
use async_trait::async_trait;
use cpi_api::fake::FakeCpi;
use cpi_api::{
    AgentBootstrap, Call, CallContext, CallPort, Cpi, CpiError, CpiErrorKind, CreateVm, Found, Mbus,
};
use executor::clouds::NoCloud;
use executor::lease::{Held, Lease};
use executor::ports::{Cpis, Enrollment, OutputSink, Vault, VaultError};
use model::task::OutputKind;
use model::*;
use serde_json::Value;
use state::State;
use state::command::Command;
use state::log::{CommandLog as _, Proposal};
use state::records::{AgentRecord, BusCertificate, Sealed};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::gate::Gate;
use crate::log::{GatedLog, action_of};

/// Cloud and agents as one thing: what happens to VMs happens to the agents in them.
pub struct Outside {
    pub cloud: FakeCpi,
    pub agents: FakeAgents,
    pub gate: Arc<Gate>,
    pub log: Arc<GatedLog>,
    /// The kind of steps whose calls fail instead of being done.
    pub failing: Mutex<Option<String>>,
    /// What all agents answer to a method instead of the usual.
    answers: Mutex<BTreeMap<&'static str, Behaviour>>,
    /// The cloud can't be searched.
    pub blind: Mutex<bool>,
    /// Agents know what the cloud calls their VM.
    pub name_vms: Mutex<bool>,
    /// The cloud answers no search.
    pub deaf: Mutex<bool>,
    /// The cloud never says whether a VM is there.
    pub mute: Mutex<bool>,
    /// Creations of what was there already; a cloud that is less kind would have made a second one.
    doubles: Mutex<Vec<String>>,
    /// Agents that forget what they were asked, as after a reinstallation: a repeat is done again.
    pub forgetful: Mutex<bool>,
    known: Mutex<BTreeSet<AgentId>>,
    /// Agents that say nothing until their VMs are rebooted.
    silent: Mutex<BTreeSet<AgentId>>,
    /// The key that the agent in each VM has made.
    keys: Mutex<BTreeMap<VmCid, String>>,
    /// What agents of VMs that are gone had done.
    past: Mutex<Vec<(AgentId, Deed)>>,
    /// Every request that arrived, looks included.
    requests: watch::Sender<Vec<&'static str>>,
    /// Where BOSH's agents are told that their bus is; there are none of BOSH's without.
    pub bus: Mutex<Option<String>>,
    /// How long agents might have taken to say how they are.
    patience: Mutex<Vec<(AgentId, Duration)>>,
}

impl Outside {
    pub fn new(gate: Arc<Gate>, log: Arc<GatedLog>) -> Self {
        Self {
            cloud: FakeCpi::new(),
            agents: FakeAgents::new(),
            gate,
            log,
            failing: Mutex::default(),
            answers: Mutex::default(),
            blind: Mutex::new(false),
            name_vms: Mutex::new(false),
            deaf: Mutex::new(false),
            mute: Mutex::new(false),
            doubles: Mutex::default(),
            forgetful: Mutex::new(false),
            known: Mutex::default(),
            silent: Mutex::default(),
            keys: Mutex::default(),
            past: Mutex::default(),
            requests: watch::channel(Vec::new()).0,
            bus: Mutex::default(),
            patience: Mutex::default(),
        }
    }

    /// Returns how long an agent might have taken each time when it was asked how it is.
    pub fn patience_with(&self, agent: &AgentId) -> Vec<Duration> {
        let asked = self.patience.lock().unwrap();
        asked.iter().filter(|(asked, _)| asked == agent).map(|(_, patience)| *patience).collect()
    }

    /// Makes all agents answer this to a method from now on.
    pub fn answer(&self, method: &'static str, value: Value) {
        self.behave(method, Behaviour::Give(value));
    }

    /// Makes all agents behave like this when they are asked for a method, or for a script of this name, from now on.
    pub fn behave(&self, method: &'static str, behaviour: Behaviour) {
        self.answers.lock().unwrap().insert(method, behaviour);
        self.known.lock().unwrap().iter().for_each(|agent| self.teach(agent));
    }

    /// Makes all agents behave as usual again.
    pub fn behave_as_usual(&self) {
        self.answers.lock().unwrap().clear();
        self.known.lock().unwrap().iter().for_each(|agent| self.teach(agent));
    }

    fn teach(&self, agent: &AgentId) {
        let answers = self.answers.lock().unwrap().clone();
        self.agents.decide(agent, Box::new(move |method| answers.get(told(method)).cloned()));
    }

    /// Lets all agents end what hangs.
    pub fn release(&self) {
        self.known.lock().unwrap().iter().for_each(|agent| self.agents.release(agent));
    }

    fn note_doubles(&self, call: &Call) {
        let cloud = self.cloud.cloud();
        let is_there = match call {
            Call::CreateVm(request) => cloud.vms.values().any(|vm| vm.request.agent_id == request.agent_id),
            Call::CreateDisk(request) => {
                cloud.disks.values().any(|disk| disk.request.disk_id == request.disk_id)
            }
            Call::SnapshotDisk(request) => {
                cloud.snapshots.values().any(|taken| taken.snapshot_id == request.snapshot_id)
            }
            _ => false,
        };
        if is_there {
            self.doubles.lock().unwrap().push(format!("{} {}", call.method(), call.object()));
        }
    }

    /// A device that is in use can't be taken away: real clouds wait for it, for an hour.
    fn refuse_while_mounted(&self, call: &Call) -> Result<(), CpiError> {
        let Call::DetachDisk(vm, disk) = call else { return Ok(()) };
        let agent = self.cloud.cloud().vms.get(vm).map(|vm| vm.request.agent_id.clone());
        match agent.is_some_and(|agent| self.agents.mounted(&agent).iter().any(|cid| cid == disk.as_str())) {
            true => {
                Err(CpiError::new(CpiErrorKind::Other, call.method(), format!("disk `{disk}` is mounted")))
            }
            false => Ok(()),
        }
    }

    /// Returns what was created although it was there already.
    pub fn doubles(&self) -> Vec<String> {
        self.doubles.lock().unwrap().clone()
    }

    /// Gives every VM its agent, and none to VMs that are gone or whose agent may not enroll.
    pub fn settle(&self) {
        let vms = self.cloud.cloud().vms;
        self.keys.lock().unwrap().retain(|cid, _| vms.contains_key(cid));
        let enrolled = vms.iter().filter(|(cid, vm)| self.enroll(cid, &vm.request));
        let living: BTreeSet<AgentId> = enrolled.map(|(_, vm)| vm.request.agent_id.clone()).collect();
        let mut known = self.known.lock().unwrap();
        living.difference(&known).for_each(|agent| self.teach(agent));
        for gone in known.difference(&living) {
            let deeds = self.agents.deeds(gone);
            self.past.lock().unwrap().extend(deeds.into_iter().map(|deed| (gone.clone(), deed)));
            self.agents.remove(gone);
        }
        *known = living;
    }

    /// Has the agent of a VM show its token and the key that this VM made; returns whether it is taken for its agent id's.
    pub fn enroll(&self, cid: &VmCid, request: &CreateVm) -> bool {
        let token_generation = request.bootstrap.token.parse().unwrap();
        let agent = request.agent_id.clone();
        let mut keys = self.keys.lock().unwrap();
        let key_digest = keys.entry(cid.clone()).or_insert_with(|| Uuid::new_v4().to_string()).clone();
        let enroll = Command::AgentEnroll { agent, key_digest, token_generation };
        self.log.memory.apply(Proposal::own(enroll)).outcome.accepted().is_ok()
    }

    /// Makes an agent say nothing from now on, until its VM is rebooted.
    pub fn hush(&self, agent: &AgentId) {
        self.silent.lock().unwrap().insert(agent.clone());
    }

    /// Lets an agent speak again.
    pub fn wake(&self, agent: &AgentId) {
        self.silent.lock().unwrap().remove(agent);
    }

    /// Returns everything that agents ever did.
    pub fn deeds(&self) -> Vec<(AgentId, Deed)> {
        let mut all = self.past.lock().unwrap().clone();
        for agent in self.known.lock().unwrap().iter() {
            all.extend(self.agents.deeds(agent).into_iter().map(|deed| (agent.clone(), deed)));
        }
        all
    }

    /// Returns how often agents did `method`.
    pub fn done(&self, method: &str) -> usize {
        self.deeds().iter().filter(|(_, deed)| deed.method.name() == method).count()
    }

    /// Returns the names of all requests so far, looks included; scripts by their own names.
    pub fn requests(&self) -> Vec<&'static str> {
        self.requests.borrow().clone()
    }

    /// Lets the caller wait for requests.
    pub fn watch_requests(&self) -> watch::Receiver<Vec<&'static str>> {
        self.requests.subscribe()
    }

    /// Returns how many different VMs were ever asked for.
    pub fn vms_ever(&self) -> usize {
        self.distinct("create_vm")
    }

    /// Returns how many different disks were ever asked for.
    pub fn disks_ever(&self) -> usize {
        self.distinct("create_disk")
    }

    fn distinct(&self, method: &str) -> usize {
        let calls = self.cloud.calls();
        let objects = calls.iter().filter(|c| c.call.method() == method).map(|c| c.call.object().to_owned());
        objects.collect::<BTreeSet<String>>().len()
    }

    fn fails(&self, request: &RequestId) -> bool {
        let Some(failing) = self.failing.lock().unwrap().clone() else { return false };
        let Some((task, step)) = place(request) else { return false };
        let action = action_of(&self.log.memory, task, step);
        action.is_some_and(|a| a.name() == failing)
    }
}

/// Returns a method's name, for scripts the script's.
fn told(method: &Method) -> &'static str {
    match method {
        Method::RunScript { script, .. } => script.file_name(),
        other => other.name(),
    }
}

/// Reads task and step out of a request id (`t7-3.2-1-create-vm`).
fn place(request: &RequestId) -> Option<(TaskId, StepNo)> {
    let mut parts = request.as_str().split('-');
    let task = parts.next()?.strip_prefix('t')?.parse().ok()?;
    let (unit, index) = parts.next()?.split_once('.')?;
    Some((TaskId(task), StepNo { unit: UnitNo(unit.parse().ok()?), index: index.parse().ok()? }))
}

#[async_trait]
impl CallPort for Outside {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        if context.is_some_and(|c| self.fails(&c.request_id)) {
            return Err(CpiError::new(CpiErrorKind::Other, method, "injected failure"));
        }
        let names = ["cpi".to_owned(), format!("cpi:{method}")];
        self.gate
            .pass(&names, async {
                self.note_doubles(&call);
                self.refuse_while_mounted(&call)?;
                let is_mute = *self.mute.lock().unwrap();
                if is_mute && matches!(call, Call::HasVm(_)) {
                    return std::future::pending().await;
                }
                let searches = matches!(
                    call,
                    Call::FindVm(_) | Call::FindDisk(_) | Call::FindSnapshot(_) | Call::FindNetwork(_)
                );
                if searches && *self.deaf.lock().unwrap() {
                    return Err(CpiError::new(CpiErrorKind::Other, method, "socket restarted"));
                }
                if searches && *self.blind.lock().unwrap() {
                    return Ok(serde_json::to_value(Found::<VmCid>::CannotTell).unwrap());
                }
                if let Call::RebootVm(cid) = &call
                    && let Some(vm) = self.cloud.cloud().vms.get(cid)
                {
                    self.silent.lock().unwrap().remove(&vm.request.agent_id);
                }
                let answer = self.cloud.call(context, call).await;
                self.settle();
                answer
            })
            .await
    }
}

#[async_trait]
impl Agents for Outside {
    async fn call(&self, agent: &AgentId, mut request: Request) -> Result<Reply, AgentError> {
        let method = request.method.name();
        self.requests.send_modify(|requests| requests.push(told(&request.method)));
        if matches!(request.method, Method::GetState { .. }) {
            self.patience.lock().unwrap().push((agent.clone(), request.timeout));
        }
        if !self.known.lock().unwrap().contains(agent) || self.silent.lock().unwrap().contains(agent) {
            return Err(AgentError::Unreachable { agent: agent.clone() });
        }
        if self.fails(&request.id) {
            return Err(AgentError::Failed { method, message: "injected failure".into() });
        }
        let once_only = matches!(request.method, Method::RunErrand { .. }) || request.mode == Mode::Attach;
        if *self.forgetful.lock().unwrap() && !once_only {
            request.id = RequestId::new(format!("{}-again-{}", request.id, request.epoch));
        }
        let names = ["agent".to_owned(), format!("agent:{method}")];
        let asks_state = matches!(request.method, Method::GetState { .. });
        let mut reply = self.gate.pass(&names, self.agents.call(agent, request)).await?;
        if asks_state && *self.name_vms.lock().unwrap() {
            let vms = self.cloud.cloud().vms;
            let own = vms.iter().find(|(_, vm)| vm.request.agent_id == *agent);
            reply.0["vm"] = serde_json::json!({ "name": own.map(|(cid, _)| cid) });
        }
        Ok(reply)
    }

    async fn cancel(&self, agent: &AgentId, request: &RequestId, epoch: Epoch) -> Result<bool, AgentError> {
        self.gate.pass(&["agent:cancel".to_owned()], self.agents.cancel(agent, request, epoch)).await
    }
}

/// One cloud under the empty name.
pub struct OneCloud(pub Arc<Outside>);

impl Cpis for OneCloud {
    fn get(&self, name: &CpiName) -> Result<Arc<dyn Cpi>, NoCloud> {
        let cloud = name.as_str().is_empty().then(|| self.0.clone() as Arc<dyn Cpi>);
        cloud.ok_or_else(|| NoCloud::Unknown(name.clone()))
    }

    fn names(&self) -> Vec<CpiName> {
        vec![CpiName::default()]
    }
}

/// A lease that the test gives and takes. It is always about to end, so that its end is noticed at once.
#[derive(Default)]
pub struct TestLease {
    epoch: Mutex<Option<Epoch>>,
    /// After so many looks, one finds that it has run out; the next one finds it renewed.
    lapse: Mutex<Option<u32>>,
}

impl TestLease {
    pub fn give(&self, epoch: Epoch) {
        *self.epoch.lock().unwrap() = Some(epoch);
    }

    pub fn take(&self) {
        *self.epoch.lock().unwrap() = None;
    }

    pub fn lapse_after(&self, looks: u32) {
        *self.lapse.lock().unwrap() = Some(looks);
    }

    pub fn has_lapsed(&self) -> bool {
        self.lapse.lock().unwrap().is_none()
    }
}

impl Lease for TestLease {
    fn held(&self) -> Option<Held> {
        let mut lapse = self.lapse.lock().unwrap();
        if *lapse == Some(0) {
            *lapse = None;
            return None;
        }
        *lapse = lapse.map(|looks| looks - 1);
        let until = || Instant::now() + Duration::from_millis(20);
        self.epoch.lock().unwrap().map(|epoch| Held { epoch, until: until() })
    }
}

/// A vault whose ciphertext is the text backwards: enough to see that nothing is stored as it is.
pub struct BackwardsVault;

impl Vault for BackwardsVault {
    fn seal(&self, name: &str, value: &Value) -> Sealed {
        Sealed(format!("{name}\n{value}").bytes().rev().collect())
    }

    fn open(&self, name: &str, sealed: &Sealed) -> Result<Value, VaultError> {
        let text = String::from_utf8(sealed.0.iter().rev().copied().collect()).unwrap();
        let (sealed_for, value) = text.split_once('\n').unwrap();
        if sealed_for != name {
            return Err(VaultError { name: name.to_owned() });
        }
        Ok(serde_json::from_str(value).unwrap())
    }
}

/// Tokens that say no more than their generation, and certificates that are good for as long as their bus is today's.
pub struct PlainTokens(pub Arc<Outside>);

impl PlainTokens {
    fn record(&self, agent: &AgentId) -> AgentRecord {
        let view = self.0.log.view();
        State::new(&*view).agent(agent).unwrap()
    }
}

impl Enrollment for PlainTokens {
    fn bootstrap(&self, agent: &AgentId) -> AgentBootstrap {
        let token = self.record(agent).token_generation.to_string();
        AgentBootstrap { token, mbus: self.mbus(agent), ..AgentBootstrap::default() }
    }

    fn due(&self, agent: &AgentId) -> Option<BusCertificate> {
        let bus = self.0.bus.lock().unwrap().clone()?;
        let will_do = self.record(agent).certificate.is_some_and(|has| has.bus == bus);
        let serial = Uuid::new_v4().to_string();
        (!will_do).then_some(BusCertificate { serial, until: Timestamp(7), bus })
    }

    fn mbus(&self, agent: &AgentId) -> Option<Mbus> {
        let BusCertificate { serial, bus, .. } = self.record(agent).offered?.certificate;
        let private_key_pem = Uuid::new_v4().to_string();
        Some(Mbus { urls: vec![bus], authorities_pem: "CA".into(), certificate_pem: serial, private_key_pem })
    }
}

/// Output kept in memory.
#[derive(Default)]
pub struct KeptOutput(pub Mutex<Vec<(TaskId, String)>>);

#[async_trait]
impl OutputSink for KeptOutput {
    fn write(&self, task: TaskId, _kind: OutputKind, text: &str) {
        self.0.lock().unwrap().push((task, text.to_owned()));
    }

    async fn flush(&self, _task: TaskId) {}
}
