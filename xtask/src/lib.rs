//! Our own checks of the source tree: what the compiler and clippy cannot know.
//!
//! `cargo xtask layers` holds the import arrows, `cargo xtask tidy` the habits. Both only read; neither needs the
//! network or a build of the crates they look at. Deliberately not here: formatting, lints, licences (`make check` runs
//! the tools that know about those).
//!
//! Read next: [`layers::LAYERS`] (the one table of arrows), [`tidy`].

pub mod layers;
pub mod tidy;

use std::fmt;

/// Something that a check found, with the place to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// A crate, or `path:line`.
    pub place: String,
    /// What is wrong, and what to do instead.
    pub text: String,
    /// Whether it fails the check.
    pub severity: Severity,
}

/// Whether a complaint fails the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Must be changed before the change lands.
    Fail,
    /// Worth a look; does not fail the check.
    Warn,
}

impl Complaint {
    /// Returns a complaint that fails the check.
    pub fn fail(place: impl ToString, text: impl Into<String>) -> Self {
        Self { place: place.to_string(), text: text.into(), severity: Severity::Fail }
    }

    /// Returns a complaint that is only shown.
    pub fn warn(place: impl ToString, text: impl Into<String>) -> Self {
        Self { place: place.to_string(), text: text.into(), severity: Severity::Warn }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.severity {
            Severity::Fail => "",
            Severity::Warn => "warning: ",
        };
        write!(f, "{prefix}{}: {}", self.place, self.text)
    }
}
