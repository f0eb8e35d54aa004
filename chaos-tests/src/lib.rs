//! Proofs under failure: fleets of real processes, and what happens to them.
//!
//! This library is the laboratory: a fleet ([`cluster`]), an operator ([`client`]; [`bosh`] is one at the `bosh` CLI, over [`rest`]), a simulated cloud ([`sim`], and behind an executable [`sim_cpi`]), the bus of BOSH's agents ([`bus`]), things
//! to deploy ([`workload`], [`redis`]), clients at work ([`workloads`]) and judges of what they saw ([`checks`]); everything that can
//! be done to a fleet ([`nemesis`]), and schedules of that, drawn by chance ([`schedule`]). The stories are in `tests/`,
//! one per file; the measurements are `src/bin/bench`, and `src/bin/chaos` plays schedules. Deliberately *not* here: anything
//! that looks inside a replica. What these tests know, an operator could know.
//!
//! Invariants: whoever waits, waits for a condition ([`wait`]); whatever is started ends with the value that started it,
//! by pid ([`processes`]); all traffic stays on loopback, or in a network of the test's own ([`lab`]).
//!
//! Read next: [`cluster::Cluster`], then `tests/leader_killed_during_deploy.rs`; `docs/chaos.md` tells how to play.

pub mod bosh;
pub mod bus;
pub mod checks;
pub mod client;
pub mod cluster;
mod compiler;
pub mod debian;
pub mod deploying;
pub mod forge;
pub mod lab;
pub mod machine;
pub mod needs;
pub mod nemesis;
pub mod probes;
pub mod processes;
pub mod programs;
pub mod recorded;
pub mod redis;
pub mod rest;
pub mod schedule;
pub mod sim;
pub mod sim_cpi;
pub mod wait;
pub mod workload;
pub mod workloads;
