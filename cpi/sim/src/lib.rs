//! A simulated cloud: thousands of VMs with their agents in one process, and every misfortune that clouds have.
//!
//! [`SimCloud`] is the cloud itself, for tests in one process. `sim-cloud` serves it over a Unix socket, so that several
//! replicas share one cloud that survives each of them; [`SimCpi`] is a replica's side. The agents ([`Fleet`]) are
//! dagent's own code over a machine in memory: what they say on the wire is what real ones say. That is why this crate,
//! alone among the clouds, imports `dagent`. VMs that are told of a message bus have BOSH's agent on it, over the same machine.
//!
//! `sim-cpi` is the same cloud behind the contract of BOSH's CPIs ([`contract`]): a process for each call.
//!
//! Deliberately *not* here: any record on disk. When the process ends, the cloud has never been.
//!
//! Read next: [`Knobs`], then [`SimCloud`].

mod bosh_agent;
mod calls;
mod client;
mod cloud;
pub mod contract;
mod fleet;
mod knobs;
mod machine;
mod record;
mod server;
mod wire;

pub use calls::AgentCalls;
pub use client::SimCpi;
pub use cloud::{SimCloud, Statistics};
pub use fleet::{Agents, Fleet};
pub use knobs::{Chances, Knobs, Span};
pub use record::{Effect, Entry, Record};
pub use server::serve;
