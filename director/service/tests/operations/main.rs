//! What an operation promises, over a state whose clock is the test's.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod disks;
mod dynamic_disks;
mod exports;
mod fleet;
mod isolated;
mod links;
mod lists;
mod logs;
mod names;
mod networks;
/// Builders of the state's nouns, as the state's own tests use them.
#[path = "../../../state/tests/common/mod.rs"]
mod nouns;
mod repeats;
mod snapshots;
mod users;
mod watches;
