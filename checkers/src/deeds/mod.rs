//! Each thing in a cloud is made once, and everything that lives there is known to somebody.
//!
//! The record has two halves: what the cloud did, call by call, as the cloud itself knows it (the caller may have heard
//! something else, or nothing); and what is there at the end beside what the fleet believes. What is made is made for an
//! [`intent`](Call::intent): a VM for an agent id, a disk for the attempt that names it. What must hold:
//!
//! * Nothing is made for an intent, or for a request, while what was made for it before has not been deleted. Only the cloud
//!   itself may, late, for a call that nobody waits for any more ([`Call::is_late`]): no caller could have known.
//! * What is there at the end is claimed by an instance, kept as an orphan, or on the list of leaks.
//! * What is claimed is there, is claimed once, and is what was made for the claimant.
//! * The record is whole: what is there was made, and what was deleted is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::Findings;

/// A kind of thing that a cloud makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A VM.
    Vm,
    /// A persistent disk.
    Disk,
}

/// A thing in a cloud.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// The cloud's name for it.
    pub id: String,
}

/// A call that the cloud got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it took effect, or was answered if it had none.
    pub at_us: u64,
    /// Its name, for people.
    pub method: String,
    /// The caller's name for it, the same when it is repeated. None if it gave none.
    pub request_id: Option<String>,
    /// For what something was to be made: the VM's agent id, the disk's. None if the cloud is not told.
    pub intent: Option<String>,
    /// Whether the cloud carried it out after its caller was told nothing, and maybe had looked for it in vain.
    pub is_late: bool,
    /// What it did.
    pub effect: Effect,
}

/// What a call did in the cloud, whatever its caller heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This is there now and was not before.
    Made(Thing),
    /// This was there and is not any more.
    Deleted(Thing),
    /// It found what an earlier call had made, changed something, or did nothing.
    None,
}

/// What is there at the end, and what the fleet believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Final {
    /// What the cloud has, with what it was made for, if the cloud knows.
    pub present: BTreeMap<Thing, Option<String>>,
    /// What instances claim.
    pub claims: Vec<Claim>,
    /// What is kept on purpose although no instance has it.
    pub orphans: BTreeSet<Thing>,
    /// The lines of the list of leaks; a thing is on it if a line names its id or what it was made for.
    pub leaks: Vec<String>,
}

/// An instance's belief that a thing is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it claims.
    pub thing: Thing,
    /// Who, for people.
    pub by: String,
    /// What it should have been made for, if the claimant knows.
    pub intent: Option<String>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A thing was made for an intent that already had one.
    Doubled {
        /// For what.
        intent: String,
        /// What it had.
        first: Thing,
        /// What was made beside it.
        second: Thing,
        /// When.
        at_us: u64,
    },
    /// A request made a thing, although it had made one before that was still there.
    RequestRepeated {
        /// Which.
        request_id: String,
        /// What it had made.
        first: Thing,
        /// What it made beside that.
        second: Thing,
        /// When.
        at_us: u64,
    },
    /// A thing is there, and nobody knows of it.
    Leaked {
        /// What.
        thing: Thing,
        /// For what it was made.
        intent: Option<String>,
    },
    /// A claimed thing is not there.
    Missing {
        /// The claim.
        claim: Claim,
    },
    /// A thing is claimed twice.
    ClaimedTwice {
        /// What.
        thing: Thing,
        /// By whom.
        by: [String; 2],
    },
    /// A claimed thing was made for somebody else.
    ClaimedByAnother {
        /// The claim.
        claim: Claim,
        /// For what it was made.
        intent: String,
    },
    /// A thing is there that no call made, or that a call has deleted: the record is not whole, so it proves nothing.
    RecordDisagrees {
        /// What.
        thing: Thing,
        /// What the record says.
        said: &'static str,
    },
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", if self.kind == Kind::Vm { "VM" } else { "disk" }, self.id)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubled { intent, first, second, at_us } => {
                write!(f, "{second} was made for `{intent}` at {at_us} µs, which already had {first}")
            }
            Self::RequestRepeated { request_id, first, second, at_us } => write!(
                f,
                "request `{request_id}` made {second} at {at_us} µs, although it had made {first}, which was still there"
            ),
            Self::Leaked { thing, intent } => {
                write!(
                    f,
                    "{thing}, made for {}, is there, ",
                    intent.as_deref().unwrap_or("nobody knows what")
                )?;
                write!(f, "but no instance claims it and no list names it")
            }
            Self::Missing { claim: Claim { thing, by, .. } } => {
                write!(f, "{by} claims {thing}, which is not there")
            }
            Self::ClaimedTwice { thing, by: [one, other] } => {
                write!(f, "{thing} is claimed by {one} and by {other}")
            }
            Self::ClaimedByAnother { claim: Claim { thing, by, .. }, intent } => {
                write!(f, "{by} claims {thing}, which was made for `{intent}`")
            }
            Self::RecordDisagrees { thing, said } => write!(f, "{thing} {said}: the record is not whole"),
        }
    }
}

/// Judges a cloud's calls, in the order in which they took effect, and what is there at the end.
pub fn check(calls: &[Call], end: &Final) -> Findings<Violation> {
    let (mut violations, ledger) = check_calls(calls);
    violations.extend(check_record(&ledger, end));
    violations.extend(end.present.iter().filter_map(|(thing, intent)| check_known(thing, intent, end)));
    violations.extend(check_claims(end));
    let made = calls.iter().filter(|call| matches!(call.effect, Effect::Made(_))).count();
    let looked_at = vec![
        ("calls", calls.len()),
        ("things made", made),
        ("things there", end.present.len()),
        ("claims", end.claims.len()),
        ("leaks listed", end.leaks.len()),
    ];
    Findings { looked_at, violations, undecided: Vec::new() }
}

/// What the calls leave there.
#[derive(Default)]
struct Ledger {
    present: BTreeSet<Thing>,
    deleted: BTreeSet<Thing>,
}

impl Ledger {
    fn first_present<'a>(&self, things: &[&'a Thing]) -> Option<&'a Thing> {
        things.iter().find(|thing| self.present.contains(**thing)).copied()
    }
}

fn check_calls(calls: &[Call]) -> (Vec<Violation>, Ledger) {
    let (mut violations, mut ledger) = (Vec::new(), Ledger::default());
    let mut of_intent: BTreeMap<(Kind, &str), Vec<&Thing>> = BTreeMap::new();
    let mut of_request: BTreeMap<&str, Vec<&Thing>> = BTreeMap::new();
    for call in calls {
        let second = match &call.effect {
            Effect::Made(thing) => thing,
            Effect::Deleted(thing) => {
                ledger.present.remove(thing);
                ledger.deleted.insert(thing.clone());
                continue;
            }
            Effect::None => continue,
        };
        if let Some(intent) = &call.intent {
            let before = of_intent.entry((second.kind, intent)).or_default();
            if let Some(first) = ledger.first_present(before).filter(|_| !call.is_late) {
                let (first, second) = (first.clone(), second.clone());
                violations.push(Violation::Doubled {
                    intent: intent.clone(),
                    first,
                    second,
                    at_us: call.at_us,
                });
            }
            before.push(second);
        }
        if let Some(request_id) = &call.request_id {
            let before = of_request.entry(request_id).or_default();
            if let Some(first) = ledger.first_present(before) {
                let (first, second, request_id) = (first.clone(), second.clone(), request_id.clone());
                violations.push(Violation::RequestRepeated { request_id, first, second, at_us: call.at_us });
            }
            before.push(second);
        }
        ledger.present.insert(second.clone());
        ledger.deleted.remove(second);
    }
    (violations, ledger)
}

fn check_record(ledger: &Ledger, end: &Final) -> Vec<Violation> {
    let unmade = end.present.keys().filter(|thing| !ledger.present.contains(thing)).map(|thing| {
        let said = match ledger.deleted.contains(thing) {
            true => "is there, although it was deleted",
            false => "is there, although no call made it",
        };
        Violation::RecordDisagrees { thing: thing.clone(), said }
    });
    let gone = ledger.present.iter().filter(|thing| !end.present.contains_key(thing)).map(|thing| {
        Violation::RecordDisagrees { thing: thing.clone(), said: "is not there, although no call deleted it" }
    });
    unmade.chain(gone).collect()
}

fn check_known(thing: &Thing, intent: &Option<String>, end: &Final) -> Option<Violation> {
    let names =
        |line: &String| names(line, &thing.id) || intent.as_ref().is_some_and(|intent| names(line, intent));
    let is_known = end.claims.iter().any(|claim| claim.thing == *thing)
        || end.orphans.contains(thing)
        || end.leaks.iter().any(names);
    (!is_known).then(|| Violation::Leaked { thing: thing.clone(), intent: intent.clone() })
}

fn check_claims(end: &Final) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut claimed: BTreeMap<&Thing, &Claim> = BTreeMap::new();
    for claim in &end.claims {
        if let Some(first) = claimed.insert(&claim.thing, claim) {
            let by = [first.by.clone(), claim.by.clone()];
            violations.push(Violation::ClaimedTwice { thing: claim.thing.clone(), by });
        }
        match end.present.get(&claim.thing) {
            None => violations.push(Violation::Missing { claim: claim.clone() }),
            Some(Some(intent)) if claim.intent.as_ref().is_some_and(|wanted| wanted != intent) => {
                let (claim, intent) = (claim.clone(), intent.clone());
                violations.push(Violation::ClaimedByAnother { claim, intent });
            }
            Some(_) => {}
        }
    }
    violations
}

/// Returns whether a line holds a name as a whole word: `vm-1` is not in `vm-12`.
fn names(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edges = |(at, _): (usize, &str)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    };
    !name.is_empty() && line.match_indices(name).any(edges)
}

#[cfg(test)]
mod tests;
