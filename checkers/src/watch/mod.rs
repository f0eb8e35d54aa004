//! What watchers received is what happened: in order, each change once, none left out, also across a change of replica.
//!
//! The truth to compare with is the union of what all watchers received ([`Reference`]), to which the caller adds what a
//! full reading at the end shows. So a change that is kept from everybody is not seen here; a reading of the state is
//! for that.
//!
//! A watcher's record is a sequence of sessions. Each begins after a revision and ends when its stream breaks, or with
//! the answer that the revision is compacted. What must hold:
//!
//! * Revisions ascend, within a session and over all of a watcher's, and no change comes twice.
//! * Between where a session began and the last revision that was called complete, nothing of the reference is missing.
//! * Nothing comes at or below a revision that was called complete: bookmarks are true.
//! * A session begins where the one before ended, unless that one ended with "compacted": then the watcher read anew.
//! * A session says where it is, or breaks; it is not silent.

mod reference;

use std::fmt;

pub use reference::Reference;

use crate::Findings;

/// One change as a watcher gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Its revision. One revision may hold several changes.
    pub revision: u64,
    /// What changed; for the checker only a name.
    pub what: String,
}

/// Something that a watcher saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It began a session after a revision; none: from wherever the replica is.
    Opened {
        /// The revision.
        after: Option<u64>,
    },
    /// A message came: changes, or none in a bookmark, and up to where that is everything.
    Message {
        /// Everything up to here has come.
        complete_to: u64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// The replica refused to go on: the revision is compacted.
    Compacted,
    /// The stream broke, or the watcher left.
    Broke,
    /// Nothing came for longer than the watcher's patience, not even a first bookmark.
    Silent,
}

/// A watcher and all that it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// Its name, for people.
    pub name: String,
    /// What it saw, in order.
    pub seen: Vec<Seen>,
}

/// What is wrong with what a watcher saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who saw it.
    pub watcher: String,
    /// The number of what it saw; that of all, if it is about the end.
    pub seen: usize,
    /// What is wrong.
    pub what: Wrong,
}

/// The ways to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A change came after one of a higher revision.
    OutOfOrder {
        /// The change.
        change: Change,
        /// The revision that had come before it.
        after: u64,
    },
    /// A change came twice.
    Twice {
        /// The change.
        change: Change,
    },
    /// A change came that should have come before: everything up to `complete_to` had been called complete.
    FalseBookmark {
        /// The change.
        change: Change,
        /// What had been called complete.
        complete_to: u64,
    },
    /// A change came that lies beyond what its own message calls complete.
    BeyondItsMessage {
        /// The change.
        change: Change,
        /// What the message calls complete.
        complete_to: u64,
    },
    /// A message calls less complete than one before it.
    BookmarkWentBack {
        /// What it calls complete.
        complete_to: u64,
        /// What had been called complete.
        before: u64,
    },
    /// Changes that others saw did not come, though everything up to a revision was called complete.
    Gap {
        /// The first that is missing.
        missing: Change,
        /// How many are.
        count: usize,
        /// What had been called complete before.
        after: u64,
        /// What was called complete then.
        complete_to: u64,
    },
    /// The same as a gap, at the beginning of a session: the replica should have refused the revision as compacted.
    SkippedInSilence {
        /// The first that is missing.
        missing: Change,
        /// How many are.
        count: usize,
        /// Where the session was to begin.
        after: u64,
    },
    /// A session did not begin where the one before ended.
    NotResumed {
        /// Where it began.
        opened_after: Option<u64>,
        /// Where the one before ended.
        had: u64,
    },
    /// A session did not say where it is.
    Silent,
    /// The watcher should have got this far in the end.
    CameShort {
        /// How far it got.
        reached: u64,
        /// How far it should have.
        expected: u64,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at revision {}", self.what, self.revision)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watcher `{}`, message {}: ", self.watcher, self.seen)?;
        match &self.what {
            Wrong::OutOfOrder { change, after } => write!(f, "{change} came after revision {after}"),
            Wrong::Twice { change } => write!(f, "{change} came twice"),
            Wrong::FalseBookmark { change, complete_to } => {
                write!(f, "{change} came after everything up to {complete_to} was called complete")
            }
            Wrong::BeyondItsMessage { change, complete_to } => {
                write!(f, "{change} came in a message that reaches {complete_to}")
            }
            Wrong::BookmarkWentBack { complete_to, before } => {
                write!(f, "calls {complete_to} complete, after {before} was")
            }
            Wrong::Gap { missing, count, after, complete_to } => {
                write!(
                    f,
                    "{count} changes between {after} and {complete_to} did not come, the first: {missing}"
                )
            }
            Wrong::SkippedInSilence { missing, count, after } => write!(
                f,
                "the session was to begin after {after} and left out {count} changes in silence, the first: {missing}"
            ),
            Wrong::NotResumed { opened_after, had } => match opened_after {
                Some(after) => write!(f, "the session begins after {after}, the one before ended at {had}"),
                None => write!(f, "the session begins anywhere, the one before ended at {had}"),
            },
            Wrong::Silent => write!(f, "the session never said where it is"),
            Wrong::CameShort { reached, expected } => write!(f, "ended at {reached} instead of {expected}"),
        }
    }
}

/// Judges what watchers saw. `must_reach` is where each of them must have got to in the end.
pub fn check(watchers: &[Watcher], reference: &Reference, must_reach: Option<u64>) -> Findings<Violation> {
    let mut findings = Findings::default();
    let (mut sessions, mut changes) = (0, 0);
    for watcher in watchers {
        let mut progress = Progress::default();
        for (number, seen) in watcher.seen.iter().enumerate() {
            match seen {
                Seen::Opened { .. } => sessions += 1,
                Seen::Message { changes: some, .. } => changes += some.len(),
                _ => {}
            }
            let wrong = progress.next(seen, reference);
            let name = |what| Violation { watcher: watcher.name.clone(), seen: number, what };
            findings.violations.extend(wrong.into_iter().map(name));
        }
        let reached = progress.complete_to.unwrap_or(0);
        if let Some(expected) = must_reach.filter(|expected| reached < *expected) {
            let what = Wrong::CameShort { reached, expected };
            let seen = watcher.seen.len();
            findings.violations.push(Violation { watcher: watcher.name.clone(), seen, what });
        }
    }
    findings.looked_at = vec![
        ("watchers", watchers.len()),
        ("sessions", sessions),
        ("changes received", changes),
        ("changes known", reference.len()),
    ];
    findings
}

/// How far a watcher is.
#[derive(Default)]
struct Progress {
    /// Everything up to here has come; none: nobody has said where the watch is.
    complete_to: Option<u64>,
    /// Whether the next message is the session's first.
    is_opening: bool,
    /// Whether the watcher was told to read anew.
    was_compacted: bool,
    /// The changes of the newest revision: those that could come twice.
    newest: Vec<Change>,
}

impl Progress {
    fn next(&mut self, seen: &Seen, reference: &Reference) -> Vec<Wrong> {
        match seen {
            Seen::Opened { after } => self.open(*after).into_iter().collect(),
            Seen::Message { complete_to, changes } => self.message(*complete_to, changes, reference),
            Seen::Compacted => {
                self.was_compacted = true;
                Vec::new()
            }
            Seen::Broke => Vec::new(),
            Seen::Silent => vec![Wrong::Silent],
        }
    }

    fn open(&mut self, after: Option<u64>) -> Option<Wrong> {
        let had = self.complete_to.filter(|_| !std::mem::take(&mut self.was_compacted));
        self.is_opening = true;
        let wrong =
            had.filter(|had| after != Some(*had)).map(|had| Wrong::NotResumed { opened_after: after, had });
        self.complete_to = after;
        self.newest.clear();
        wrong
    }

    fn message(&mut self, complete_to: u64, changes: &[Change], reference: &Reference) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let before = self.complete_to;
        let mut last = 0;
        for change in changes {
            wrong.extend(self.wrong_with(change, last, before, complete_to));
            last = last.max(change.revision);
            if self.newest.first().is_some_and(|newest| newest.revision != change.revision) {
                self.newest.clear();
            }
            self.newest.push(change.clone());
        }
        if let Some(before) = before.filter(|before| complete_to < *before) {
            wrong.push(Wrong::BookmarkWentBack { complete_to, before });
        }
        // Where the first message alone says where the watch is, nothing was promised before it.
        if let Some(after) = before {
            wrong.extend(self.gap(after, complete_to, changes, reference));
        }
        self.is_opening = false;
        self.complete_to = self.complete_to.max(Some(complete_to));
        wrong
    }

    fn wrong_with(&self, change: &Change, last: u64, before: Option<u64>, complete_to: u64) -> Option<Wrong> {
        let change = change.clone();
        if self.newest.contains(&change) {
            return Some(Wrong::Twice { change });
        }
        if let Some(before) = before.filter(|before| change.revision <= *before) {
            return Some(Wrong::FalseBookmark { change, complete_to: before });
        }
        if change.revision < last {
            return Some(Wrong::OutOfOrder { change, after: last });
        }
        (change.revision > complete_to).then_some(Wrong::BeyondItsMessage { change, complete_to })
    }

    fn gap(&self, after: u64, complete_to: u64, changes: &[Change], reference: &Reference) -> Option<Wrong> {
        let mut missing = reference.between(after, complete_to).filter(|known| !changes.contains(known));
        let first = missing.next()?.clone();
        let count = 1 + missing.count();
        Some(match self.is_opening {
            true => Wrong::SkippedInSilence { missing: first, count, after },
            false => Wrong::Gap { missing: first, count, after, complete_to },
        })
    }
}

#[cfg(test)]
mod tests;
