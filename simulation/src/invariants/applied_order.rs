//! All replicas apply the same entries in the same order, and come to the same answers; also those that apply one again.

use std::collections::BTreeMap;

use super::log_matching::bytes_of::digest;
use super::{Event, Invariant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Applied {
    term: u64,
    entry: u64,
    answer: u64,
}

#[derive(Default)]
pub struct AppliedOrder(BTreeMap<u64, (u64, Applied)>);

impl Invariant for AppliedOrder {
    fn name(&self) -> &'static str {
        "applied order"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Applied { replica, index, term, entry, answer } = event else { return Ok(()) };
        let now = Applied { term: *term, entry: digest(Some(entry)), answer: digest(Some(answer)) };
        let (first, known) = *self.0.entry(*index).or_insert((*replica, now));
        match known == now {
            true => Ok(()),
            false => Err(format!("at {index} replica {first} applied {known:?}, replica {replica} {now:?}")),
        }
    }
}
