//! Local DNS: numbers in names, and how the records reach the agents.
//!
//! The records are read from the state ([`State::dns_records`](state::State::dns_records)); what is here is when. The
//! leader looks when the state has changed, gives numbers to what has none, has a new version of the document remembered
//! and then stored ([`publish`]), and tells the agents ([`tell`]), of the records and of how the instances fare in them ([`fares`]). Whoever applies jobs first sees to it that their
//! agent has a document with its own VM in it ([`desk`]).
//!
//! Invariants: an agent is told of a document only once it is stored, and the state knew of it before; nothing here fails
//! a task or holds it up for longer than [`desk::WITHIN`]. Not here: names and their answers, which is the agent's part.

pub mod desk;
mod fares;
mod numbers;
mod publish;
mod tell;

use std::sync::Arc;

use tokio::sync::Notify;

pub use desk::Desk;
pub(crate) use numbers::Numbers;

use crate::lease::Fence;
use crate::ports::Ports;

/// The root of all names.
pub const DOMAIN: &str = "bosh";

/// Numbers given at once, far below an entry's size.
pub(crate) const NUMBERED_MAX: usize = 2000;

/// Keeps all agents' records up to date for as long as this replica leads under `fence`; `changed` tells that the state has
/// changed.
pub async fn run(ports: Ports, fence: Fence, changed: Arc<Notify>) {
    let desk = ports.dns.clone();
    let _open = desk.open();
    // The first that ends has seen that this replica does not lead: the other one may not have.
    tokio::select! {
        biased;
        () = publish::run(&ports, &fence, &changed) => {}
        () = tell::run(&ports, &fence) => {}
    }
}
