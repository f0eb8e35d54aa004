//! What is known not to be as recorded: what is different on purpose, with its reason (`different.toml`), and what is not
//! built yet (`not_yet.toml`). An entry that is not needed any more is a failure: both lists can only shrink, or be
//! added to by somebody who gives a reason.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Something that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: `status`, `header location`, `body[].tags`, `arguments[0]`.
    pub at: String,
    /// What is recorded.
    pub recorded: String,
    /// What came back.
    pub ours: String,
}

/// One entry. Texts are patterns in which `*` stands for anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Scenarios, by name with number; all of them, if not said.
    #[serde(default = "anything")]
    pub scenario: String,
    /// Method and path.
    #[serde(default = "anything")]
    pub request: String,
    /// Where the difference is; with [`Difference::at`]'s words.
    #[serde(default = "anything")]
    pub at: String,
    /// What is recorded.
    #[serde(default = "anything")]
    pub recorded: String,
    /// What comes back.
    #[serde(default = "anything")]
    pub ours: String,
    /// Why.
    pub reason: String,
}

fn anything() -> String {
    "*".into()
}

#[derive(Deserialize)]
struct List {
    entry: Vec<Entry>,
}

/// Reads a list.
fn parse(text: &str) -> Result<Vec<Entry>> {
    Ok(toml::from_str::<List>(text).context("a list of differences")?.entry)
}

/// Returns whether a text is as a pattern says.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Where something was asked.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The scenario's name.
    pub scenario: &'a str,
    /// Method and path.
    pub request: &'a str,
}

/// Keeps account of what was compared.
pub struct Ledger {
    different: Vec<(Entry, usize)>,
    not_yet: Vec<(Entry, usize)>,
    /// Requests that were answered as recorded.
    pub equal: usize,
    /// Requests that were answered as declared.
    pub declared: usize,
    /// Requests to what is not built yet, or that depend on it.
    pub unbuilt: usize,
    unexplained: BTreeMap<String, Vec<(String, Difference)>>,
}

impl Ledger {
    /// Begins with the two lists.
    pub fn new(different: &str, not_yet: &str) -> Result<Self> {
        let counted =
            |text| Ok::<_, anyhow::Error>(parse(text)?.into_iter().map(|entry| (entry, 0)).collect());
        Ok(Self {
            different: counted(different)?,
            not_yet: counted(not_yet)?,
            equal: 0,
            declared: 0,
            unbuilt: 0,
            unexplained: BTreeMap::new(),
        })
    }

    /// Takes down how one request was answered.
    pub fn enter(&mut self, place: Place<'_>, found: Vec<Difference>) {
        let (is_equal, mut is_explained, mut is_built) = (found.is_empty(), true, true);
        for difference in found {
            let known = |list: &mut Vec<(Entry, usize)>| {
                let used = list.iter_mut().find(|(entry, _)| explains(entry, place, &difference));
                used.map(|(_, uses)| *uses += 1).is_some()
            };
            if known(&mut self.different) {
                continue;
            }
            if known(&mut self.not_yet) {
                is_built = false;
                continue;
            }
            is_explained = false;
            let request = place.request.to_owned();
            self.unexplained.entry(place.scenario.to_owned()).or_default().push((request, difference));
        }
        match (is_equal, is_explained, is_built) {
            (true, _, _) => self.equal += 1,
            (_, true, true) => self.declared += 1,
            (_, true, false) => self.unbuilt += 1,
            (_, false, _) => {}
        }
    }

    /// Returns what is wrong: differences without a reason, and reasons without a difference.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (scenario, found) in &self.unexplained {
            for (request, Difference { at, recorded, ours }) in found {
                complaints.push(format!(
                    "{scenario}: {request}: {at}\n    recorded: {recorded}\n    ours:     {ours}"
                ));
            }
        }
        for (name, list) in [("different", &self.different), ("not_yet", &self.not_yet)] {
            let idle = list.iter().filter(|(_, uses)| *uses == 0);
            complaints.extend(idle.map(|(entry, _)| {
                format!("{name}.toml: not needed any more: `{}` ({entry:?})", entry.reason)
            }));
        }
        complaints
    }
}

fn explains(entry: &Entry, place: Place<'_>, found: &Difference) -> bool {
    matches(&entry.scenario, place.scenario)
        && matches(&entry.request, place.request)
        && matches(&entry.at, &found.at)
        && matches(&entry.recorded, &found.recorded)
        && matches(&entry.ours, &found.ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    fn difference() -> Difference {
        Difference { at: "status".into(), recorded: "303".into(), ours: "302".into() }
    }

    fn missing() -> Difference {
        Difference { at: "body".into(), ..difference() }
    }

    fn ledger() -> Ledger {
        let different = "[[entry]]\nat = 'status'\nours = '302'\nreason = 'because'\n";
        let not_yet = "[[entry]]\nrequest = 'GET /x*'\nreason = 'nobody has built it'\n";
        Ledger::new(different, not_yet).unwrap()
    }

    #[test]
    fn what_has_a_reason_is_no_complaint_and_a_reason_without_use_is_one() {
        let (get, other) = (
            Place { scenario: "001-a", request: "GET /x/1" },
            Place { scenario: "001-a", request: "PUT /y" },
        );
        let mut all = ledger();
        all.enter(get, vec![difference(), missing()]);
        all.enter(other, vec![difference()]);
        all.enter(other, vec![]);
        assert_eq!(all.complaints(), Vec::<String>::new());
        assert_eq!((all.equal, all.declared, all.unbuilt), (1, 1, 1));

        let mut built = ledger();
        built.enter(get, vec![]);
        assert_eq!(built.complaints().len(), 2, "neither list is needed");

        let mut wrong = ledger();
        wrong.enter(get, vec![missing()]);
        wrong.enter(other, vec![difference(), missing()]);
        let complaints = wrong.complaints();
        assert!(complaints.len() == 1 && complaints[0].starts_with("001-a: PUT /y: body"), "{complaints:?}");
    }
}
