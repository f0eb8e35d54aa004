//! Judges of what a fleet was seen to do: each takes a record of what happened and says whether it could have happened
//! to a fleet that keeps its promises.
//!
//! | checker | record | promise |
//! |---|---|---|
//! | [`linearizable`] | operations on registers, one per key | there is one order, true to real time, that explains every answer |
//! | [`watch`] | what watchers received | ordered, unique, no gap, resumable, bookmarks true, compaction told |
//! | [`deeds`] | a cloud's calls and what is there at the end | each thing made once; nothing alive that nobody knows of |
//! | [`locks`] | who held which lock, and what was done under it | one holder, and nothing done after the next one began |
//! | [`output`] | pieces of a task's output as a client got them | byte for byte what is stored |
//! | [`deaths`] | acknowledged heartbeats and declared deaths | nobody is called dead who was just being heard |
//!
//! All are plain functions of their record, so a simulation and a fleet of real processes use the same ones. Deliberately
//! *not* here: a clock, a network, and anything of Directorate's own: a judge that shares code with the accused shares its
//! mistakes. A checker that cannot decide says so ([`Findings::undecided`]) and never calls that a pass.
//!
//! Read next: [`history`], then [`linearizable`].

pub mod deaths;
pub mod deeds;
mod findings;
pub mod history;
pub mod linearizable;
pub mod locks;
pub mod output;
pub mod watch;

pub use findings::{Findings, Report};
