//! The replicated state: what may be asked of it ([`command`]), what happens then ([`apply()`]), and how to read it
//! ([`State`]).
//!
//! Deliberately *not* here: clocks, chance, I/O, threads. Everything that `apply` knows is in the store and in the entry;
//! so every replica that applies the same entries holds the same bytes.
//!
//! Invariants: `apply` is total (a refusal is an answer, and changes nothing); a revision's changes are all visible or
//! none; an address has one holder; a lock is held by the task at the head of its queue; a step is recorded as started
//! before anybody does it.
//!
//! Read next: [`command`], then [`tables`], then `apply/step.rs`, where most of the work is.

pub mod apply;
pub mod codec;
pub mod command;
pub mod draft;
pub mod key;
pub mod kv;
mod level;
pub mod log;
pub mod overlay;
pub mod query;
pub mod records;
pub mod restore;
mod rows;
pub mod table;
pub mod tables;

pub use apply::{Applied, CHANGES_KEPT, apply, apply_bytes};
pub use query::State;
