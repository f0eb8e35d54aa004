//! Remembered answers: a request that comes again gets the first answer again, also from the next leader.
//!
//! No clock decides how long: one replica whose clock is a day ahead must not make the others forget. Answers stand in a
//! ring by the place of their entry in the log, and each is forgotten when the log has gone around.

use model::*;

use super::tx::Tx;
use crate::command::Outcome;
use crate::tables::*;

/// Places in the ring: an answer is remembered for at least so many further entries, of whoever. At a thousand entries a
/// second, more than a large deploy makes, that is two minutes; clients give up after half of one.
pub(super) const RING: u64 = 1 << 17;

/// Returns the answer that the request got before.
pub(super) fn find(tx: &Tx<'_>, id: &RequestId) -> Option<Outcome> {
    tx.get(&ANSWERS, id)
}

/// Remembers an answer, in the place of one that is old enough.
pub(super) fn remember(tx: &mut Tx<'_>, id: &RequestId, outcome: &Outcome) {
    let place = tx.revision.0 % RING;
    if let Some(old) = tx.get(&ANSWERED, &place) {
        tx.delete(&ANSWERS, &old);
    }
    tx.put(&ANSWERS, id, outcome);
    tx.put(&ANSWERED, &place, id);
}
