//! The directors' side of BOSH's own transport to agents: messages over NATS, with certificates on both ends. What is at the
//! other end is the unmodified agent of a BOSH stemcell.
//!
//! [`NatsAgents`] is the [`agent_api::Agents`] of one replica: every replica reaches every agent, over the bus, and is answered
//! in an inbox of its own. That agent knows neither our request ids nor our epochs, and forgets on a restart. What the trait
//! promises all the same is kept on our side: in [`Deeds`], which stand for good, are the same for every replica, and refuse an
//! older leader. [`Reports`] hears what agents tell of themselves; [`users`] says who may say what on the bus.
//!
//! Deliberately *not* here: starting NATS servers, issuing certificates, where blobs are, and what a heartbeat means.
//!
//! Invariant: nothing is asked of an agent that may change it before it is written in the [`Deeds`] that it will be asked.
//!
//! Read next: `docs/decisions/0024-deeds-of-agents-that-forget.md`, [`Deeds`], then `agents.rs`, `message.rs` and `bus.rs`.

mod agents;
mod answer;
mod blobs;
mod bus;
mod deeds;
mod message;
mod options;
mod reports;
mod subjects;
mod submission;
pub mod users;

pub use agents::NatsAgents;
pub use answer::{Ending, LongTexts};
pub use blobs::{AgentBlobs, Brought, NotBrought};
pub use deeds::{Deed, DeedError, Deeds, Stage};
pub use options::{ConnectError, Options};
pub use reports::Reports;
