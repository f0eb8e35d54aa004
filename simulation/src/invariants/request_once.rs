//! A request id has one outcome, however often it is committed.

use std::collections::BTreeMap;

use model::RequestId;
use state::command::Entry;

use super::{Event, Invariant};

#[derive(Default)]
pub struct RequestOnce {
    outcomes: BTreeMap<RequestId, (u64, Vec<u8>)>,
}

impl Invariant for RequestOnce {
    fn name(&self) -> &'static str {
        "one outcome per request"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Applied { index, entry, answer, .. } = event else { return Ok(()) };
        let Some(id) = Entry::decode(entry).ok().and_then(|entry| entry.request_id) else { return Ok(()) };
        let (first, known) = self.outcomes.entry(id.clone()).or_insert_with(|| (*index, answer.to_vec()));
        match known == answer {
            true => Ok(()),
            false => Err(format!("request {id} was answered at {first}, and otherwise at {index}")),
        }
    }
}
