//! The leader's work: takes tasks up, has them planned, carries their plans out step by step, and records every step.
//!
//! Deliberately *not* here: deciding (the scheduler does, purely), storing (the log does), and who leads (the server
//! tells through [`lease::Lease`]). The invariant: before a deed its intent is committed under this leader's epoch, after
//! it its outcome; so whoever leads next finds every step either ended or open, and knows what to do with it.
//!
//! Read next: [`runner`] (the loop), [`driver`] (one task), [`stages`] and [`mod@unit`] (a plan), [`recover`] (what to do with
//! an open step), [`steps`] (the deeds).

pub mod blobs;
pub mod clouds;
pub mod context;
pub mod dns;
pub mod driver;
pub mod error;
pub mod journal;
mod latecomers;
pub mod lease;
mod networks;
mod patience;
pub mod ports;
pub mod prepare;
pub mod recover;
pub mod render;
pub mod rfc3339;
pub mod runner;
mod sought;
pub mod stages;
pub mod steps;
pub mod tasks;
mod template_cache;
pub mod unit;
pub mod variables;
mod visible;

pub use ports::{Options, Ports};
