//! Reading the state. A [`State`] is a view that costs nothing; give it a store's snapshot to read several things of
//! the same moment.
//!
//! Lists come in the order of their keys unless a method says otherwise. Nothing here says how fresh the store is: that
//! is for the caller who picked it.
//!
//! Read next: one file per noun; [`crate::tables`] for what is stored.

mod artifact;
mod deployment;
mod dns;
mod dynamic_disk;
mod fleet;
mod health;
mod history;
mod instance;
mod link;
mod network;
mod problem;
mod snapshot;
mod task;
mod variable;

pub use deployment::InUse;
pub use dns::DnsRecords;
pub(crate) use dns::{dns_counter, dns_key};
pub use health::{DeploymentHealth, Which};
pub use history::{Compacted, EventFilter};
pub use task::{LockView, TaskFilter};

use crate::kv::KvRead;

/// A view of the state in a store.
#[derive(Clone, Copy)]
pub struct State<'a> {
    kv: &'a dyn KvRead,
}

impl<'a> State<'a> {
    /// Looks at the state in `kv`.
    pub fn new(kv: &'a dyn KvRead) -> Self {
        Self { kv }
    }
}
