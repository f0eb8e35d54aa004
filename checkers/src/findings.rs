//! What a checker says: how much it looked at, what it found, and what it could not decide.

use std::fmt;

/// Most violations that a [`Report`] spells out: one broken promise often breaks a thousand answers.
const SPELLED_OUT_MAX: usize = 20;

/// The outcome of one checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings<V> {
    /// How much was looked at, by noun; a checker that saw nothing has shown nothing.
    pub looked_at: Vec<(&'static str, usize)>,
    /// What broke the promise.
    pub violations: Vec<V>,
    /// What could not be decided, and why. Not a pass.
    pub undecided: Vec<String>,
}

impl<V> Default for Findings<V> {
    fn default() -> Self {
        Self { looked_at: Vec::new(), violations: Vec::new(), undecided: Vec::new() }
    }
}

impl<V> Findings<V> {
    /// Returns whether the promise is shown to hold for all that was looked at.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

impl<V: fmt::Display> Findings<V> {
    /// Returns the same as text, under the checker's name.
    pub fn report(&self, checker: &'static str) -> Report {
        Report {
            checker,
            looked_at: self.looked_at.clone(),
            violations: self.violations.iter().map(V::to_string).collect(),
            undecided: self.undecided.clone(),
        }
    }
}

/// [`Findings`] as text, so that those of different checkers can be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who looked.
    pub checker: &'static str,
    /// How much was looked at, by noun.
    pub looked_at: Vec<(&'static str, usize)>,
    /// What broke the promise.
    pub violations: Vec<String>,
    /// What could not be decided, and why.
    pub undecided: Vec<String>,
}

impl Report {
    /// Returns whether the promise is shown to hold for all that was looked at.
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.violations.len(), self.undecided.len()) {
            (0, 0) => "holds",
            (0, _) => "undecided",
            _ => "violated",
        };
        write!(f, "{}: {verdict}", self.checker)?;
        for (position, (noun, count)) in self.looked_at.iter().enumerate() {
            write!(f, "{}{count} {noun}", if position == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.looked_at.is_empty() { "" } else { ")" })?;
        for line in self.violations.iter().take(SPELLED_OUT_MAX) {
            write!(f, "\n  - {}", line.replace('\n', "\n    "))?;
        }
        if let Some(more @ 1..) = self.violations.len().checked_sub(SPELLED_OUT_MAX) {
            write!(f, "\n  … and {more} more")?;
        }
        self.undecided.iter().try_for_each(|line| write!(f, "\n  ? {line}"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_report_tells_verdict_amount_and_a_bounded_list() {
        let mut found =
            Findings { looked_at: vec![("apples", 7), ("trees", 2)], ..Findings::<String>::default() };
        assert!(found.holds());
        expect!["fruit: holds (7 apples, 2 trees)"].assert_eq(&found.report("fruit").to_string());
        found.undecided.push("tree 2 is too high".into());
        assert!(!found.holds() && !found.report("fruit").holds());
        found.violations = (1..=22).map(|n| format!("apple {n}\nis rotten")).collect();
        let text = found.report("fruit").to_string();
        assert!(
            text.starts_with("fruit: violated (7 apples, 2 trees)\n  - apple 1\n    is rotten\n"),
            "{text}"
        );
        assert!(text.ends_with("apple 20\n    is rotten\n  … and 2 more\n  ? tree 2 is too high"), "{text}");
    }

    #[test]
    fn undecided_is_not_called_a_pass() {
        let found = Findings::<String> { undecided: vec!["too long".into()], ..Findings::default() };
        expect!["x: undecided\n  ? too long"].assert_eq(&found.report("x").to_string());
    }
}
