//! The log with everything that can go wrong on the way into it.

use std::sync::{Arc, Mutex};

use model::step::Action;
use model::{Revision, StepNo, TaskId, Timestamp};
use state::State;
use state::command::{Actor, Command, ENTRY_VERSION, Entry, Outcome, Refusal, StepEvent};
use state::log::{BoxFuture, CommandLog, Committed, LogError, MemoryLog, Proposal, View};

use crate::gate::Gate;

/// Something that is done to the state behind the leader's back; it sees the command that waits.
pub type Ambush = Box<dyn FnOnce(&MemoryLog, &Command) + Send>;

/// The log, behind the gate. Every proposal goes by the name `log`; records of steps by what they say as well.
pub struct GatedLog {
    pub memory: MemoryLog,
    pub gate: Arc<Gate>,
    /// Commands that were proposed, by their names in the format.
    pub proposed: Mutex<Vec<String>>,
    /// What is done to the state just before the next proposal of this name.
    pub ambush: Mutex<Option<(String, Ambush)>>,
    /// Proposals of this name are refused, always.
    pub refuse: Mutex<Option<&'static str>>,
    /// The next proposal of this name gets no answer but an error.
    pub hiccup: Mutex<Option<&'static str>>,
    /// The next proposal of this name finds no leader.
    pub no_leader: Mutex<Option<&'static str>>,
    /// Proposals of this name are larger than an entry may be, always.
    pub too_large: Mutex<Option<&'static str>>,
    /// A member of the fleet does not know proposals of this name.
    pub too_old: Mutex<Option<&'static str>>,
    /// Whoever proposes this meets a defect of ours.
    pub defect: Mutex<Option<&'static str>>,
}

/// The longest entry, as the real log has it.
const ENTRY_BYTES_MAX: usize = 2 << 20;

impl GatedLog {
    pub fn new(gate: Arc<Gate>) -> Self {
        Self {
            memory: MemoryLog::new(),
            gate,
            proposed: Mutex::default(),
            ambush: Mutex::default(),
            refuse: Mutex::default(),
            hiccup: Mutex::default(),
            no_leader: Mutex::default(),
            too_large: Mutex::default(),
            too_old: Mutex::default(),
            defect: Mutex::default(),
        }
    }

    fn names(&self, command: &Command) -> Vec<String> {
        let mut names = vec!["log".to_owned()];
        let Command::StepRecords { task, records, .. } = command else {
            let value = serde_json::to_value(command).unwrap();
            names.extend(value.as_object().and_then(|o| o.keys().next()).map(|name| format!("log:{name}")));
            return names;
        };
        for record in records {
            let what = match &record.event {
                StepEvent::Started => "started",
                StepEvent::Finished(_) => "finished",
                StepEvent::Retrying(_) => "retrying",
                StepEvent::Skipped => "skipped",
            };
            let name = action_of(&self.memory, *task, record.step).map(|a| a.name()).unwrap_or("unknown");
            names.push(format!("{what}:{name}"));
        }
        names
    }
}

/// Returns how long the entry with this command is.
fn bytes(command: &Command) -> usize {
    let (request_id, actor, proposed_at) = (None, Actor::default(), Timestamp(0));
    let command = command.clone();
    Entry { version: ENTRY_VERSION, request_id, actor, proposed_at, command }.encode().len()
}

/// Returns what a step of a task does.
pub fn action_of(log: &MemoryLog, task: TaskId, step: StepNo) -> Option<Action> {
    let view = log.view();
    let unit = State::new(&*view).unit(task, step.unit)?;
    unit.unit.steps.get(step.index as usize).map(|s| s.action.clone())
}

impl CommandLog for GatedLog {
    fn propose(&self, proposal: Proposal) -> BoxFuture<'_, Result<Committed, LogError>> {
        Box::pin(async move {
            let names = self.names(&proposal.command);
            let is_one = |wanted: &str| names.iter().any(|name| name == wanted);
            self.proposed.lock().unwrap().extend(names.iter().cloned());
            let ambush = self.ambush.lock().unwrap().take_if(|(name, _)| is_one(name));
            if let Some((_, ambush)) = ambush {
                ambush(&self.memory, &proposal.command);
            }
            let defect = *self.defect.lock().unwrap();
            assert!(!defect.is_some_and(is_one), "the test says so");
            let bytes = bytes(&proposal.command);
            if bytes > ENTRY_BYTES_MAX || self.too_large.lock().unwrap().is_some_and(is_one) {
                return Err(LogError::TooLarge { bytes, max: ENTRY_BYTES_MAX });
            }
            if self.too_old.lock().unwrap().is_some_and(is_one) {
                return Err(LogError::TooOld { level: 1, needed: 2 });
            }
            if self.refuse.lock().unwrap().is_some_and(is_one) {
                let refusal =
                    Refusal::Invalid { what: "the record".into(), reason: "the test says so".into() };
                return Ok(Committed { revision: self.revision(), outcome: Outcome::Refused(refusal) });
            }
            if self.no_leader.lock().unwrap().take_if(|name| is_one(name)).is_some() {
                return Err(LogError::NoLeader("the test says so".into()));
            }
            if self.hiccup.lock().unwrap().take_if(|name| is_one(name)).is_some() {
                return Err(LogError::Other("the test says so".into()));
            }
            self.gate.pass(&names, self.memory.propose(proposal)).await
        })
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, LogError>> {
        self.memory.read_barrier()
    }

    fn view(&self) -> View {
        self.memory.view()
    }

    fn revision(&self) -> Revision {
        self.memory.revision()
    }

    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision> {
        self.memory.changed(after)
    }
}
