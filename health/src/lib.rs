//! Watching over agents: who watches whom, who is alive, and who gets a new VM.
//!
//! The rules are pure ([`shard`], [`assess`], [`meltdown`], [`failures`]); [`watcher`] and [`resurrector`] feed them and act through the
//! small trait [`World`]. Heartbeats stay in the memory of the replica that owns the shard; only transitions reach the log.
//!
//! Deliberately *not* here: streams (the agents' transport), storage, and giving new VMs (a task does). Invariant: silence
//! counts only while this replica was listening under a shard map that is still the newest, and no agent is called dead
//! before it was asked by a second way.
//!
//! Read next: [`assess`], then [`watcher`].

pub mod assess;
pub mod failures;
#[cfg(test)]
mod fake;
pub mod meltdown;
pub mod resurrector;
pub mod shard;
pub mod watcher;
pub mod world;

pub use shard::shard_owner;
pub use world::{Beats, Failed, Health, Transition, Unhealthy, Watched, World};
