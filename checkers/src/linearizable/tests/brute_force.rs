//! The search beside one that simply tries every order of every choice of the unknown operations.

use proptest::prelude::*;

use crate::history::{End, Event, History, Operation, What as Said};
use crate::linearizable::register::{Answer, Call, Value, What};
use crate::linearizable::{Limits, check, problem};

/// Returns whether an order exists, by trying all.
fn has_order(operations: &[Operation<Call>]) -> bool {
    let left: Vec<&Operation<Call>> = operations.iter().filter(|o| o.end != End::Failed).collect();
    extend(&left, None)
}

fn extend(left: &[&Operation<Call>], state: Value) -> bool {
    if left.iter().all(|o| o.end == End::Unknown) {
        return true;
    }
    let ends = |o: &&Operation<Call>| match o.end {
        End::Ok { event, .. } => event,
        _ => usize::MAX,
    };
    let first_end = left.iter().map(ends).min().unwrap_or(usize::MAX);
    (0..left.len()).filter(|next| left[*next].begun < first_end).any(|next| {
        let rest: Vec<_> = left.iter().enumerate().filter(|(n, _)| *n != next).map(|(_, o)| *o).collect();
        match after(left[next], state) {
            Some(state) => extend(&rest, state),
            // One that may never have happened, which left out changes nothing.
            None => left[next].end == End::Unknown && extend(&rest, state),
        }
    })
}

/// Returns the state after an operation, or none if it can't be next.
fn after(operation: &Operation<Call>, state: Value) -> Option<Value> {
    let answer = match operation.end {
        End::Ok { answer, .. } => Some(answer),
        _ => None,
    };
    match (operation.call.what, answer) {
        (What::Read, Some(Answer::Read(value))) => (value == state).then_some(state),
        (What::Read, _) => Some(state),
        (What::Write(value), _) => Some(Some(value)),
        (What::CompareAndSet { expected, .. }, Some(Answer::Mismatch)) => {
            (expected != state).then_some(state)
        }
        (What::CompareAndSet { expected, new }, _) => (expected == state).then_some(Some(new)),
    }
}

/// A process's step: what it asks if it is idle, and how its operation ends if it is not.
type Step = (u64, u8, u8, u8, u8);

fn build(steps: &[Step]) -> History<Call> {
    const PROCESSES: u64 = 4;
    let mut asked: [Option<What>; PROCESSES as usize] = [None; 4];
    let mut number: [u64; PROCESSES as usize] = [0, 1, 2, 3];
    let mut events: Vec<Event<Call>> = Vec::new();
    for (at_us, (who, kind, a, b, end)) in steps.iter().enumerate() {
        let who = (*who % PROCESSES) as usize;
        let value = |n: u8| (n > 0).then_some(u64::from(n));
        let what = match asked[who].take() {
            None => {
                let what = match kind % 4 {
                    0 => What::Write(u64::from(*a) + 1),
                    1 => What::CompareAndSet { expected: value(*a), new: u64::from(*b) + 1 },
                    _ => What::Read,
                };
                asked[who] = Some(what);
                Said::Invoke(Call { key: "k".into(), what })
            }
            Some(_) if *end == 0 => Said::Unknown(String::new()),
            Some(_) if *end == 1 => Said::Fail(String::new()),
            Some(What::Read) => Said::Ok(Answer::Read(value(*a))),
            Some(What::Write(_)) => Said::Ok(Answer::Written),
            Some(What::CompareAndSet { .. }) if end % 2 == 0 => Said::Ok(Answer::Mismatch),
            Some(What::CompareAndSet { .. }) => Said::Ok(Answer::Swapped),
        };
        let is_retired = matches!(what, Said::Unknown(_));
        events.push(Event { process: number[who], at_us: at_us as u64, what });
        if is_retired {
            number[who] += PROCESSES;
        }
    }
    History::new(events).unwrap()
}

/// Up to three values and up to sixteen events: most histories have no order, many only just.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..4_u64, 0..4_u8, 0..4_u8, 0..3_u8, 0..8_u8), 0..17)
}

/// Answers as a true register gives them, at a moment within each operation; then one of them changed, or none.
fn truthful(steps: &[Step], lie: Option<usize>) -> History<Call> {
    let events = build(steps).events().to_vec();
    let mut state: Value = None;
    let mut asked: std::collections::BTreeMap<u64, (What, Option<Answer>)> =
        std::collections::BTreeMap::new();
    let mut told = Vec::new();
    for (number, mut event) in events.into_iter().enumerate() {
        let early = number % 2 == 0;
        match &event.what {
            Said::Invoke(call) => {
                let answer = early.then(|| perform(&mut state, call.what));
                asked.insert(event.process, (call.what, answer));
            }
            Said::Ok(_) | Said::Fail(_) => {
                let (what, answer) = asked[&event.process];
                let answer = answer.unwrap_or_else(|| perform(&mut state, what));
                event.what = Said::Ok(match answer {
                    Answer::Read(_) if lie == Some(number) => Answer::Read(Some(2)),
                    Answer::Swapped if lie == Some(number) => Answer::Mismatch,
                    answer => answer,
                });
            }
            Said::Unknown(_) => {}
        }
        told.push(event);
    }
    History::new(told).unwrap()
}

fn perform(state: &mut Value, what: What) -> Answer {
    match what {
        What::Read => Answer::Read(*state),
        What::Write(value) => {
            *state = Some(value);
            Answer::Written
        }
        What::CompareAndSet { expected, new } if *state == expected => {
            *state = Some(new);
            Answer::Swapped
        }
        What::CompareAndSet { .. } => Answer::Mismatch,
    }
}

fn compare(history: &History<Call>) -> Result<bool, TestCaseError> {
    let found = check(history, Limits::default());
    let operations = history.operations();
    prop_assert!(found.undecided.is_empty());
    prop_assert_eq!(found.holds(), has_order(&operations), "{:#?}", history.events());
    for violation in &found.violations {
        // The prefix that is named has no order, and the one before it has.
        let cut = |end: usize| {
            let begun = operations.iter().filter(|o| o.begun < end).cloned();
            let at_that_time = begun.map(|mut o| {
                if matches!(o.end, End::Ok { event, .. } if event >= end) {
                    o.end = End::Unknown;
                }
                o
            });
            at_that_time.collect::<Vec<_>>()
        };
        prop_assert!(!has_order(&cut(violation.prefix_end + 1)));
        prop_assert!(has_order(&cut(violation.prefix_end)));
        prop_assert!(problem::ends(&operations).iter().any(|(event, _)| *event == violation.prefix_end));
    }
    Ok(found.holds())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_trying_every_order(steps in steps()) {
        compare(&build(&steps))?;
    }

    #[test]
    fn a_true_register_is_never_accused_and_a_lie_judged_as_by_trying(
        steps in steps(),
        lie in prop::option::of(0..16_usize),
    ) {
        let holds = compare(&truthful(&steps, lie))?;
        prop_assert!(holds || lie.is_some());
    }
}
