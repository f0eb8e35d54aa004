//! The replica `directord`: configuration, wiring and front doors. The only crate that sees everything.
//!
//! Deliberately *not* here: what an operation means (the service), what a plan is (the scheduler), how a step is done (the
//! executor). Invariant: nothing below this crate reads a file or the environment to learn how to behave.
//!
//! Read next: [`wire`] (what is connected to what), [`fleet`] (this replica within its fleet), [`grpc`] and [`rest`] (the front doors),
//! [`commands`] (init and join); [`contact`], [`metrics`], [`traces`] and [`alerts`] are what operators see of it.

/// Small rows come and go by the thousand, from several threads, RocksDB's among them: a fifth of a busy replica's time
/// went into the C library's allocator, and what it had once taken it kept.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod agent_blobs;
pub mod agents;
pub mod alerts;
pub mod archives;
pub mod auth;
pub mod clouds;
pub mod commands;
pub mod config;
pub mod contact;
pub mod daily_snapshots;
pub mod damage;
pub mod deadline;
pub mod door;
#[cfg(test)]
mod doors_tests;
pub mod error_map;
mod expiry;
pub mod files;
pub mod fleet;
pub mod grpc;
pub mod identity;
pub mod janitor;
pub mod listen;
pub mod listeners;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod nats;
pub mod output;
pub mod probes;
pub mod rest;
pub mod secrets;
#[cfg(test)]
mod test_support;
pub mod tls;
pub mod traces;
pub mod uaa;
pub mod wire;
pub mod world;
