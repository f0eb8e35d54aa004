//! `dctl`, the operator's command line, over the public gRPC API.
//!
//! Deliberately *not* here: any decision about deployments. The directors plan, check and refuse; this crate finds one
//! that answers, says what the operator wants, and shows what comes back. It may know `proto` (the wire), `release`
//! (archives that are made on this machine) and `retry`; never a director's own crates.
//!
//! Invariants: one mutation is one `request_id`, however often it is sent ([`client`]); a task's output is shown without
//! gap and repeat, whichever replica sends it ([`follow`]); exit codes and JSON shapes are stable ([`error::Exit`],
//! [`console`]).
//!
//! Read next: [`args`] (the words), [`commands`] (what they do), [`settings`] (where the fleet is).

pub mod args;
pub mod client;
pub mod commands;
pub mod console;
pub mod document;
pub mod error;
pub mod follow;
pub mod settings;
