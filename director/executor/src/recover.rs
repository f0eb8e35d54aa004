//! What to do with a step, given its journal. Pure: the part of a take-over that must never be wrong.

use known_bugs::Bug;
use model::Epoch;
use model::step::{Action, Recovery, StepOutcome};
use state::records::StepState;

/// How to go about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has ended; go on to the next one.
    Ended,
    /// It ended badly: the unit is over.
    Failed,
    /// Recording it is doing it.
    Record,
    /// Do it.
    Run {
        /// The attempt to record.
        attempt: u32,
    },
    /// An earlier leader began this attempt and nobody knows how it ended: do it again under the same number, so that
    /// whoever was asked then recognises the request.
    Rerun {
        /// The attempt.
        attempt: u32,
    },
    /// As `Rerun`, but ask the world first.
    Probe {
        /// The attempt.
        attempt: u32,
    },
    /// Neither is safe.
    Stop,
}

/// Decides how to go about a step under `epoch`.
pub fn decide(action: &Action, journal: &StepState, epoch: Epoch) -> Decision {
    match &journal.outcome {
        Some(StepOutcome::Failed { .. }) => return Decision::Failed,
        Some(_) => return Decision::Ended,
        None => {}
    }
    if action.is_record_only() {
        return Decision::Record;
    }
    let attempt = journal.attempts;
    if !journal.is_open() {
        // Never begun, or the last attempt has ended and another one was due.
        return Decision::Run { attempt: attempt + 1 };
    }
    // The same epoch never asks twice: its runner holds the step until it has recorded the end.
    debug_assert!(journal.epoch <= epoch, "a journal from the future");
    match action.recovery() {
        Recovery::Rerun => Decision::Rerun { attempt },
        // `Run` does not look.
        Recovery::Probe if known_bugs::is(Bug::CreateVmBlindly) => Decision::Run { attempt },
        Recovery::Probe => Decision::Probe { attempt },
        Recovery::Stop => Decision::Stop,
    }
}

#[cfg(test)]
mod tests {
    use model::step::VmRole;
    use model::task::TaskError;
    use model::*;

    use super::*;

    fn create_vm() -> Action {
        Action::CreateVm { instance: InstanceId::new("i"), agent: AgentId::new("a"), role: VmRole::Current }
    }

    fn mount() -> Action {
        Action::MountDisk { instance: InstanceId::new("i"), agent: AgentId::new("a"), disk: DiskId::new("d") }
    }

    fn journal(attempts: u32, outcome: Option<StepOutcome>) -> StepState {
        StepState { attempts, epoch: Epoch(1), outcome, ..StepState::default() }
    }

    #[test]
    fn every_case() {
        let failed = StepOutcome::failed(TaskError::plain("no"));
        let table = [
            (create_vm(), journal(0, None), Decision::Run { attempt: 1 }),
            (create_vm(), journal(1, None), Decision::Probe { attempt: 1 }),
            (
                create_vm(),
                StepState { retrying: Some("no room".into()), ..journal(1, None) },
                Decision::Run { attempt: 2 },
            ),
            (create_vm(), journal(1, Some(StepOutcome::Done)), Decision::Ended),
            (create_vm(), journal(1, Some(failed)), Decision::Failed),
            (mount(), journal(2, None), Decision::Rerun { attempt: 2 }),
            (Action::SaveDeployment, journal(0, None), Decision::Record),
            (Action::SaveDeployment, journal(0, Some(StepOutcome::Done)), Decision::Ended),
        ];
        for (action, journal, expected) in table {
            assert_eq!(decide(&action, &journal, Epoch(2)), expected, "{} {journal:?}", action.name());
        }
    }
}
