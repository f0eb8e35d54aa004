//! At most one replica leads a term.

use std::collections::BTreeMap;

use super::{Event, Invariant};

#[derive(Default)]
pub struct ElectionSafety(BTreeMap<u64, u64>);

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn see(&mut self, event: &Event<'_>) -> Result<(), String> {
        let Event::Leads { replica, term } = event else { return Ok(()) };
        match self.0.insert(*term, *replica) {
            Some(other) if other != *replica => {
                Err(format!("replicas {other} and {replica} both lead term {term}"))
            }
            _ => Ok(()),
        }
    }
}
