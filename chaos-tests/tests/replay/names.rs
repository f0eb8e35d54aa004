//! What bears another name here than there: ids are drawn anew in every run, so a recorded one stands for ours, which is
//! learned when both are first seen at the same place, and must hold from then on.

use std::collections::BTreeMap;

/// What has numbers of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Tasks.
    Task,
    /// Events.
    Event,
    /// Versions of configs.
    Config,
    /// Rows of some list.
    Row(String),
    /// Whatever is named by a long random text.
    Token,
    /// Blobs: two of theirs may be one of ours, which is named by its content.
    Blob,
}

/// What is known about names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    ours: BTreeMap<(Kind, String), String>,
    theirs: BTreeMap<(Kind, String), String>,
}

impl Names {
    /// Takes two names for the same; returns false if either is known to be another's.
    pub fn learn(&mut self, kind: &Kind, recorded: &str, ours: &str) -> bool {
        let (there, here) = ((kind.clone(), recorded.to_owned()), (kind.clone(), ours.to_owned()));
        if *kind == Kind::Blob {
            self.ours.insert(there, ours.to_owned());
            return true;
        }
        match (self.ours.get(&there), self.theirs.get(&here)) {
            (Some(known), _) => known == ours,
            (None, Some(_)) => false,
            (None, None) => {
                self.ours.insert(there, ours.to_owned());
                self.theirs.insert(here, recorded.to_owned());
                true
            }
        }
    }

    /// Returns what ours is called.
    pub fn ours(&self, kind: &Kind, recorded: &str) -> Option<&str> {
        self.ours.get(&(kind.clone(), recorded.to_owned())).map(String::as_str)
    }

    /// Returns what one of ours was called.
    pub fn recorded(&self, kind: &Kind, ours: &str) -> Option<&str> {
        self.theirs.get(&(kind.clone(), ours.to_owned())).map(String::as_str)
    }

    /// Returns a number of ours, or the recorded one where there is none.
    pub fn number(&self, kind: &Kind, recorded: &str) -> String {
        self.ours(kind, recorded).unwrap_or(recorded).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_learned_holds_in_both_directions() {
        let mut names = Names::default();
        assert!(names.learn(&Kind::Task, "9", "3"));
        assert!(names.learn(&Kind::Task, "9", "3"));
        assert!(!names.learn(&Kind::Task, "9", "4"), "it is another task");
        assert!(!names.learn(&Kind::Task, "10", "3"), "that is another task");
        assert!(names.learn(&Kind::Event, "9", "4"), "events have numbers of their own");
        assert_eq!((names.ours(&Kind::Task, "9"), names.ours(&Kind::Task, "4")), (Some("3"), None));
        assert!(names.learn(&Kind::Blob, "a", "x") && names.learn(&Kind::Blob, "b", "x"));
    }
}
