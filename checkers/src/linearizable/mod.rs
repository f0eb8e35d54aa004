//! Whether one order of the operations, true to real time, explains every answer: linearizability (Herlihy and Wing),
//! for registers, one per key.
//!
//! Linearizability is local, so the history is split by key and each key is judged alone. The search is Wing and Gong's
//! with Lowe's two additions: an operation is put into the order only when another one's end demands it
//! ("just-in-time"), and no configuration (what is in the order, what the register holds) is looked at twice. On top
//! of that, [`search`] leaves out what provably makes no difference.
//!
//! An operation with an unknown outcome may take effect at any moment after it began, or never. One that failed must
//! not have: whoever reads its value reads what nobody wrote.
//!
//! A search may be cut off ([`Limits`]); the key is then undecided, which is never a pass.

mod explain;
mod problem;
pub mod register;
mod search;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::Findings;
use crate::history::{End, History, Operation};
use problem::Problem;
use register::Call;
use search::Outcome;

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most configurations that are looked at for one key.
    pub configurations_max: usize,
}

impl Default for Limits {
    /// A hundred times what the histories of ten clients with their misfortunes need; some 100 MB at the worst.
    fn default() -> Self {
        Self { configurations_max: 500_000 }
    }
}

/// A key whose answers no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The register.
    pub key: Arc<str>,
    /// The number of the event, in the whole history, with which the smallest prefix ends that has no order. What failed
    /// later is known to have failed in it.
    pub prefix_end: usize,
    /// How many events of this key that prefix has.
    pub prefix_events: usize,
    /// The operation that ends there and cannot be put into the order.
    pub operation: Operation<Call>,
    /// Where the value comes from that it saw, and why it can't have.
    pub reason: String,
    /// The others that have to do with it: those that wrote its value, those just before and beside it, and a few of
    /// which nobody knows whether they happened.
    pub others: Vec<Operation<Call>>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, prefix_end, prefix_events, .. } = self;
        write!(f, "register `{key}`: no order explains its first {prefix_events} events ")?;
        writeln!(f, "(up to number {prefix_end} of the history), without the last of them one does:")?;
        write!(f, "{}\n{}", explain::told(&self.operation), self.reason)?;
        for other in &self.others {
            write!(f, "\n| {}", explain::told(other))?;
        }
        Ok(())
    }
}

/// Judges a history of registers that hold nothing in the beginning.
pub fn check(history: &History<Call>, limits: Limits) -> Findings<Violation> {
    let mut findings = Findings::default();
    let mut keys: BTreeMap<Arc<str>, Vec<Operation<Call>>> = BTreeMap::new();
    for operation in history.operations() {
        keys.entry(Arc::clone(&operation.call.key)).or_default().push(operation);
    }
    let ended_well = |o: &&Operation<Call>| matches!(o.end, End::Ok { .. });
    let (mut answered, mut unknown) = (0, 0);
    for (key, operations) in &keys {
        answered += operations.iter().filter(ended_well).count();
        unknown += operations.iter().filter(|o| o.end == End::Unknown).count();
        let whole = Problem::new(operations, usize::MAX);
        match search::run(&whole, limits.configurations_max) {
            Outcome::Explained => {}
            Outcome::Undecided => findings.undecided.push(format!(
                "register `{key}`: no answer after {} configurations of {} operations",
                limits.configurations_max,
                operations.len()
            )),
            Outcome::Unexplained => findings.violations.push(smallest(key, operations, limits)),
        }
    }
    findings.looked_at =
        vec![("registers", keys.len()), ("answered operations", answered), ("unknown outcomes", unknown)];
    findings
}

/// Returns the violation of the smallest prefix without an order. A longer prefix has none either, so halving finds it.
fn smallest(key: &Arc<str>, operations: &[Operation<Call>], limits: Limits) -> Violation {
    let ends = problem::ends(operations);
    let is_unexplained = |ends_kept: usize| {
        let prefix = Problem::new(operations, ends_kept);
        search::run(&prefix, limits.configurations_max) == Outcome::Unexplained
    };
    // No end, no contradiction; all of them: there is one.
    let (mut good, mut bad) = (0, ends.len());
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if is_unexplained(middle) { bad = middle } else { good = middle }
    }
    let (prefix_end, culprit) = ends[bad - 1];
    explain::violation(key, operations, culprit, prefix_end)
}

#[cfg(test)]
mod tests;
