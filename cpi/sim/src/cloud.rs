//! The simulated cloud in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cpi_api::memory::MemoryCloud;
use cpi_api::{Call, CallContext, CallPort, CpiError, CpiErrorKind};
use model::VmCid;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fleet::Agents;
use crate::knobs::{Fate, Knobs};
use crate::record::{Record, Recorder};

/// Longest wait for a caller that never gives up.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What the cloud has seen; for oracles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Calls by method.
    pub calls: BTreeMap<String, u64>,
    /// VMs that exist.
    pub vms: u64,
    /// VMs ever made; a repeat that found its VM made none.
    pub vms_ever: u64,
    /// Disks that exist.
    pub disks: u64,
    /// Agents that were started and not stopped.
    pub agents: u64,
    /// What became of calls, by the name of the chance; those that were simply answered are `answered`.
    #[serde(default)]
    pub fates: BTreeMap<String, u64>,
}

/// The cloud. Clones are the same one.
#[derive(Clone)]
pub struct SimCloud {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    agents: Arc<dyn Agents>,
}

struct State {
    cloud: MemoryCloud,
    knobs: Knobs,
    chance: StdRng,
    calls: BTreeMap<String, u64>,
    fates: BTreeMap<String, u64>,
    vms_ever: u64,
    recorder: Recorder,
    late: Vec<LateDeed>,
}

/// A deed whose caller was told nothing, and which is still to be done. It is done when somebody looks at the cloud next:
/// nobody can tell the difference.
struct LateDeed {
    due: Instant,
    call: Call,
}

/// A VM's change that its agent must follow.
enum Change {
    Appeared(VmCid),
    Rebooted(VmCid),
    Vanished(VmCid),
}

impl SimCloud {
    /// Returns an empty cloud. The same seed and the same order of calls give the same fates.
    pub fn new(seed: u64, knobs: Knobs, agents: Arc<dyn Agents>) -> Self {
        agents.hold(knobs.held_script.as_deref());
        let state = State {
            cloud: MemoryCloud::default(),
            knobs,
            chance: StdRng::seed_from_u64(seed),
            calls: BTreeMap::new(),
            fates: BTreeMap::new(),
            vms_ever: 0,
            recorder: Recorder::new(),
            late: Vec::new(),
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), agents }) }
    }

    /// Sets the knobs for all calls from now on.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.inner.agents.hold(knobs.held_script.as_deref());
        self.state().knobs = knobs;
    }

    /// Returns a copy of the cloud as it is now.
    pub fn snapshot(&self) -> MemoryCloud {
        self.state().cloud.clone()
    }

    /// Returns what it has seen.
    pub fn statistics(&self) -> Statistics {
        let mut state = self.state();
        self.catch_up(&mut state);
        Statistics {
            calls: state.calls.clone(),
            fates: state.fates.clone(),
            vms: state.cloud.vms.len() as u64,
            vms_ever: state.vms_ever,
            disks: state.cloud.disks.len() as u64,
            agents: self.inner.agents.count(),
        }
    }

    /// Returns every call that has arrived, and what is there.
    pub fn record(&self) -> Record {
        let mut state = self.state();
        self.catch_up(&mut state);
        state.recorder.record(&state.cloud)
    }

    /// Ends what runs in a VM, as a crash of its kernel would: the VM is still there, its agent is not. A reboot mends it.
    pub fn crash_vm(&self, vm: &VmCid) {
        self.inner.agents.stop(vm);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with the lock has left values that are whole: each call changes them in one step.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let mut state = self.state();
        self.catch_up(&mut state);
        self.perform_in(&mut state, context, call)
    }

    /// Does what is late and due by now.
    fn catch_up(&self, state: &mut State) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut state.late).into_iter().partition(|deed| deed.due <= now);
        state.late = rest;
        for LateDeed { call, .. } in due {
            // Nobody hears whether it works. No epoch either: clouds know none, and this is about the worst of them.
            let _ = self.perform_in(state, None, call);
        }
    }

    fn perform_in(
        &self,
        state: &mut State,
        context: Option<&CallContext>,
        call: Call,
    ) -> Result<Value, CpiError> {
        let change = match &call {
            Call::CreateVm(_) => None,
            Call::RebootVm(cid) => Some(Change::Rebooted(cid.clone())),
            Call::DeleteVm(cid) => Some(Change::Vanished(cid.clone())),
            _ => None,
        };
        let (is_create, before) = (matches!(call, Call::CreateVm(_)), state.cloud.vms.len());
        let State { cloud, recorder, .. } = state;
        let answer = recorder.perform(cloud, context, call)?;
        let change = if is_create && state.cloud.vms.len() > before {
            state.vms_ever += 1;
            answer["cid"].as_str().map(|cid| Change::Appeared(cid.into()))
        } else {
            change
        };
        // Under the lock, so that an agent's start and end come in the order of the calls; neither waits.
        match change {
            Some(Change::Appeared(cid)) => self.boot(state, cid),
            Some(Change::Rebooted(cid)) => {
                self.inner.agents.stop(&cid);
                self.boot(state, cid);
            }
            Some(Change::Vanished(cid)) => self.inner.agents.remove(&cid),
            None => {}
        }
        Ok(answer)
    }

    fn boot(&self, state: &mut State, cid: VmCid) {
        let Some(vm) = state.cloud.vms.get(&cid) else { return };
        let request = vm.request.clone();
        let (boot, action) =
            (state.knobs.boot.pick(&mut state.chance), state.knobs.action.pick(&mut state.chance));
        self.inner.agents.start(cid, &request, boot, action);
    }
}

#[async_trait]
impl CallPort for SimCloud {
    async fn call(&self, context: Option<&CallContext>, call: Call) -> Result<Value, CpiError> {
        let method = call.method();
        let (fate, latency) = {
            let mut state = self.state();
            *state.calls.entry(method.to_owned()).or_default() += 1;
            let State { knobs, chance, .. } = &mut *state;
            let (fate, latency) = knobs.decide(method, chance);
            *state.fates.entry(fate.name().to_owned()).or_default() += 1;
            (fate, latency)
        };
        let timeout = context.map_or(PATIENCE, |c| c.timeout.min(PATIENCE));
        let is_late = latency > timeout;
        let takes = match fate {
            Fate::Hangs(lasts) => lasts.unwrap_or(timeout),
            _ => latency,
        };
        tokio::time::sleep(takes.min(timeout)).await;
        let no_answer = || CpiError::new(CpiErrorKind::TimedOut, method, "no answer in time");
        let answer = match fate {
            Fate::Fails => Err(failure(method)),
            Fate::Hangs(_) => Err(no_answer()),
            Fate::Late(by) => {
                self.state().late.push(LateDeed { due: Instant::now() + by, call });
                Err(no_answer())
            }
            Fate::Twice => self.perform(context, call.clone()).and_then(|_| self.perform(context, call)),
            // A slow cloud does the deed even when the caller has given up.
            Fate::AnswerLost => self.perform(context, call).and_then(|_| Err(no_answer())),
            Fate::Answered if is_late => self.perform(context, call).and_then(|_| Err(no_answer())),
            Fate::Answered => self.perform(context, call),
        };
        answer.map_err(|error| context.map_or(error.clone(), |c| error.for_request(&c.request_id)))
    }
}

fn failure(method: &'static str) -> CpiError {
    let kind = if method == "create_vm" { CpiErrorKind::VmCreationFailed } else { CpiErrorKind::Other };
    CpiError::new(kind, method, "the simulated cloud is in a bad mood").retryable()
}
