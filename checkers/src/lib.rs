//! Judges of what a fleet was seen to do: each takes a record of what happened and says whether it could have happened
//! to a fleet that keeps its promises.
//!
//! | checker | record | promise |
//! |---|---|---|
//! | [`linearizable`] | operations on registers, one per key | there is one order, true to real time, that explains every answer |
//! | [`watch`] | what watchers received | ordered, unique, no gap, resumable, bookmarks true, compaction told |
//!
//! All are plain functions of their record, so a simulation and a fleet of real processes use the same ones. Deliberately
//! *not* here: a clock, a network, and anything of Directorate's own: a judge that shares code with the accused shares its
//! mistakes. A checker that cannot decide says so ([`Findings::undecided`]) and never calls that a pass.
//!
//! Read next: [`history`], then [`linearizable`].

mod findings;
pub mod history;
pub mod linearizable;
pub mod watch;

pub use findings::{Findings, Report};
