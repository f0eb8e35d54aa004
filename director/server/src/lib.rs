//! The replica `directord`: configuration, wiring and front doors. The only crate that sees everything.
//!
//! Deliberately *not* here: what an operation means (the service), what a plan is (the scheduler), how a step is done (the
//! executor). Invariant: nothing below this crate reads a file or the environment to learn how to behave.
//!
//! Read next: [`wire`] (what is connected to what), [`fleet`] (this replica within its fleet), [`grpc`] (the front door),
//! [`commands`] (init and join).

pub mod agents;
pub mod auth;
pub mod clouds;
pub mod commands;
pub mod config;
pub mod contact;
pub mod error_map;
pub mod files;
pub mod fleet;
pub mod grpc;
pub mod identity;
pub mod janitor;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod output;
pub mod probes;
pub mod secrets;
#[cfg(test)]
mod test_support;
pub mod tls;
pub mod wire;
pub mod world;
