//! The seam to agents: the [`Agents`] trait, typed requests, one fake and one conformance suite.
//!
//! Method names, argument order and results are BOSH's; the transport is an implementation's
//! affair. Every request carries the leader's epoch and an id: an agent refuses an older epoch, and answers a repeated id
//! from its record instead of doing the deed twice.

pub mod admission;
pub mod conformance;
mod error;
pub mod fake;
mod reports;
mod request;
mod state;

use async_trait::async_trait;
use model::AgentId;

pub use error::AgentError;
pub use reports::*;
pub use request::*;
pub use state::*;

/// All agents, reachable by id from anywhere in the cluster.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Sends a request and waits for its final result, over reconnects and moves of the agent between replicas.
    ///
    /// Safe to cancel: the agent goes on; a later call with the same id and [`Mode::Attach`] or [`Mode::Submit`]
    /// gets the same result.
    async fn call(&self, agent: &AgentId, request: Request) -> Result<Reply, AgentError>;

    /// Asks the agent to give up a request that is under way. Idempotent; `true` if it was still running.
    async fn cancel(
        &self,
        agent: &AgentId,
        request: &model::RequestId,
        epoch: model::Epoch,
    ) -> Result<bool, AgentError>;
}
