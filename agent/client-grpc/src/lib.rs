//! The directors' side of the agents' own transport: gRPC over mTLS, dialled by the agents.
//!
//! A replica has one [`AgentHub`]. It serves the three services that agents speak to and keeps the streams that agents
//! opened here. [`RemoteAgents`] is the [`agent_api::Agents`] of the whole cluster: it finds the replica that holds an
//! agent's stream, and looks for it again when that replica or stream is lost, always under the same request id, so that the
//! agent does nothing twice.
//!
//! Deliberately *not* here: who may enroll, where blobs are, which replica is an agent's home, and what a heartbeat
//! means. The server supplies those through the small traits in [`ports`].
//!
//! Invariant: an answer reaches a caller only from a stream whose certificate names the agent that was asked.
//!
//! Read next: [`ports`], then [`AgentHub`], then [`RemoteAgents`].

mod blobs;
mod gateway;
mod hub;
mod identity;
mod peer_certificate;
pub mod ports;
mod registry;
mod relay;
mod remote;
mod reports;
mod told;
mod wire;

pub use gateway::{AgentMessages, DirectorMessages};
pub use hub::{AgentHub, HubOptions, HubParts};
pub use peer_certificate::PeerCertificates;
pub use ports::*;
pub use relay::relay_over;
pub use remote::RemoteAgents;
pub use reports::AgentReport;
