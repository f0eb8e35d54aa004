//! A violation in words.

use std::sync::Arc;

use super::Violation;
use super::register::{Answer, Call, Value, What};
use crate::history::{End, Operation};

/// Most other operations that are named.
const OTHERS_MAX: usize = 10;

/// Of those that were over before it began, how many are named: the newest.
const JUST_BEFORE_MAX: usize = 3;

/// Describes why the operation `culprit`, which ends with the event `prefix_end`, has no place.
pub(super) fn violation(
    key: &Arc<str>,
    operations: &[Operation<Call>],
    culprit: usize,
    prefix_end: usize,
) -> Violation {
    let operation = &operations[culprit];
    let in_prefix = |o: &&Operation<Call>| o.begun < prefix_end;
    let ends_inside = |o: &Operation<Call>| end_event(o).is_some_and(|event| event <= prefix_end);
    let events = operations.iter().filter(in_prefix).map(|o| 1 + usize::from(ends_inside(o))).sum();
    let overwriter = needed(operation).and_then(|value| overwriter(operations, operation, value));
    let prefix: Vec<&Operation<Call>> =
        operations.iter().filter(in_prefix).filter(|o| !std::ptr::eq(*o, operation)).collect();
    Violation {
        key: Arc::clone(key),
        prefix_end,
        prefix_events: events,
        operation: operation.clone(),
        reason: reason(operations, operation, overwriter),
        others: others(&prefix, operation, overwriter),
    }
}

/// Returns what a person needs to see the contradiction: who made the value and who overwrote it, what was known just
/// before, who ran beside it, and last those of whom nobody knows whether they happened.
fn others(
    prefix: &[&Operation<Call>],
    operation: &Operation<Call>,
    overwriter: Option<&Operation<Call>>,
) -> Vec<Operation<Call>> {
    let needed = needed(operation);
    let ended_before = |o: &Operation<Call>| end_event(o).is_some_and(|event| event < operation.begun);
    let mut before: Vec<&Operation<Call>> = prefix.iter().copied().filter(|o| ended_before(o)).collect();
    before.sort_by_key(|o| std::cmp::Reverse(end_event(o)));
    before.truncate(JUST_BEFORE_MAX);
    let is_newest = |o: &Operation<Call>| before.iter().any(|newest| std::ptr::eq(*newest, o));
    let rank = |o: &Operation<Call>| {
        let makes_it = needed.is_some_and(|value| value.is_some() && made(o) == value);
        match o.end {
            _ if makes_it || overwriter.is_some_and(|overwriter| std::ptr::eq(overwriter, o)) => Some(0),
            End::Ok { .. } if is_newest(o) => Some(1),
            End::Ok { .. } if changes(o) && !ended_before(o) => Some(2),
            End::Unknown if changes(o) => Some(3),
            _ => None,
        }
    };
    let mut ranked: Vec<_> = prefix.iter().filter_map(|o| Some((rank(o)?, *o))).collect();
    ranked.sort_by_key(|(rank, o)| (*rank, std::cmp::Reverse(o.begun)));
    ranked.truncate(OTHERS_MAX);
    ranked.sort_by_key(|(_, o)| o.begun);
    ranked.into_iter().map(|(_, o)| o.clone()).collect()
}

fn reason(
    operations: &[Operation<Call>],
    operation: &Operation<Call>,
    overwriter: Option<&Operation<Call>>,
) -> String {
    let Some(value) = needed(operation) else {
        return "and nothing that could have come before it leads there".into();
    };
    let makers: Vec<&Operation<Call>> =
        operations.iter().filter(|o| made(o).is_some() && made(o) == value).collect();
    let ended = end_event(operation).unwrap_or(usize::MAX);
    match (value, makers.as_slice(), overwriter) {
        (_, _, Some(overwriter)) => format!(
            "but {} was overwritten before it began, for good: process {} was told so at event {}",
            held(value),
            overwriter.process,
            end_event(overwriter).unwrap_or_default()
        ),
        (Some(value), [], _) => format!("but nobody ever wrote {value}"),
        (Some(value), makers, _) if makers.iter().all(|o| has_failed(o)) => {
            format!("but {value} was written only by an operation that failed and must not have happened")
        }
        (Some(value), makers, _) if makers.iter().all(|o| o.begun > ended) => {
            format!("but {value} was written only after that")
        }
        (value, ..) => format!("but the register cannot hold {} then", word(value)),
    }
}

/// Returns a change that began after `value` was there for certain and was over before `operation` began.
fn overwriter<'a>(
    operations: &'a [Operation<Call>],
    operation: &Operation<Call>,
    value: Value,
) -> Option<&'a Operation<Call>> {
    let mut makers = operations.iter().filter(|o| made(o) == value && !has_failed(o)).peekable();
    let there_from = match (value, makers.peek()) {
        (None, _) => Some(0),
        (Some(_), None) => None,
        // All of them must be over: any later one could have brought the value back.
        (Some(_), Some(_)) => makers.map(end_event).try_fold(0, |latest, event| Some(latest.max(event?))),
    }?;
    let took_effect = |o: &&Operation<Call>| changes(o) && made(o) != value;
    let between = |o: &&Operation<Call>| {
        // The initial nothing is there before the first event.
        (value.is_none() || o.begun > there_from) && end_event(o).is_some_and(|event| event < operation.begun)
    };
    operations.iter().filter(took_effect).filter(between).max_by_key(|o| end_event(o))
}

fn has_failed(operation: &Operation<Call>) -> bool {
    operation.end == End::Failed || matches!(operation.end, End::Ok { answer: Answer::Mismatch, .. })
}

fn changes(operation: &Operation<Call>) -> bool {
    made(operation).is_some() && !has_failed(operation)
}

/// Returns what the register had to hold for the operation's answer.
fn needed(operation: &Operation<Call>) -> Option<Value> {
    match (operation.call.what, &operation.end) {
        (_, End::Ok { answer: Answer::Read(value), .. }) => Some(*value),
        (What::CompareAndSet { expected, .. }, End::Ok { answer: Answer::Swapped, .. }) => Some(expected),
        _ => None,
    }
}

fn made(operation: &Operation<Call>) -> Value {
    match operation.call.what {
        What::Read => None,
        What::Write(value) | What::CompareAndSet { new: value, .. } => Some(value),
    }
}

fn end_event(operation: &Operation<Call>) -> Option<usize> {
    match operation.end {
        End::Ok { event, .. } => Some(event),
        End::Failed | End::Unknown => None,
    }
}

/// Returns an operation as a person would tell it.
pub(super) fn told(operation: &Operation<Call>) -> String {
    let Operation { process, begun, begun_us, .. } = operation;
    let what = match operation.call.what {
        What::Read => "read".to_owned(),
        What::Write(value) => format!("wrote {value}"),
        What::CompareAndSet { expected, new } => format!("set {new} where {} was expected", word(expected)),
    };
    let (until, outcome) = match &operation.end {
        End::Ok { event, at_us, answer } => {
            let outcome = match answer {
                Answer::Read(value) => format!(" {}", word(*value)),
                Answer::Written | Answer::Swapped => String::new(),
                Answer::Mismatch => ", refused: it held something else".into(),
            };
            (format!("{event} at {} s", seconds(*at_us)), outcome)
        }
        End::Failed => ("its failure".into(), ", which failed".into()),
        End::Unknown => ("no known end".into(), ", outcome unknown".into()),
    };
    format!("process {process} {what}{outcome} [events {begun} at {} s to {until}]", seconds(*begun_us))
}

fn word(value: Value) -> String {
    value.map_or("nothing".to_owned(), |value| value.to_string())
}

fn held(value: Value) -> String {
    value.map_or("the empty register".to_owned(), |value| value.to_string())
}

fn seconds(at_us: u64) -> String {
    format!("{}.{:06}", at_us / 1_000_000, at_us % 1_000_000)
}
