//! Turns a random log into one that gets somewhere: blind guesses at task numbers, epochs and steps would nearly all
//! be refused, and nothing behind the first check would be tested. Every sixth entry stays the guess it was.

use model::plan::Unit;
use model::step::{Action, StepOutcome};
use model::task::TaskState;
use model::*;
use state::State;
use state::command::*;
use state::kv::MemoryKv;

/// Aims every entry at the state that it will meet.
pub fn aim(mut log: Vec<Entry>) -> Vec<Entry> {
    let mut kv = MemoryKv::new();
    for (index, entry) in log.iter_mut().enumerate() {
        if index % 6 > 0 {
            entry.command = aimed(&State::new(&kv), entry.command.clone());
        }
        state::apply(&mut kv, Revision(index as u64 + 1), entry);
    }
    log
}

fn aimed(state: &State<'_>, command: Command) -> Command {
    let epoch = state.epoch();
    let queued = |task| pick(state, task, &[TaskState::Queued]);
    let working = |task| pick(state, task, &[TaskState::Processing, TaskState::Cancelling]);
    match command {
        Command::TaskTake { task, .. } => Command::TaskTake { task: queued(task), epoch },
        Command::PlanCommit { task, draft, parts, mut plan, .. } => {
            let deployment = state.deployment(&"web".into());
            plan.generation = deployment.map_or(plan.generation, |deployment| deployment.generation);
            let mut unplanned = state
                .runnable_tasks()
                .into_iter()
                .filter(|task| task.state == TaskState::Processing && !task.planned);
            let task = unplanned.next_back().map_or(task, |found| found.id);
            Command::PlanCommit { task, epoch, draft, parts, plan }
        }
        Command::StepRecords { task, records, .. } => {
            let mut planned =
                state.runnable_tasks().into_iter().filter(|task| task.planned).map(|task| task.id);
            let task = planned.rfind(|task| !open_units(state, *task).is_empty()).unwrap_or(task);
            Command::StepRecords { task, epoch, records: next_records(state, task, records) }
        }
        Command::TaskFinish { task, end, .. } => Command::TaskFinish { task: working(task), epoch, end },
        Command::PlanDraft { task, draft, part, content, .. } => {
            Command::PlanDraft { task: working(task), epoch, draft, part, content }
        }
        Command::VariableSetOpen { task, deployment, .. } => {
            Command::VariableSetOpen { task: working(task), epoch, deployment }
        }
        Command::VariablesPut { task, values, .. } => {
            let (task, set) = with_set(state, task);
            Command::VariablesPut { task, epoch, set, values }
        }
        Command::VariablesPin { task, pins, .. } => {
            let (task, set) = with_set(state, task);
            Command::VariablesPin { task, epoch, set, pins }
        }
        Command::ReleaseDelete { task, name, version, with_compiled, .. } => {
            Command::ReleaseDelete { task: working(task), epoch, name, version, with_compiled }
        }
        Command::StemcellPut { task, stemcell, .. } => {
            Command::StemcellPut { task: working(task), epoch, stemcell }
        }
        Command::StemcellRetire { task, name, version, .. } => {
            Command::StemcellRetire { task: working(task), epoch, name, version }
        }
        Command::StemcellDelete { task, name, version, cpi, .. } => {
            Command::StemcellDelete { task: working(task), epoch, name, version, cpi }
        }
        Command::LatecomerPut { task, sought, look_for_ms, .. } => {
            Command::LatecomerPut { task: working(task), epoch, sought, look_for_ms }
        }
        Command::LatecomerLooked { sought, found, left_ms, .. } => {
            Command::LatecomerLooked { epoch, sought, found, left_ms }
        }
        Command::AgentAsked { agent, request, from, to, .. } => {
            Command::AgentAsked { epoch, agent, request, from, to }
        }
        Command::DnsNumber { subjects, .. } => Command::DnsNumber { epoch, subjects },
        Command::DnsPut { content, blob, .. } => {
            let version = state.dns_blob().map_or(0, |last| last.version) + 1;
            Command::DnsPut { epoch, version, content, blob }
        }
        Command::OutputSeal { task, kind, segment, .. } => {
            Command::OutputSeal { task: working(task), epoch, kind, segment }
        }
        other => other,
    }
}

/// Returns a working task that has opened a variable set, and the set.
fn with_set(state: &State<'_>, guess: TaskId) -> (TaskId, VariableSetId) {
    let mut working =
        state.runnable_tasks().into_iter().filter_map(|task| state.variable_set_of_task(task.id));
    working.next_back().map_or((guess, VariableSetId(1)), |set| (set.task, set.id))
}

/// Returns one of the tasks in these states, if there is one.
fn pick(state: &State<'_>, guess: TaskId, states: &[TaskState]) -> TaskId {
    let tasks = state.tasks(&state::query::TaskFilter { states: states.to_vec(), ..Default::default() });
    if tasks.is_empty() { guess } else { tasks[guess.0 as usize % tasks.len()].id }
}

/// Moves each record to the step that is next in some unit that has not ended.
fn next_records(state: &State<'_>, task: TaskId, records: Vec<StepRecord>) -> Vec<StepRecord> {
    let open = open_units(state, task);
    if open.is_empty() {
        return records;
    }
    let unit = &open[records.first().map_or(0, |record| record.step.unit.0 as usize) % open.len()];
    let progress = state.unit_progress(task, unit.no);
    let step = StepNo { unit: unit.no, index: progress.next_step };
    let mut journal = state.step_state(task, step);
    let mut aimed = Vec::new();
    for record in records {
        let attempt = match record.event {
            StepEvent::Started => journal.attempts + 1,
            _ => journal.attempts,
        };
        journal.attempts = attempt;
        let event = match record.event {
            StepEvent::Finished(outcome) => {
                StepEvent::Finished(natural(&unit.steps[step.index as usize].action, outcome))
            }
            other => other,
        };
        aimed.push(StepRecord { step, attempt, event });
    }
    aimed
}

fn open_units(state: &State<'_>, task: TaskId) -> Vec<Unit> {
    let units = state.units(task).into_iter().map(|planned| planned.unit);
    units.filter(|unit| !state.unit_progress(task, unit.no).state.is_final()).collect()
}

/// Returns an outcome that goes with the step; failures, passed over or not, and leaks stay what they are.
fn natural(action: &Action, guess: StepOutcome) -> StepOutcome {
    if matches!(
        guess,
        StepOutcome::Failed { .. } | StepOutcome::MayHaveLeaked { .. } | StepOutcome::PassedOver { .. }
    ) {
        return guess;
    }
    match action {
        Action::CreateVm { agent, .. } => super::vm_created(&format!("vm-{agent}")),
        Action::CreateDisk { disk, .. } => super::disk_created(&format!("disk-{disk}")),
        Action::SnapshotDisk { snapshot, .. } => {
            StepOutcome::SnapshotTaken { cid: format!("snap-{snapshot}").into() }
        }
        Action::Apply { .. } => {
            StepOutcome::Applied { configuration_hash: "h".into(), template_hashes: Default::default() }
        }
        Action::BindVm { .. } => StepOutcome::Bound { networks: vec![super::network(Some("10.0.0.7"))] },
        Action::CompilePackage { .. } => {
            StepOutcome::Compiled { blob: "b".into(), digest: "d".into(), size_bytes: 1 }
        }
        _ => StepOutcome::Done,
    }
}
