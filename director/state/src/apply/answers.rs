//! Remembered answers: a request that comes again gets the first answer again, also from the next leader.

use model::*;

use super::tx::Tx;
use crate::command::Outcome;
use crate::rows::{Answered, AnsweredRange};
use crate::tables::*;

/// Answers kept at most. At a thousand writes a second, ten seconds: longer than any client's retries.
const ANSWERS_MAX: u64 = 10_000;

/// Answers older than this are dropped.
const ANSWER_AGE_MAX_MS: i64 = 24 * 60 * 60 * 1000;

/// Answers dropped per entry at most, so that no single entry pays for a quiet night.
const DROPPED_AT_ONCE: u64 = 32;

/// Returns the answer that the request got before.
pub(super) fn find(tx: &Tx<'_>, id: &RequestId) -> Option<Outcome> {
    tx.get(&ANSWERS, id).map(|answered| answered.outcome)
}

/// Remembers an answer and drops old ones.
pub(super) fn remember(tx: &mut Tx<'_>, id: &RequestId, outcome: &Outcome) {
    let (revision, at) = (tx.revision, tx.at);
    tx.put(&ANSWERS, id, &Answered { outcome: outcome.clone(), at });
    tx.put(&ANSWERS_BY_AGE, &revision, id);
    let mut range = tx.get(&ANSWERS_RANGE, &()).unwrap_or(AnsweredRange { oldest: revision, count: 0 });
    range.count += 1;
    for _ in 0..DROPPED_AT_ONCE {
        let Some((revision, id)) = oldest(tx, range) else { break };
        tx.delete(&ANSWERS, &id);
        tx.delete(&ANSWERS_BY_AGE, &revision);
        range = AnsweredRange { oldest: Revision(revision.0.saturating_add(1)), count: range.count - 1 };
    }
    tx.put(&ANSWERS_RANGE, &(), &range);
}

/// Returns the oldest answer, if it is to be dropped.
fn oldest(tx: &Tx<'_>, range: AnsweredRange) -> Option<(Revision, RequestId)> {
    if range.count <= 1 {
        return None;
    }
    // Begins where the last one was dropped: earlier keys are gone, and a store may be slow to skip what is gone.
    let (revision, id) = tx.rows_from(&ANSWERS_BY_AGE, &range.oldest).next()?;
    let expired = || {
        let answered = tx.get(&ANSWERS, &id);
        answered.is_none_or(|answered| answered.at.0 < tx.at.0.saturating_sub(ANSWER_AGE_MAX_MS))
    };
    (range.count > ANSWERS_MAX || expired()).then_some((revision, id))
}
