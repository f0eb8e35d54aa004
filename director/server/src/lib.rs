//! The replica `directord`: configuration, wiring and front doors. The only crate that sees everything.
//!
//! Read next: `wire` (what is connected to what), [`fleet`] (this replica within its fleet), `grpc` (the front door).

pub mod config;
